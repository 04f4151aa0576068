// The CPU kernels without libtorch, for instruction sets that this machine may have to emulate: decoded weights against
// ggml's formulas written out, products against a loop in double precision, and a row's bits in batches of any size.
// Compiled with the source of one instruction set; tests/cross/run.py does it.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#ifdef STEER_SLOW_TILES
#include "slow_tiles.hpp"
#define STEER_TILES steer::test::SlowTiles
#endif
#ifdef STEER_WITH_VNNI
#include "slow_vnni.hpp"
#define STEER_DPBUSD steer::test::slow_dpbusd
#endif
#define STEER_ISA under_test
#include "model/kernels/kernels-inl.hpp"

namespace {

using namespace steer::model::detail;
using Bytes = std::vector<std::uint8_t>;

struct Kind {
  const char* name;
  WeightType type;
  std::int64_t values, bytes;  // of a block
};
constexpr Kind kKinds[] = {
    {"f32", WeightType::f32, 1, 4},       {"f16", WeightType::f16, 1, 2},       {"bf16", WeightType::bf16, 1, 2},
    {"int8", WeightType::int8, 32, 32},   {"Q4_0", WeightType::q4_0, 32, 18},   {"Q4_1", WeightType::q4_1, 32, 20},
    {"Q5_0", WeightType::q5_0, 32, 22},   {"Q5_1", WeightType::q5_1, 32, 24},   {"Q8_0", WeightType::q8_0, 32, 34},
    {"Q4_K", WeightType::q4_k, 256, 144}, {"Q5_K", WeightType::q5_k, 256, 176}, {"Q6_K", WeightType::q6_k, 256, 210}};

double half(const std::uint8_t* p) {
  const int bits = p[0] | p[1] << 8, exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double size = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
  return bits >> 15 ? -size : size;
}

/// Value i of a block, by the definitions of ggml-quants.c.
double value(const Kind& kind, const std::uint8_t* b, std::int64_t i) {
  const std::int64_t low = i % 16;
  const auto four = [&](const std::uint8_t* q) { return i < 16 ? q[low] & 15 : q[low] >> 4; };
  const auto fifth = [&](const std::uint8_t* q) { return (q[i / 8] >> i % 8 & 1) << 4; };
  switch (kind.type) {
    case WeightType::q4_0:
      return half(b) * (four(b + 2) - 8);
    case WeightType::q4_1:
      return half(b) * four(b + 4) + half(b + 2);
    case WeightType::q5_0:
      return half(b) * ((four(b + 6) | fifth(b + 2)) - 16);
    case WeightType::q5_1:
      return half(b) * (four(b + 8) | fifth(b + 4)) + half(b + 2);
    case WeightType::q8_0:
      return half(b) * static_cast<std::int8_t>(b[2 + i]);
    case WeightType::q4_k:
    case WeightType::q5_k: {
      const std::int64_t group = i / 32;
      const std::uint8_t* s = b + 4;
      const int scale = group < 4 ? s[group] & 63 : (s[group + 4] & 15) | (s[group - 4] >> 6) << 4;
      const int least = group < 4 ? s[group + 4] & 63 : (s[group + 4] >> 4) | (s[group] >> 6) << 4;
      const std::uint8_t* q = b + (kind.type == WeightType::q4_k ? 16 : 48) + group / 2 * 32 + i % 32;
      int n = group % 2 ? *q >> 4 : *q & 15;
      if (kind.type == WeightType::q5_k) n |= (b[16 + i % 32] >> group & 1) << 4;
      return half(b) * scale * n - half(b + 2) * least;
    }
    case WeightType::q6_k: {
      const std::int64_t part = i / 128, quarter = i % 128 / 32, j = i % 32;
      const int q = b[part * 64 + quarter % 2 * 32 + j] >> (quarter / 2 * 4) & 15;
      const int high = b[128 + part * 32 + j] >> (2 * quarter) & 3;
      return half(b + 208) * static_cast<std::int8_t>(b[192 + i / 16]) * ((q | high << 4) - 32);
    }
    default:
      return 0;
  }
}

struct Weight {
  Bytes bytes;
  std::vector<float> scales;
  WeightView view;
};

Weight make(const Kind& kind, std::int64_t n, std::int64_t k, std::mt19937& random) {
  Weight w;
  const std::int64_t blocks = (k + kind.values - 1) / kind.values, groups = (k + 31) / 32;
  w.bytes.resize(static_cast<std::size_t>(n * blocks * kind.bytes));
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < w.bytes.size(); ++i)
    w.bytes[i] = static_cast<std::uint8_t>(random() % 60);  // finite f16s
  if (kind.type == WeightType::f32) {
    for (std::int64_t i = 0; i < n * k; ++i) {
      const float v = normal(random);
      std::memcpy(w.bytes.data() + 4 * i, &v, 4);
    }
  } else if (kind.type == WeightType::int8) {
    for (std::int64_t i = 0; i < n * groups; ++i) w.scales.push_back(std::abs(normal(random)));
    for (std::int64_t r = 0; r < n; ++r)  // what a row lacks of its last group is zero
      for (std::int64_t i = k; i < groups * 32; ++i) w.bytes[static_cast<std::size_t>(r * groups * 32 + i)] = 0;
  }
  w.view = {kind.type, w.bytes.data(), w.scales.data(), n, k, blocks * kind.bytes};
  return w;
}

#ifdef STEER_WITH_TILES
const KernelTable& table = kernels_with_tiles_under_test;
#elif defined(STEER_WITH_VNNI)
const KernelTable& table = kernels_with_vnni_under_test;
#else
const KernelTable& table = kernels_under_test;
#endif

std::vector<float> multiply(const WeightView& w, const std::vector<float>& x, std::int64_t m, Rounding rounding) {
  static std::vector<float> scratch(kScratchFloats + 16);
  float* aligned = scratch.data() + -reinterpret_cast<std::uintptr_t>(scratch.data()) % 64 / 4;
  const std::int64_t padded = (w.k + kPackedGroup - 1) / kPackedGroup * kPackedGroup;
  std::vector<float> packed(static_cast<std::size_t>(m * padded)), y(static_cast<std::size_t>(m * w.n));
  ProductArgs a{.weight = w, .x = x.data(), .ldx = w.k, .m = m, .y = y.data(), .ldy = w.n, .rounding = rounding};
  table.pack_rows(a, 0, w.k, packed.data());
  a.packed = packed.data();
  table.product(a, 0, w.n / 2, aligned);
  table.product(a, w.n / 2, w.n, aligned);
  return y;
}

/// To the nearest bf16, ties to even; numbers here are far from its ends.
float to_bf16(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  std::memcpy(&value, &bits, 4);
  return value;
}

/// Of `group` numbers of x the one at i in 8 bits, times the group's scale.
double to_8_bits(const float* group, std::int64_t count, std::int64_t i) {
  float most = 0;
  for (std::int64_t j = 0; j < count; ++j) most = std::max(most, std::abs(group[j]));
  return most > 0 ? std::nearbyint(group[i] * (127 / most)) * static_cast<double>(most / 127) : 0;
}

constexpr const char* kAs[] = {"", " by x in bf16", " by x in 8 bits"};

std::uint64_t all_bits = 14695981039346656037u;  // FNV-1a of every product, to compare one machine's with another's

int check(const Kind& kind, Rounding rounding, std::int64_t m, std::int64_t n, std::int64_t k, std::mt19937& random) {
  int failed = 0;
  const Weight w = make(kind, n, k, random);
  std::vector<float> x(static_cast<std::size_t>(m * k)), row(static_cast<std::size_t>(k));
  std::normal_distribution<float> normal;
  for (float& v : x) v = normal(random);
  const auto y = multiply(w.view, x, m, rounding);
  const auto x_as_taken = [&](std::int64_t r, std::int64_t i) -> double {
    const float* of_row = x.data() + r * k;
    if (rounding == Rounding::int8)
      return to_8_bits(of_row + i / 32 * 32, std::min(k - i / 32 * 32, std::int64_t{32}), i % 32);
    return rounding == Rounding::bf16 ? to_bf16(of_row[i]) : of_row[i];
  };
  const double tolerance = rounding == Rounding::none ? 1e-6 : 3e-6;
  std::vector<double> taken(x.size());
  for (std::int64_t r = 0; r < m; ++r)
    for (std::int64_t i = 0; i < k; ++i) taken[static_cast<std::size_t>(r * k + i)] = x_as_taken(r, i);
  for (std::int64_t j = 0; j < n; ++j) {
    table.decode_row(w.view, j, row.data());
    if (kind.bytes > 4 && kind.type != WeightType::int8)
      for (std::int64_t i = 0; i < k; ++i) {
        const std::uint8_t* block = w.bytes.data() + j * w.view.row_bytes + i / kind.values * kind.bytes;
        const double truth = value(kind, block, i % kind.values);
        failed += !(std::abs(row[static_cast<std::size_t>(i)] - truth) <= 1e-6 * (std::abs(truth) + 1e-6));
      }
    for (std::int64_t r = 0; r < m; ++r) {
      double sum = 0, size = 1e-30;
      for (std::int64_t i = 0; i < k; ++i) {
        const float weight = row[static_cast<std::size_t>(i)];
        const double term =
            taken[static_cast<std::size_t>(r * k + i)] * (rounding == Rounding::bf16 ? to_bf16(weight) : weight);
        sum += term;
        size += std::abs(term);
      }
      failed += !(std::abs(y[static_cast<std::size_t>(r * n + j)] - sum) < tolerance * size);
    }
  }
  for (std::int64_t r = 0; r < m; ++r) {  // the same bits alone
    const auto alone = multiply(w.view, {x.begin() + r * k, x.begin() + (r + 1) * k}, 1, rounding);
    failed += std::memcmp(alone.data(), y.data() + r * n, static_cast<std::size_t>(n) * sizeof(float)) != 0;
  }
  for (const float v : y) {
    std::uint32_t bits;
    std::memcpy(&bits, &v, 4);
    for (int byte = 0; byte < 4; ++byte) all_bits = (all_bits ^ (bits >> 8 * byte & 255)) * 1099511628211u;
  }
  if (failed)
    std::printf("%s%s, %d rows by [%d, %d]: %d wrong\n", kind.name, kAs[static_cast<int>(rounding)], int(m), int(n),
                int(k), failed);
  return failed;
}

}  // namespace

int main() {
  std::mt19937 random(1);
  int cases = 0, failed = 0;
  const auto count = [&](const Kind& kind, Rounding rounding, std::int64_t m, std::int64_t n, std::int64_t k) {
    if (rounding != Rounding::none && !table.rounds(kind.type, rounding)) return;
    ++cases;
    failed += check(kind, rounding, m, n, k, random) != 0;
  };
#ifdef STEER_WITH_TILES  // all else is the same table's as without
  constexpr Rounding kRoundings[] = {Rounding::bf16};
#elif defined(STEER_WITH_VNNI)
  constexpr Rounding kRoundings[] = {Rounding::int8};
#else
  constexpr Rounding kRoundings[] = {Rounding::none, Rounding::bf16, Rounding::int8};
#endif
  for (const Rounding rounding : kRoundings)
    for (const Kind& kind : kKinds)
      for (std::int64_t m : {1, 3, 4, 9, 18, 70})
        for (std::int64_t k : {256, 1280}) {
          count(kind, rounding, m, 17, k);
          if (kind.values > 32 || kind.bytes > 4) continue;
          count(kind, rounding, m, 13, k + 13);  // a last group that is not whole
        }
#ifdef STEER_WITH_TILES
  for (std::int64_t n : {96, 103})  // pairs of strips of W, and blocks of rows of x
    for (std::int64_t m : {32, 33, 300}) count(kKinds[2], Rounding::bf16, m, n, 544);
#endif
  std::printf("all products' bits: %016llx\n", static_cast<unsigned long long>(all_bits));
  std::printf("cross: %d cases passed, %d failed\n", cases - failed, failed);
  return failed != 0;
}
