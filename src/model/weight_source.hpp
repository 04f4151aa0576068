#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <steer/io/tensor_reader.hpp>
#include <steer/model/model.hpp>

#include "model/transformer.hpp"

namespace steer::model::detail {

/// Takes a model's tensors out of a reader. The same assembling code runs twice: first only checking that every
/// tensor is there with its shape (so that all that is wrong is reported at once, before anything is read), then
/// reading. Anything not asked for and not on the list of ignored names is an error.
class WeightSource {
 public:
  WeightSource(const TensorReader& reader, const LoadOptions& options, at::Device device)
      : reader_(reader), options_(options), device_(device) {}

  /// A vector [n], as f32 on the device. `plus_one`: 1 is added (Gemma's gains).
  at::Tensor vector(const std::string& name, std::int64_t n, bool plus_one = false);
  /// A small dense matrix [rows, columns], f32.
  at::Tensor table(const std::string& name, std::int64_t rows, std::int64_t columns);
  /// A weight matrix [out, in] and, unless `bias` is empty, its bias [out].
  /// @param row_order  new order of the rows, or empty.
  Linear matrix(const std::string& name, const std::string& bias, std::int64_t out, std::int64_t in,
                const std::vector<std::int64_t>& row_order = {});
  /// Query, key and value of one fused tensor with `heads` heads: [in, 3 * in] holding q, k and v one after another
  /// (`transposed`, GPT-2's Conv1D), or [3 * in, in] with q, k and v of each head together (GPT-NeoX).
  std::array<Linear, 3> fused_qkv(const std::string& name, const std::string& bias, std::int64_t in, std::int64_t heads,
                                  bool transposed);
  /// GPT-2's Conv1D: stored [in, out].
  Linear transposed(const std::string& name, const std::string& bias, std::int64_t out, std::int64_t in);

  bool contains(const std::string& name) const { return reader_.contains(name); }
  /// Ends the first pass. @throws Error(shape | format) listing all missing, mis-shaped and extra tensors;
  ///         Error(argument) when the weights would take more than `max_memory`.
  void finish_check(const std::function<bool(std::string_view)>& ignored);
  /// Bytes of all weights asked for, in the form they are kept.
  std::int64_t bytes() const { return bytes_; }

 private:
  const TensorInfo* check(const std::string& name, std::vector<std::int64_t> shape);
  std::int64_t kept_bytes(const TensorInfo& info) const;
  at::Tensor read(const std::string& name);
  Linear keep(at::Tensor weight, at::Tensor bias) const;

  const TensorReader& reader_;
  const LoadOptions& options_;
  at::Device device_;
  bool checking_ = true;
  std::set<std::string, std::less<>> used_;
  std::vector<std::string> missing_, shapes_;
  std::int64_t bytes_ = 0;
};

/// Refuses a tensor with an infinite element or one that is not a number. @throws Error(format) naming it.
void require_finite(const at::Tensor& tensor, const std::string& name, const TensorReader& reader);

/// Hash of names, shapes, storage and a sample of every tensor's bytes.
std::string hash_weights(const TensorReader& reader);

}  // namespace steer::model::detail
