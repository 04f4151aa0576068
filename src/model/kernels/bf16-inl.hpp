// Products with x rounded to bf16, where AVX-512 has instructions for them. Included by kernels-inl.hpp only, inside
// that file's namespace. As in product-inl.hpp, the order of an element's additions does not depend on its tile.
//
// vdpbf16ps adds 32 products to 16 sums. W as it lies in memory, or decoded as for an exact product and then rounded.

#define STEER_BF16 __attribute__((target("avx512bf16")))

inline bool multiplies_bf16(WeightType type) { return type != WeightType::f32 && __builtin_cpu_supports("avx512bf16"); }

// Two vectors of a group as bf16, in order.
STEER_BF16 inline __m512bh in_bf16(const F* w) { return _mm512_cvtne2ps_pbh(w[1], w[0]); }

template <int M, int N>
[[gnu::always_inline]] STEER_BF16 inline void add_bf16(__m512bh w, const std::uint16_t* x, int n, F (&sum)[M][N]) {
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
    sum[m][n] = _mm512_dpbf16_ps(sum[m][n], w, reinterpret_cast<__m512bh>(_mm512_loadu_si512(x + m * kGroup)));
}

// A group of N rows of W by M rows of x.
template <int M, int N>
[[gnu::always_inline]] STEER_BF16 inline void add_group_bf16(const std::uint16_t* const (&w)[N], const std::uint16_t* x,
                                                             F (&sum)[M][N]) {
  __m512bh wv[N];
#pragma GCC unroll 8
  for (int j = 0; j < N; ++j) wv[j] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(w[j]));
#pragma GCC unroll 8
  for (int i = 0; i < M; ++i) {
    const auto xv = reinterpret_cast<__m512bh>(_mm512_loadu_si512(x + i * kGroup));
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], wv[j], xv);
  }
}

// Panels as those of pack_rows, of half the size: [step of kGroup][row][kGroup] bf16.
STEER_BF16 inline void pack_bf16(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* packed) {
  const std::int64_t length = padded(a.weight.k);
  for (std::int64_t first = 0; first < a.m; first += kTileM) {
    const std::int64_t rows = a.m - first < kTileM ? a.m - first : kTileM;
    auto* panel = reinterpret_cast<std::uint16_t*>(packed + first * length);
    for (std::int64_t at = begin; at < end; at += kGroup) {
      for (std::int64_t r = 0; r < rows; ++r) {
        const float* from = a.x + (first + r) * a.ldx + at;
        const std::int64_t left = a.weight.k - at;
        const F both[2] = {load_up_to(from, left), load_up_to(from + kWidth, left - kWidth)};
        _mm512_storeu_si512(panel + at * rows + r * kGroup, reinterpret_cast<__m512i>(in_bf16(both)));
      }
    }
  }
}

template <int M, int N>
[[gnu::noinline]] STEER_BF16 void tile_bf16(const ProductArgs& a, std::int64_t m, std::int64_t n) {
  const std::int64_t k = a.weight.k, groups = k / kGroup, rest = k % kGroup;
  const auto* x = reinterpret_cast<const std::uint16_t*>(a.packed + m * padded(k));
  const std::uint16_t* rows[N];
#pragma GCC unroll 8
  for (int j = 0; j < N; ++j) rows[j] = FormatBf16::row(a.weight, n + j);
  const std::uint8_t* next = m == 0 && n + 2 * N <= a.weight.n ? row_start(a.weight, n + N) : nullptr;
  F sum[M][N];
  clear(sum);
  for (std::int64_t g = 0; g < groups; ++g, x += M * kGroup) {
    if (next) {
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) __builtin_prefetch(next + (g * N + j) * 64, 0, 2);
    }
    const std::uint16_t* w[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) w[j] = rows[j] + g * kGroup;
    add_group_bf16(w, x, sum);
  }
  if (rest > 0) {
    const auto lanes = static_cast<__mmask32>((std::uint32_t{1} << rest) - 1);
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      add_bf16(reinterpret_cast<__m512bh>(_mm512_maskz_loadu_epi16(lanes, rows[j] + groups * kGroup)), x, j, sum);
    }
  }
  finish<M, N>(sum, a, m, n);
}

// Few rows of x by N rows of W, decoded in registers.
template <class Format, int M, int N>
[[gnu::noinline]] STEER_BF16 void tile_as_bf16(const ProductArgs& a, std::int64_t m, std::int64_t n) {
  const std::int64_t k = a.weight.k, groups = k / kGroup;
  const auto* x = reinterpret_cast<const std::uint16_t*>(a.packed + m * padded(k));
  typename Format::Row rows[N];
  const std::int64_t next = take_rows<Format, N>(a.weight, n, rows);
  const std::uint8_t* ahead = m == 0 ? row_start(a.weight, next) : nullptr;
  F sum[M][N];
  clear(sum);
  for (std::int64_t g = 0; g < groups; g += Format::kBlock) {
    typename Format::Block blocks[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) blocks[j] = Format::block(rows[j], g);
    for (int s = 0; s < Format::kBlock / Format::kStep; ++s, x += Format::kStep * kGroup * M) {
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) {
        if (ahead) {
          const std::uint8_t* at = ahead + j * a.weight.row_bytes + (g + s * Format::kStep) * Format::kBytes;
          __builtin_prefetch(at, 0, 2);
          if constexpr (Format::kStep * Format::kBytes > 64) __builtin_prefetch(at + 64, 0, 2);
        }
        F w[Format::kStep * kVectors];
        Format::step(
            blocks[j], s, [&](int v, F decoded) __attribute__((always_inline)) { w[v] = decoded; });
#pragma GCC unroll 4
        for (int i = 0; i < Format::kStep; ++i) add_bf16(in_bf16(w + i * kVectors), x + i * kGroup * M, j, sum);
      }
    }
  }
  if constexpr (Format::kBlock == 1) {
    if (k % kGroup > 0) {
#pragma GCC unroll 8
      for (int j = 0; j < N; ++j) {
        F w[kVectors];
        Format::tail(rows[j], groups, k % kGroup, [&](int v, F decoded) { w[v] = decoded; });
        add_bf16(in_bf16(w), x, j, sum);
      }
    }
  }
  finish<M, N>(sum, a, m, n);
}

// Numbers [k0, k1) of N rows as [group][N][kGroup] bf16, zeros behind the last; k0 is a multiple of a block.
template <class Format, int N>
[[gnu::noinline]] STEER_BF16 void decode_rows_as_bf16(const typename Format::Row* rows, std::int64_t k0,
                                                      std::int64_t k1, std::uint16_t* out, Fetch& fetch) {
  const std::int64_t groups = k1 / kGroup;
  const auto put = [](std::uint16_t * to, const F* w) STEER_BF16 __attribute__((always_inline)) {
    _mm512_storeu_si512(to, reinterpret_cast<__m512i>(in_bf16(w)));
  };
  for (std::int64_t g = k0 / kGroup; g < groups; g += Format::kBlock, out += Format::kBlock * kGroup * N) {
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const auto block = Format::block(rows[n], g);
      std::uint16_t* to = out + n * kGroup;
      for (int s = 0; s < Format::kBlock / Format::kStep; ++s) {
        fetch.one();
        F w[Format::kStep * kVectors];
        Format::step(
            block, s, [&](int v, F decoded) __attribute__((always_inline)) { w[v] = decoded; });
#pragma GCC unroll 4
        for (int i = 0; i < Format::kStep; ++i, to += N * kGroup) put(to, w + i * kVectors);
      }
    }
  }
  if constexpr (Format::kBlock == 1) {
    if (k1 % kGroup == 0) return;
    for (int n = 0; n < N; ++n) {
      F w[kVectors];
      Format::tail(rows[n], groups, k1 % kGroup, [&](int v, F decoded) { w[v] = decoded; });
      put(out + n * kGroup, w);
    }
  }
}

template <int M, int N>
[[gnu::noinline]] STEER_BF16 void part_of_tile_bf16(const std::uint16_t* w, const Part& part, const std::uint16_t* x,
                                                    const ProductArgs& a, std::int64_t m, std::int64_t n, float* sums,
                                                    Fetch& fetch) {
  F sum[M][N];
  begin_part(sum, part, sums);
  const std::int64_t groups = (padded(part.k1) - part.k0) / kGroup;
  for (std::int64_t g = 0; g < groups; ++g, w += N * kGroup, x += M * kGroup) {
    fetch.one();
    const std::uint16_t* rows[N];
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) rows[j] = w + j * kGroup;
    add_group_bf16(rows, x, sum);
  }
  end_part(sum, part, a, m, n, sums);
}

template <class Format, int N>
void rows_bf16(const ProductArgs& a, std::int64_t n, std::int64_t m0, std::int64_t m1, float* scratch) {
  if constexpr (std::is_same_v<Format, FormatBf16>) {
    each_panel(m0, m1, [&]<int M>(std::int64_t m) { tile_bf16<M, N>(a, m, n); });
  } else if (m1 - m0 <= kTileM) {
    each_panel(m0, m1, [&]<int M>(std::int64_t m) { tile_as_bf16<Format, M, N>(a, m, n); });
  } else {
    auto* decoded = reinterpret_cast<std::uint16_t*>(scratch + kBlockM * N * kWidth);
    typename Format::Row rows[N];
    for (int i = 0; i < N; ++i) rows[i] = Format::row(a.weight, n + i);
    each_part<Format, N>(a, n, m0, [&](const Part& part, Fetch& fetch) {
      Fetch later;  // between the additions
      decode_rows_as_bf16<Format, N>(rows, part.k0, part.k1, decoded, later);
      each_panel(m0, m1, [&]<int M>(std::int64_t m) {
        const auto* x = reinterpret_cast<const std::uint16_t*>(a.packed + m * padded(a.weight.k)) + part.k0 * M;
        part_of_tile_bf16<M, N>(decoded, part, x, a, m, n, scratch + (m - m0) * N * kWidth, fetch);
      });
    });
  }
}

template <class Format>
void product_bf16(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* scratch) {
  for (std::int64_t m0 = 0; m0 < a.m; m0 += kBlockM) {
    const std::int64_t m1 = m0 + kBlockM < a.m ? m0 + kBlockM : a.m;
    std::int64_t n = begin;
    for (; n + kTileN <= end; n += kTileN) rows_bf16<Format, kTileN>(a, n, m0, m1, scratch);
    for (; n < end; ++n) rows_bf16<Format, 1>(a, n, m0, m1, scratch);
  }
}
