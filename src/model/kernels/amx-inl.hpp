// Products with x rounded to bf16 by AMX: tiles of 16 rows of W by 16 of x, 32 numbers of k an instruction. Included by
// kernels-inl.hpp only, inside that file's namespace; what is rounded, and how, is as in bf16-inl.hpp.
//
// tdpbf16ps adds the products of numbers 0, 2, ... of its 32 to one sum and of 1, 3, ... to another, both from zero,
// and their sum to C's (Intel's instruction set extensions reference). That, 32 by 32 along k, is an element's order of
// additions, in whatever tile it is computed.
//
// W is A, so that a row's 32 numbers lie as they do in memory; x is B and is turned when it is packed:
// [panel of up to 16 rows][16 pairs of numbers of k][row of x][2]. C, [row of W][row of x], is turned once, at its end.

constexpr std::int64_t kTileRows = 16, kTileFloats = kTileRows * kTileRows, kTilesM = 256;
static_assert(2 * kTileFloats * kTilesM / kTileRows + kTileRows * kBlockK <= kScratchFloats);

#ifndef STEER_TILES  // tests have slow ones, for machines without
/// The eight tiles of this thread. In assembler, since gcc's own functions do not say that they touch memory.
struct Tiles {
  struct alignas(64) Shape {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {};  // of a row
    std::uint8_t rows[16] = {};
  };
  static void configure(const Shape& shape) { asm volatile("ldtilecfg %0" ::"m"(shape) : "memory"); }
  static void release() { asm volatile("tilerelease" ::: "memory"); }
  template <int T>
  [[gnu::always_inline]] static void clear() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
  }
  template <int T>
  [[gnu::always_inline]] static void load(const void* from, std::int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  [[gnu::always_inline]] static void store(void* to, std::int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
  }
  /// C += A B, of pairs of bf16.
  template <int C, int A, int B>
  [[gnu::always_inline]] static void multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
};
#define STEER_TILES Tiles
#endif

using TileSet = STEER_TILES;

// 16 rows of 16 words, 64 bytes apart, become columns: the first `count` of them.
inline void turn_tile(const void* from, std::int64_t count, void* to) {
  const auto* in = static_cast<const std::uint8_t*>(from);
  auto* out = static_cast<std::uint8_t*>(to);
  for (std::int64_t column = 0; column < count; column += 8)
    for (std::int64_t row = 0; row < kTileRows; row += 8) {
      __m256i words[8];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) words[i] = load_256(in + (row + i) * 64 + column * 4);
      turn_words(words, out + column * 64 + row * 4, 64);
    }
}

STEER_BF16 inline void pack_tiles(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* packed) {
  const std::int64_t k = a.weight.k, length = padded(k);
  for (std::int64_t first = 0; first < a.m; first += kTileRows) {
    const std::int64_t rows = a.m - first < kTileRows ? a.m - first : kTileRows;
    auto* panel = reinterpret_cast<std::uint16_t*>(packed + first * length);
    for (std::int64_t at = begin; at < end; at += kGroup) {
      alignas(64) std::uint16_t as_rows[kTileRows * kGroup], turned[kTileRows * kGroup];
      for (std::int64_t r = 0; r < kTileRows; ++r) {
        const float* from = a.x + (first + r) * a.ldx + at;
        const std::int64_t left = r < rows ? k - at : 0;
        const F both[2] = {load_up_to(from, left), load_up_to(from + kWidth, left - kWidth)};
        _mm512_store_si512(as_rows + r * kGroup, reinterpret_cast<__m512i>(in_bf16(both)));
      }
      turn_tile(as_rows, kTileRows, turned);
      for (std::int64_t pair = 0; pair < kTileRows; ++pair)
        _mm512_mask_storeu_epi32(panel + at * rows + pair * 2 * rows, first_lanes(rows),
                                 _mm512_load_si512(turned + pair * kGroup));
    }
  }
}

/// A tile of x: [16 pairs][rows][2] for each group of k.
struct PanelOfTiles {
  const std::uint16_t* x;
  std::int64_t rows;
};

// `groups` of k of one or two strips of W, [group][16][32] each, by one or two panels of x. Tile 2 s + p has the sums
// of strip s and panel p.
template <int Strips, int Panels>
[[gnu::noinline]] void add_tiles(const std::uint16_t* w, std::int64_t strip, const PanelOfTiles (&x)[2],
                                 std::int64_t groups) {
  const std::uint16_t *first = x[0].x, *second = x[1].x;
  for (std::int64_t g = 0; g < groups; ++g, w += kTileRows * kGroup) {
    TileSet::load<4>(w, 64);
    TileSet::load<6>(first, 4 * x[0].rows);
    TileSet::multiply<0, 4, 6>();
    first += x[0].rows * kGroup;
    if constexpr (Panels == 2) {
      TileSet::load<7>(second, 4 * x[1].rows);
      TileSet::multiply<1, 4, 7>();
      second += x[1].rows * kGroup;
    }
    if constexpr (Strips == 2) {
      TileSet::load<5>(w + strip, 64);
      TileSet::multiply<2, 5, 6>();
      if constexpr (Panels == 2) TileSet::multiply<3, 5, 7>();
    }
  }
}

// Tile T's sums: from where they waited, or from zero; back there; or to y at row m of x and row n of W.
template <int T>
inline void begin_tile(const float* sums, bool first) {
  first ? TileSet::clear<T>() : TileSet::load<T>(sums, 64);
}

template <int T>
inline void end_tile(const ProductArgs& a, std::int64_t m, std::int64_t rows, std::int64_t n, std::int64_t columns,
                     float* sums, bool last) {
  if (!last) return TileSet::store<T>(sums, 64);
  alignas(64) float of_w[kTileFloats], of_x[kTileFloats];
  TileSet::store<T>(of_w, 64);
  turn_tile(of_w, rows, of_x);
  const F bias = a.bias ? load_up_to(a.bias + n, columns) : zero();
  for (std::int64_t r = 0; r < rows; ++r)
    store_first(a.y + (m + r) * a.ldy + n, add(load(of_x + r * kTileRows), bias), columns);
}

// Rows [m0, m1) of x by rows [n, n + 16 Strips) of W, of which those from `end` on are not there.
template <class Format, int Strips>
STEER_BF16 void strips_amx(const ProductArgs& a, std::int64_t n, std::int64_t end, std::int64_t m0, std::int64_t m1,
                           float* scratch) {
  constexpr std::int64_t kStrip = kTileRows * kBlockK;
  constexpr int kTilesOfPanel[] = {0, 2, 6};  // of the first: its sums and x
  auto* w = reinterpret_cast<std::uint16_t*>(scratch);
  float* sums = scratch + kStrip;
  typename Format::Row rows[Strips * kTileRows];
  for (std::int64_t i = 0; i < Strips * kTileRows; ++i) rows[i] = Format::row(a.weight, n + i < end ? n + i : end - 1);
  each_part<Format, Strips * kTileRows>(a, n, m0, [&](const Part& part, Fetch& fetch) {
    for (int s = 0; s < Strips; ++s)
      decode_rows_as_bf16<Format, kTileRows>(rows + s * kTileRows, part.k0, part.k1, w + s * kStrip, fetch);
    const std::int64_t groups = (padded(part.k1) - part.k0) / kGroup;
    std::int64_t shaped[2] = {};
    for (std::int64_t m = m0; m < m1; m += 2 * kTileRows) {
      PanelOfTiles x[2];
      typename TileSet::Shape shape;
      for (int p = 0; p < 2; ++p) {
        const std::int64_t at = m + p * kTileRows, left = m1 - at;
        x[p].rows = left < 0 ? 0 : left < kTileRows ? left : kTileRows;
        x[p].x = reinterpret_cast<const std::uint16_t*>(a.packed + at * padded(a.weight.k)) + part.k0 * x[p].rows;
        for (const int t : kTilesOfPanel) {
          shape.rows[t + p] = x[p].rows > 0 ? kTileRows : 0;
          shape.bytes[t + p] = static_cast<std::uint16_t>(4 * x[p].rows);
        }
        shape.rows[4 + p] = kTileRows;
        shape.bytes[4 + p] = 64;
      }
      if (x[0].rows != shaped[0] || x[1].rows != shaped[1]) TileSet::configure(shape);
      for (int p = 0; p < 2; ++p) shaped[p] = x[p].rows;
      const bool first = part.k0 == 0, two = x[1].rows > 0;
      float* waiting = sums + (m - m0) / kTileRows * 2 * kTileFloats;
      const auto each_tile = [&](const auto& f) {
        f.template operator()<0>();
        if (two) f.template operator()<1>();
        if constexpr (Strips == 2) f.template operator()<2>();
        if constexpr (Strips == 2) {
          if (two) f.template operator()<3>();
        }
      };
      each_tile([&]<int T>() { begin_tile<T>(waiting + T * kTileFloats, first); });
      two ? add_tiles<Strips, 2>(w, kStrip, x, groups) : add_tiles<Strips, 1>(w, kStrip, x, groups);
      each_tile([&]<int T>() {
        const std::int64_t at = n + T / 2 * kTileRows, left = end - at;
        end_tile<T>(a, m + T % 2 * kTileRows, x[T % 2].rows, at, left < kTileRows ? left : kTileRows,
                    waiting + T * kTileFloats, part.last);
      });
    }
  });
}

template <class Format>
void product_amx(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* scratch) {
  for (std::int64_t m0 = 0; m0 < a.m; m0 += kTilesM) {
    const std::int64_t m1 = m0 + kTilesM < a.m ? m0 + kTilesM : a.m;
    std::int64_t n = begin;
    for (; n + kTileRows < end; n += 2 * kTileRows) strips_amx<Format, 2>(a, n, end, m0, m1, scratch);
    for (; n < end; n += kTileRows) strips_amx<Format, 1>(a, n, end, m0, m1, scratch);
  }
  TileSet::release();
}
