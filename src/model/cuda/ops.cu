// What happens to rows between products and attention.

#include "model/cuda/kernels.hpp"
#include "model/cuda/language.hpp"

namespace steer::model::detail::cuda {
namespace {

constexpr int kThreads = 256;

/// The sum over a block's threads, in all of them.
__device__ float block_sum(float x) {
  __shared__ float parts[kThreads / kWarp];
  x = warp_sum(x);
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = x;
  __syncthreads();
  float sum = 0;
  for (unsigned i = 0; i < blockDim.x / kWarp; ++i) sum += parts[i];
  __syncthreads();  // `parts` is used again
  return sum;
}

/// One block a row. A thread reads again only what it wrote itself.
__global__ void norm_row(float* out, float* x, const float* added, const float* gain, const float* bias,
                         std::int64_t width, float eps, bool centred) {
  x += blockIdx.x * width;
  out += blockIdx.x * width;
  if (added) {
    added += blockIdx.x * width;
    for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) x[i] += added[i];
  }
  float mean = 0;
  if (centred) {
    float sum = 0;
    for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) sum += x[i];
    mean = block_sum(sum) / static_cast<float>(width);
  }
  float squares = 0;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    const float d = x[i] - mean;
    squares = __fmaf_rn(d, d, squares);
  }
  const float scale = rsqrtf(block_sum(squares) / static_cast<float>(width) + eps);
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    float y = (x[i] - mean) * scale;
    if (gain) y *= gain[i];
    if (bias) y += bias[i];
    out[i] = y;
  }
}

__device__ std::int64_t item() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

__global__ void multiply_add_items(float* x, const float* gain, const float* bias, std::int64_t n, std::int64_t width) {
  const std::int64_t i = item();
  if (i >= n) return;
  const float y = x[i] * gain[i % width];
  x[i] = bias ? y + bias[i % width] : y;
}

__global__ void scale_and_cap(float* x, std::int64_t n, float factor, float cap) {
  const std::int64_t i = item();
  if (i >= n) return;
  const float y = x[i] * factor;
  x[i] = cap > 0 ? tanhf(y / cap) * cap : y;
}

__global__ void add_items(float* x, const float* y, std::int64_t n) {
  const std::int64_t i = item();
  if (i < n) x[i] += y[i];
}

__device__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }

__device__ float activated(float x, Activation kind) {
  switch (kind) {
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::gelu:
      return 0.5f * x * (1 + erff(x * 0.70710678f));
    case Activation::gelu_tanh:
      return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    case Activation::relu:
      return fmaxf(x, 0.f);
  }
  return x;
}

__global__ void activate_items(float* gate, const float* up, std::int64_t n, Activation kind, float limit) {
  const std::int64_t i = item();
  if (i >= n) return;
  if (limit > 0) {
    const float g = fminf(gate[i], limit);
    gate[i] = (fminf(fmaxf(up[i], -limit), limit) + 1) * g * sigmoid(1.702f * g);
    return;
  }
  const float y = activated(gate[i], kind);
  gate[i] = up ? y * up[i] : y;
}

__global__ void gate_items(float* x, const float* by, std::int64_t n) {
  const std::int64_t i = item();
  if (i < n) x[i] *= sigmoid(by[i]);
}

__global__ void scale_items(float* x, const float* factors, std::int64_t n, std::int64_t width) {
  const std::int64_t i = item();
  if (i < n) x[i] *= factors[i / width];
}

/// The pair a, b turned: its first number, or its second. In one way of rounding, wherever it is called.
__device__ float turned_first(float a, float b, float c, float s) { return __fmaf_rn(a, c, -__fmul_rn(b, s)); }
__device__ float turned_second(float a, float b, float c, float s) { return __fmaf_rn(b, c, __fmul_rn(a, s)); }

/// One thread a pair.
__global__ void rotate_pairs(float* x, const float* cos, const float* sin, std::int64_t n, std::int64_t heads,
                             std::int64_t d_head, std::int64_t half) {
  const std::int64_t i = item();
  if (i >= n) return;
  const std::int64_t pair = i % half, head = i / half, row = head / heads;
  float *a = x + head * d_head + pair, *b = a + half;
  const float c = cos[row * half + pair], s = sin[row * half + pair], was = *a;
  *a = turned_first(was, *b, c, s);
  *b = turned_second(was, *b, c, s);
}

template <class T>
struct Stored;
template <>
struct Stored<float> {
  using Type = float;
  __device__ static float from(float x) { return x; }
};
struct Bf16 {};
template <>
struct Stored<Bf16> {
  using Type = std::uint16_t;
  __device__ static std::uint16_t from(float x) { return to_bf16(x); }
};
struct F16 {};
template <>
struct Stored<F16> {
  using Type = std::uint16_t;
  __device__ static std::uint16_t from(float x) { return to_half(x); }
};

/// A thread for a number of k and v, and of each row's q for a pair.
template <class T>
__global__ void store_items(const CacheSlot* slots, const float* k, const float* v, Rotation rotation, std::int64_t n,
                            std::int64_t kv_heads, std::int64_t d_head) {
  using Type = typename Stored<T>::Type;
  const std::int64_t width = kv_heads * d_head, pairs = rotation.q ? rotation.heads * rotation.half : 0,
                     half = rotation.cos ? rotation.half : 0, i = item();
  if (i >= n * (width + pairs)) return;
  const std::int64_t row = i / (width + pairs), at = i % (width + pairs);
  const auto turned = [&](const float* head, std::int64_t d) {
    const std::int64_t pair = d % half;
    const float c = rotation.cos[row * half + pair], s = rotation.sin[row * half + pair];
    return d < half ? turned_first(head[pair], head[pair + half], c, s)
                    : turned_second(head[pair], head[pair + half], c, s);
  };
  if (at >= width) {
    const std::int64_t pair = (at - width) % half;
    float* head = rotation.q + (row * rotation.heads + (at - width) / half) * d_head;
    const float first = turned(head, pair);
    head[pair + half] = turned(head, pair + half);
    head[pair] = first;
    return;
  }
  const std::int64_t head = at / d_head, d = at % d_head;
  const float* key = k + row * width + head * d_head;
  const CacheSlot& to = slots[row];
  static_cast<Type*>(to.block.k)[(head * d_head + d) * kBlock + to.slot] =
      Stored<T>::from(d < 2 * half ? turned(key, d) : key[d]);
  static_cast<Type*>(to.block.v)[(head * kBlock + to.slot) * d_head + d] = Stored<T>::from(v[row * width + at]);
}

}  // namespace

void norm(Stream stream, float* out, float* x, const float* added, const float* gain, const float* bias,
          std::int64_t rows, std::int64_t width, float eps, bool centred) {
  if (rows == 0) return;
  // By the width alone: a row's order of additions must not depend on the batch.
  const int threads = width >= 1024 ? kThreads : width >= 256 ? 128 : kWarp;
  STEER_LAUNCH(norm_row, static_cast<unsigned>(rows), threads, stream, out, x, added, gain, bias, width, eps, centred);
}

void multiply_add_rows(Stream stream, float* x, const float* gain, const float* bias, std::int64_t rows,
                       std::int64_t width) {
  if (const std::int64_t n = rows * width; n > 0)
    STEER_LAUNCH(multiply_add_items, blocks_for(n, kThreads), kThreads, stream, x, gain, bias, n, width);
}

void scale(Stream stream, float* x, std::int64_t n, float factor, float cap) {
  if (n > 0) STEER_LAUNCH(scale_and_cap, blocks_for(n, kThreads), kThreads, stream, x, n, factor, cap);
}

void add(Stream stream, float* x, const float* y, std::int64_t n) {
  if (n > 0) STEER_LAUNCH(add_items, blocks_for(n, kThreads), kThreads, stream, x, y, n);
}

void activate(Stream stream, float* gate, const float* up, std::int64_t n, Activation kind, float limit) {
  if (n > 0) STEER_LAUNCH(activate_items, blocks_for(n, kThreads), kThreads, stream, gate, up, n, kind, limit);
}

void gate(Stream stream, float* x, const float* by, std::int64_t n) {
  if (n > 0) STEER_LAUNCH(gate_items, blocks_for(n, kThreads), kThreads, stream, x, by, n);
}

void scale_rows(Stream stream, float* x, const float* factors, std::int64_t rows, std::int64_t width) {
  if (const std::int64_t n = rows * width; n > 0)
    STEER_LAUNCH(scale_items, blocks_for(n, kThreads), kThreads, stream, x, factors, n, width);
}

void rotate(Stream stream, float* x, const float* cos, const float* sin, std::int64_t rows, std::int64_t heads,
            std::int64_t d_head, std::int64_t half) {
  if (const std::int64_t n = rows * heads * half; n > 0)
    STEER_LAUNCH(rotate_pairs, blocks_for(n, kThreads), kThreads, stream, x, cos, sin, n, heads, d_head, half);
}

void store(Stream stream, const CacheSlot* slots, const float* k, const float* v, const Rotation& rotation,
           std::int64_t rows, std::int64_t kv_heads, std::int64_t d_head, CacheType format) {
  if (rows == 0) return;
  const std::int64_t items = rows * (kv_heads * d_head + (rotation.q ? rotation.heads * rotation.half : 0));
  const auto launch = [&](auto kernel) {
    STEER_LAUNCH(kernel, blocks_for(items, kThreads), kThreads, stream, slots, k, v, rotation, rows, kv_heads, d_head);
  };
  if (format == CacheType::f32) return launch(store_items<float>);
  if (format == CacheType::bf16) return launch(store_items<Bf16>);
  launch(store_items<F16>);
}

}  // namespace steer::model::detail::cuda
