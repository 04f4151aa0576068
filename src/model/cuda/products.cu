// Products with few rows of x, where reading the weights is all the time: a warp takes two or four rows of W, a lane
// eight weights at a time, widened in registers from the type they are kept in. Each row of x is summed in an order of
// its own, so that its bits do not depend on the others.

#include "io/ggml_blocks.hpp"
#include "model/cuda/kernels.hpp"
#include "model/cuda/language.hpp"

namespace steer::model::detail::cuda {
namespace {

namespace ggml = io::detail::ggml;

constexpr int kRun = 8;  // consecutive weights of a lane
constexpr int kWarps = 4, kThreads = kWarps * kWarp;
/// Rows of W in a warp: what is read of x serves them all, and of many rows of x that is more than W itself.
template <int RowsOfX>
constexpr int kRowsOfW = RowsOfX < 4 ? 2 : 4;
using Byte = std::uint8_t;

__device__ const Byte* row_of(const WeightView& w, std::int64_t n) {
  return static_cast<const Byte*>(w.data) + n * w.row_bytes;
}

/// Eight bytes at an even address.
__device__ void read8(const Byte* p, Byte out[kRun]) {
  if (aligned_to<8>(p)) {
    const auto eight = read_aligned<8, Byte>(p);
    for (int i = 0; i < kRun; ++i) out[i] = eight.at[i];
    return;
  }
  const auto* halves = reinterpret_cast<const std::uint16_t*>(p);
  for (int i = 0; i < kRun / 2; ++i) {
    const std::uint16_t two = halves[i];
    out[2 * i] = static_cast<Byte>(two & 0xff);
    out[2 * i + 1] = static_cast<Byte>(two >> 8);
  }
}

/// The block of row n that weight k is in.
template <class Block>
__device__ const Block& block_of(const WeightView& w, std::int64_t n, std::int64_t k) {
  return reinterpret_cast<const Block*>(row_of(w, n))[k / Block::values];
}

// A format gives the weights [k, k + 8) of row n, k a multiple of 8. Those without blocks also give one alone, for the
// rest of a row.

struct F32 {
  static constexpr bool kWholeRuns = false;
  __device__ static float one(const WeightView& w, std::int64_t n, std::int64_t k) {
    return reinterpret_cast<const float*>(row_of(w, n))[k];
  }
  __device__ static void run(const WeightView& w, std::int64_t n, std::int64_t k, float out[kRun]) {
    for (int i = 0; i < kRun; ++i) out[i] = one(w, n, k + i);
  }
};

template <bool bf16>
struct Sixteen {
  static constexpr bool kWholeRuns = false;
  __device__ static float widen(std::uint16_t bits) { return bf16 ? from_bf16(bits) : from_half(bits); }
  __device__ static float one(const WeightView& w, std::int64_t n, std::int64_t k) {
    return widen(reinterpret_cast<const std::uint16_t*>(row_of(w, n))[k]);
  }
  __device__ static void run(const WeightView& w, std::int64_t n, std::int64_t k, float out[kRun]) {
    const Byte* p = row_of(w, n) + 2 * k;
    if (aligned_to<16>(p)) {
      const auto eight = read_aligned<16, std::uint16_t>(p);
      for (int i = 0; i < kRun; ++i) out[i] = widen(eight.at[i]);
    } else {
      for (int i = 0; i < kRun; ++i) out[i] = widen(reinterpret_cast<const std::uint16_t*>(p)[i]);
    }
  }
};

/// int8 with one f32 scale for each 32 weights of a row, which is padded to whole groups.
struct Int8 {
  static constexpr bool kWholeRuns = true;
  __device__ static void run(const WeightView& w, std::int64_t n, std::int64_t k, float out[kRun]) {
    Byte q[kRun];
    read8(row_of(w, n) + k, q);
    const float scale = w.scales[n * ((w.k + 31) / 32) + k / 32];
    for (int i = 0; i < kRun; ++i) out[i] = static_cast<float>(static_cast<std::int8_t>(q[i])) * scale;
  }
};

struct Q8_0 {
  static constexpr bool kWholeRuns = true;
  __device__ static void run(const WeightView& w, std::int64_t n, std::int64_t k, float out[kRun]) {
    const auto& block = block_of<ggml::Q8_0>(w, n, k);
    Byte q[kRun];
    read8(reinterpret_cast<const Byte*>(block.qs) + k % 32, q);
    const float d = from_half(block.d);
    for (int i = 0; i < kRun; ++i) out[i] = static_cast<float>(static_cast<std::int8_t>(q[i])) * d;
  }
};

/// Blocks of 32 with 16 bytes of low bits, the first half in the low nibbles. Those with a fifth bit have it in `qh`;
/// those with a second half-precision number add it, all others are centred.
template <class Block>
struct Nibbles {
  static constexpr bool kWholeRuns = true;
  static constexpr bool kFive = requires(Block b) { b.qh; }, kOffset = requires(Block b) { b.m; };
  __device__ static void run(const WeightView& w, std::int64_t n, std::int64_t k, float out[kRun]) {
    const auto& block = block_of<Block>(w, n, k);
    const int first = static_cast<int>(k % 32), shift = first >= 16 ? 4 : 0;
    Byte q[kRun];
    read8(block.qs + first % 16, q);
    std::uint32_t high = 0;
    if constexpr (kFive) {
      const auto* h = reinterpret_cast<const std::uint16_t*>(block.qh);
      high = (h[0] | static_cast<std::uint32_t>(h[1]) << 16) >> first;
    }
    const float d = from_half(block.d);
    float m = 0;
    if constexpr (kOffset) m = from_half(block.m);
    for (int i = 0; i < kRun; ++i) {
      int value = (q[i] >> shift) & 15;
      if (kFive) value |= static_cast<int>((high >> i) & 1) << 4;
      out[i] = kOffset ? static_cast<float>(value) * d + m : static_cast<float>(value - (kFive ? 16 : 8)) * d;
    }
  }
};

/// Scale and offset of one of eight groups of 32, six bits each, in twelve bytes.
__device__ void k_scale(const Byte* packed, int group, int* scale, int* offset) {
  if (group < 4) {
    *scale = packed[group] & 63;
    *offset = packed[group + 4] & 63;
  } else {
    *scale = (packed[group + 4] & 15) | ((packed[group - 4] >> 6) << 4);
    *offset = (packed[group + 4] >> 4) | ((packed[group] >> 6) << 4);
  }
}

/// Q4_K and, with a fifth bit in `qh`, Q5_K.
template <class Block>
struct K45 {
  static constexpr bool kWholeRuns = true;
  static constexpr bool kFive = requires(Block b) { b.qh; };
  __device__ static void run(const WeightView& w, std::int64_t n, std::int64_t k, float out[kRun]) {
    const auto& block = block_of<Block>(w, n, k);
    const int at = static_cast<int>(k % 256), group = at / 32, shift = group % 2 * 4;
    Byte q[kRun], high[kRun];
    read8(block.qs + at / 64 * 32 + at % 32, q);
    if constexpr (kFive) read8(block.qh + at % 32, high);
    int scale, offset;
    k_scale(block.scales, group, &scale, &offset);
    const float d = from_half(block.d) * static_cast<float>(scale),
                m = from_half(block.dmin) * static_cast<float>(offset);
    for (int i = 0; i < kRun; ++i) {
      int value = (q[i] >> shift) & 15;
      if (kFive) value |= ((high[i] >> group) & 1) << 4;
      out[i] = static_cast<float>(value) * d - m;
    }
  }
};

struct Q6_K {
  static constexpr bool kWholeRuns = true;
  __device__ static void run(const WeightView& w, std::int64_t n, std::int64_t k, float out[kRun]) {
    const auto& block = block_of<ggml::Q6_K>(w, n, k);
    const int at = static_cast<int>(k % 256), half = at / 128, quarter = at % 128 / 32, first = at % 32;
    Byte low[kRun], high[kRun];
    read8(block.ql + half * 64 + quarter % 2 * 32 + first, low);
    read8(block.qh + half * 32 + first, high);
    const float d = from_half(block.d) * static_cast<float>(block.scales[half * 8 + quarter * 2 + first / 16]);
    for (int i = 0; i < kRun; ++i) {
      const int value = ((low[i] >> (quarter / 2 * 4)) & 15) | (((high[i] >> (2 * quarter)) & 3) << 4);
      out[i] = static_cast<float>(value - 32) * d;
    }
  }
};

/// A power of two in one byte (E8M0), then E2M1 numbers, the first half in the low nibbles.
struct MxFp4 {
  static constexpr bool kWholeRuns = true;
  __device__ static void run(const WeightView& w, std::int64_t n, std::int64_t k, float out[kRun]) {
    const auto& block = block_of<ggml::MXFP4>(w, n, k);
    const int first = static_cast<int>(k % 32), shift = first >= 16 ? 4 : 0;
    // Half the power, for twice the values. Below 2^-126 a bit of the mantissa stands for it.
    const float half = from_bits(block.e >= 2 ? static_cast<std::uint32_t>(block.e - 1) << 23 : 0x200000u << block.e);
    for (int i = 0; i < kRun; ++i) {
      const int q = (block.qs[first % 16 + i] >> shift) & 15, size = q & 7;
      const int twice = size < 4 ? size : size < 6 ? 2 * size - 4 : 4 * size - 16;
      out[i] = static_cast<float>(q & 8 ? -twice : twice) * half;
    }
  }
};

/// Weights of one launch; `first_block[i]` is the first block of threads that computes the i-th.
struct Together {
  Multiplied each[kMultipliedTogether];
  unsigned first_block[kMultipliedTogether];
  int count;
};

/// Eight numbers of a row of x, of which `count` are there: zeros behind them. `aligned`: to 16 bytes.
__device__ void read_x(const float* x, int count, bool aligned, float out[kRun]) {
  if (count == kRun && aligned) {
    const auto low = read_aligned<16, float>(x), high = read_aligned<16, float>(x + 4);
    for (int i = 0; i < 4; ++i) out[i] = low.at[i], out[4 + i] = high.at[i];
    return;
  }
  for (int i = 0; i < kRun; ++i) out[i] = i < count ? x[i] : 0;
}

template <class Format, int kX>
__global__ void __launch_bounds__(kThreads) few_rows(Together all, const float* x, std::int64_t done) {
  constexpr int kRows = kRowsOfW<kX>;
  int which = 0;
  while (which + 1 < all.count && blockIdx.x >= all.first_block[which + 1]) ++which;
  const Multiplied& mine = all.each[which];
  const WeightView& w = mine.weight;
  const int lane = threadIdx.x % kWarp;
  const std::int64_t block = blockIdx.x - all.first_block[which],
                     first = (block * kWarps + threadIdx.x / kWarp) * kRows;
  if (first >= w.n) return;
  std::int64_t row[kRows];
  for (int r = 0; r < kRows; ++r) row[r] = first + r < w.n ? first + r : w.n - 1;
  float sum[kRows][kX] = {};
  const bool aligned = w.k % 4 == 0 && aligned_to<16>(x);
  const std::int64_t whole = Format::kWholeRuns ? w.k : w.k / kRun * kRun;
  for (std::int64_t k = lane * kRun; k < whole; k += kWarp * kRun) {
    float weights[kRows][kRun];
    for (int r = 0; r < kRows; ++r) Format::run(w, row[r], k, weights[r]);
    const int count = w.k - k < kRun ? static_cast<int>(w.k - k) : kRun;  // int8 rows are padded
    for (int m = 0; m < kX; ++m) {
      float in[kRun];
      read_x(x + m * w.k + k, count, aligned, in);
      for (int r = 0; r < kRows; ++r)
        for (int i = 0; i < kRun; ++i) sum[r][m] = __fmaf_rn(weights[r][i], in[i], sum[r][m]);
    }
  }
  if constexpr (!Format::kWholeRuns)
    for (std::int64_t k = whole + lane; k < w.k; k += kWarp)
      for (int r = 0; r < kRows; ++r)
        for (int m = 0; m < kX; ++m) sum[r][m] = __fmaf_rn(Format::one(w, row[r], k), x[m * w.k + k], sum[r][m]);
  for (int r = 0; r < kRows; ++r)
    for (int m = 0; m < kX; ++m) {
      const float total = warp_sum(sum[r][m]);
      if (lane == 0 && first + r < w.n)
        mine.y[(done + m) * w.n + row[r]] = mine.bias ? total + mine.bias[row[r]] : total;
    }
}

__device__ void put(float* out, float x) { *out = x; }
__device__ void put(std::uint16_t* out, float x) { *out = to_bf16(x); }

/// One thread for eight weights.
template <class Format, class Out>
__global__ void widen_runs(WeightView w, Out* out, std::int64_t runs_a_row) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= w.n * runs_a_row) return;
  const std::int64_t n = at / runs_a_row, k = at % runs_a_row * kRun;
  const int count = w.k - k < kRun ? static_cast<int>(w.k - k) : kRun;
  if constexpr (Format::kWholeRuns) {
    float weights[kRun];
    Format::run(w, n, k, weights);
    for (int i = 0; i < count; ++i) put(out + n * w.k + k + i, weights[i]);
  } else {
    for (int i = 0; i < count; ++i) put(out + n * w.k + k + i, Format::one(w, n, k + i));
  }
}

/// One thread for eight numbers of a row of `out`.
template <class Format>
__global__ void embed_runs(WeightView w, const Embedded* tokens, std::int64_t rows, std::int64_t runs_a_row,
                           float factor, const float* learned, float* out) {
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= rows * runs_a_row) return;
  const std::int64_t row = at / runs_a_row, k = at % runs_a_row * kRun;
  const int count = w.k - k < kRun ? static_cast<int>(w.k - k) : kRun;
  const Embedded token = tokens[row];
  float weights[kRun];
  if constexpr (Format::kWholeRuns) {
    Format::run(w, token.id, k, weights);
  } else {
    for (int i = 0; i < count; ++i) weights[i] = Format::one(w, token.id, k + i);
  }
  for (int i = 0; i < count; ++i) {
    const float x = __fmul_rn(weights[i], factor);
    out[row * w.k + k + i] = learned ? x + learned[token.position * w.k + k + i] : x;
  }
}

/// Calls f(Format()) for a type's format.
template <class F>
void with_format(WeightType type, const F& f) {
  switch (type) {
    case WeightType::f32:
      return f(F32());
    case WeightType::f16:
      return f(Sixteen<false>());
    case WeightType::bf16:
      return f(Sixteen<true>());
    case WeightType::int8:
      return f(Int8());
    case WeightType::q4_0:
      return f(Nibbles<ggml::Q4_0>());
    case WeightType::q4_1:
      return f(Nibbles<ggml::Q4_1>());
    case WeightType::q5_0:
      return f(Nibbles<ggml::Q5_0>());
    case WeightType::q5_1:
      return f(Nibbles<ggml::Q5_1>());
    case WeightType::q8_0:
      return f(Q8_0());
    case WeightType::q4_k:
      return f(K45<ggml::Q4_K>());
    case WeightType::q5_k:
      return f(K45<ggml::Q5_K>());
    case WeightType::q6_k:
      return f(Q6_K());
    case WeightType::mxfp4:
      return f(MxFp4());
  }
}

/// The next kX rows of x by weights of one format.
template <class Format, int kX>
void launch(Stream stream, std::span<const Multiplied> weights, const float*& x, std::int64_t& done) {
  Together all{};
  unsigned blocks = 0;
  for (const Multiplied& each : weights) {
    all.each[all.count] = each;
    all.first_block[all.count++] = blocks;
    blocks += blocks_for(each.weight.n, kWarps * kRowsOfW<kX>);
  }
  const auto kernel = few_rows<Format, kX>;
  if (blocks > 0) STEER_LAUNCH(kernel, blocks, kThreads, stream, all, x, done);
  x += kX * weights.front().weight.k;
  done += kX;
}

template <class Out>
void widen(Stream stream, const WeightView& w, Out* out) {
  const std::int64_t runs = (w.k + kRun - 1) / kRun;
  if (w.n * runs == 0) return;
  with_format(w.type, [&](auto format) {
    const auto kernel = widen_runs<decltype(format), Out>;
    STEER_LAUNCH(kernel, blocks_for(w.n * runs, kThreads), kThreads, stream, w, out, runs);
  });
}

}  // namespace

void multiply(Stream stream, std::span<const Multiplied> weights, const float* x, std::int64_t rows) {
  while (!weights.empty()) {
    const WeightType type = weights.front().weight.type;
    std::size_t alike = 1;
    while (alike < weights.size() && alike < kMultipliedTogether && weights[alike].weight.type == type) ++alike;
    with_format(type, [&](auto format) {
      using Format = decltype(format);
      const float* from = x;
      for (std::int64_t done = 0; done < rows;) {
        const auto some = weights.first(alike);
        if (rows - done >= 8)
          launch<Format, 8>(stream, some, from, done);
        else if (rows - done >= 4)
          launch<Format, 4>(stream, some, from, done);
        else if (rows - done >= 2)
          launch<Format, 2>(stream, some, from, done);
        else
          launch<Format, 1>(stream, some, from, done);
      }
    });
    weights = weights.subspan(alike);
  }
}

void embed(Stream stream, const WeightView& w, const Embedded* tokens, std::int64_t rows, float factor,
           const float* learned, float* out) {
  const std::int64_t runs = (w.k + kRun - 1) / kRun;
  if (rows * runs == 0) return;
  with_format(w.type, [&](auto format) {
    const auto kernel = embed_runs<decltype(format)>;
    STEER_LAUNCH(kernel, blocks_for(rows * runs, kThreads), kThreads, stream, w, tokens, rows, runs, factor, learned,
                 out);
  });
}

void widen_to_bf16(Stream stream, const WeightView& weight, std::uint16_t* out) { widen(stream, weight, out); }
void widen_to_f32(Stream stream, const WeightView& weight, float* out) { widen(stream, weight, out); }

}  // namespace steer::model::detail::cuda
