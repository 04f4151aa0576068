#pragma once
// The instructions of model/kernels/amx-inl.hpp written out, for machines without AMX, as "Intel Architecture
// Instruction Set Extensions Programming Reference" defines them.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace steer::test {

struct SlowTiles {
  struct Shape {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {};
    std::uint8_t rows[16] = {};
  };

  static void configure(const Shape& shape) {
    expect(shape.palette == 1 && shape.start == 0);
    for (int t = 0; t < 16; ++t) {
      expect(shape.bytes[t] <= 64 && shape.rows[t] <= 16 && (shape.bytes[t] == 0) == (shape.rows[t] == 0));
      expect(t < 8 || shape.rows[t] == 0);
    }
    state() = {};
    state().shape = shape;
    state().configured = true;
  }
  static void release() { state() = {}; }
  template <int T>
  static void clear() {
    used<T>();
    std::memset(state().tiles[T], 0, sizeof state().tiles[T]);
  }
  template <int T>
  static void load(const void* from, std::int64_t stride) {
    clear<T>();
    for (int r = 0; r < state().shape.rows[T]; ++r)
      std::memcpy(state().tiles[T][r], static_cast<const char*>(from) + r * stride, state().shape.bytes[T]);
  }
  template <int T>
  static void store(void* to, std::int64_t stride) {
    used<T>();
    for (int r = 0; r < state().shape.rows[T]; ++r)
      std::memcpy(static_cast<char*>(to) + r * stride, state().tiles[T][r], state().shape.bytes[T]);
  }
  template <int C, int A, int B>
  static void multiply() {
    used<A>(), used<B>(), used<C>();
    const Shape& shape = state().shape;
    expect(shape.rows[C] == shape.rows[A] && shape.bytes[C] == shape.bytes[B] && shape.bytes[A] == 4 * shape.rows[B]);
    for (int m = 0; m < shape.rows[C]; ++m) {
      float sums[32] = {};
      for (int k = 0; k < shape.rows[B]; ++k)
        for (int n = 0; n < shape.bytes[B] / 2; ++n)
          sums[n] = std::fma(number(A, m, 2 * k + n % 2), number(B, k, n), sums[n]);
      for (int n = 0; n < shape.bytes[C] / 4; ++n) {
        float c;
        std::memcpy(&c, &state().tiles[C][m][4 * n], 4);
        c += sums[2 * n] + sums[2 * n + 1];
        std::memcpy(&state().tiles[C][m][4 * n], &c, 4);
      }
    }
  }

 private:
  struct State {
    Shape shape;
    bool configured = false;
    unsigned char tiles[8][16][64] = {};
  };
  static State& state() {
    static State s;
    return s;
  }
  static void expect(bool holds) {  // what the processor answers with an exception
    if (holds) return;
    std::puts("an instruction that AMX does not have");
    std::exit(1);
  }
  template <int T>
  static void used() {
    expect(state().configured && state().shape.rows[T] > 0);
  }
  static float number(int tile, int row, int at) {
    std::uint16_t half;
    std::memcpy(&half, &state().tiles[tile][row][2 * at], 2);
    const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return std::fabs(value) < 1.17549435e-38f ? 0.0f : value;  // denormals count as zero
  }
};

}  // namespace steer::test
