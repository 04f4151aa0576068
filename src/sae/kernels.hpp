#pragma once
// The few inner loops of sparse autoencoders that libtorch has no fast operator for: the k largest of a row, and sums
// of a few rows of a matrix. Plain CPU code over raw pointers, built for each instruction set (core/isa.hpp); one call
// works on one token, callers go parallel.

#include <cstdint>
#include <vector>

namespace steer::sae::detail {

/// Memory that `top_k` reuses between rows. One per thread.
struct TopKScratch {
  std::vector<float> block_max;
  std::vector<std::int32_t> candidates;
};

/// Positions of the k largest of score[0, n), by descending score; equal scores by ascending position. NaN never
/// counts. One pass finds the maximum of each block; the k-th largest of those bounds the answer from below, so that a
/// second pass visits only the few blocks that can hold it.
/// @param out  room for k positions. @return how many were written: k, or fewer when fewer than k are not NaN.
std::int64_t top_k(const float* score, std::int64_t n, std::int64_t k, std::int32_t* out, TopKScratch& scratch);

/// One of two layouts of W: `add_features` wants each input's features in a row ([inputs, features] of `stride`),
/// `add_features_by_rows` each feature's inputs ([features, inputs]).
struct Product {
  const float* x;  ///< [tokens, inputs]
  const float* w;
  float* out;  ///< [tokens, features]
  std::int64_t tokens, inputs, features, stride;
};

/// Constants of one step of Adam (Kingma and Ba 2015).
struct AdamStep {
  float rate = 0;  ///< learning rate / (1 - beta1^t)
  float beta1 = 0, beta2 = 0;
  float correction2 = 1;  ///< 1 / sqrt(1 - beta2^t)
  float epsilon = 1e-8f;
};

struct Kernels {
  /// The largest of each `block` of score[0, n); NaN never counts.
  void (*block_maxima)(const float* score, std::int64_t n, std::int64_t block, float* out);
  /// out[0, n) += scale * row[0, n).
  void (*add_scaled)(float* out, const float* row, float scale, std::int64_t n);
  /// Sum of a[i] * b[i], in 16 partial sums.
  float (*dot)(const float* a, const float* b, std::int64_t n);
  /// out[t, j] += x[t] . W[:, j] for features j in [begin, end) and all tokens t; the order of a sum's additions
  /// depends on `inputs` alone.
  void (*add_features)(const Product& product, std::int64_t begin, std::int64_t end);
  void (*add_features_by_rows)(const Product& product, std::int64_t begin, std::int64_t end);
  /// Positions of the entries of row[0, n) that are not zero (NaN included). @return how many, at most n.
  std::int64_t (*nonzero)(const float* row, std::int64_t n, std::int32_t* out);
  /// Positions where row[i] exceeds both 0 and floor[i] + offset (`floor` null: 0). @return how many.
  std::int64_t (*above)(const float* row, const float* floor, float offset, std::int64_t n, std::int32_t* out);
  /// Moves p[0, n) and its moments by the gradient g.
  void (*adam)(float* p, float* m, float* v, const float* g, std::int64_t n, const AdamStep& step);
};

/// Those of the instruction set in use.
const Kernels& kernels();

}  // namespace steer::sae::detail
