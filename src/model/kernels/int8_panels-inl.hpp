// x rounded to 8 bits, in panels: what products with it (int8-inl.hpp) read, whatever instructions they have. Included
// by kernels-inl.hpp only, inside that file's namespace.

// A panel of `rows` rounded to 8 bits: [group][row][32] bytes; then, for each eight groups and row, their scales, scale
// times sum of each, and of each half by chain.
constexpr std::int64_t kScalesOf8 = 32;
struct BytePanel {
  std::int8_t* bytes;
  float* scales;
  BytePanel(const ProductArgs& a, std::int64_t first, std::int64_t rows, const float* packed) {
    const std::int64_t length = padded(a.weight.k);
    bytes = reinterpret_cast<std::int8_t*>(const_cast<float*>(packed) + first * length);
    scales = reinterpret_cast<float*>(bytes + rows * length);
  }
};

// Of sixteen chains that of half a group: four first halves, their second ones, and so on.
constexpr int chain_of_half(std::int64_t g, int half) {
  return static_cast<int>(g % 8 / 4) * 8 + half * 4 + static_cast<int>(g % 4);
}

inline void pack_int8(const ProductArgs& a, std::int64_t begin, std::int64_t end, float* packed) {
  for (std::int64_t first = 0; first < a.m; first += kTileM) {
    const std::int64_t rows = a.m - first < kTileM ? a.m - first : kTileM;
    const BytePanel panel(a, first, rows, packed);
    for (std::int64_t at = begin; at < end; at += kGroup) {
      const std::int64_t g = at / kGroup;
      for (std::int64_t r = 0; r < rows; ++r) {
        F x[kVectors], largest = zero();
        for (int v = 0; v < kVectors; ++v) {
          const std::int64_t left = a.weight.k - at - v * kWidth;
          const float* from = a.x + (first + r) * a.ldx + at + v * kWidth;
          x[v] = load_up_to(from, left);
          largest = max(largest, max(x[v], sub(zero(), x[v])));
        }
        const float most = reduce_max(largest);
        const F inverse = set1(most > 0 ? 127.0f / most : 0.0f);
        alignas(64) std::int32_t q[kGroup];
        for (int v = 0; v < kVectors; ++v) store_i(q + v * kWidth, to_int(mul(x[v], inverse)));
        std::int8_t* to = panel.bytes + (g * rows + r) * kGroup;
        std::int32_t sums[2] = {};
        for (int i = 0; i < kGroup; ++i) {
          to[i] = static_cast<std::int8_t>(q[i]);
          sums[i / (kGroup / 2)] += q[i];
        }
        float* scales = panel.scales + (g / 8 * rows + r) * kScalesOf8;
        const float scale = most / 127.0f,
                    halves[2] = {scale * static_cast<float>(sums[0]), scale * static_cast<float>(sums[1])};
        scales[g % 8] = scale;
        scales[8 + g % 8] = halves[0] + halves[1];
        for (int half = 0; half < 2; ++half) scales[16 + chain_of_half(g, half)] = halves[half];
      }
    }
  }
}
