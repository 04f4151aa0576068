// Attention over the blocks of the cache, with an online softmax (arXiv:2205.14135), for prompts and single tokens
// alike. A warp works on four pairs of a query and a head; a lane is a key while scores are made and some of the
// dimensions while values are added. Keys are taken in splits of kSplitKeys, each summed apart and then joined in
// order: where there are few queries the splits are spread over blocks of threads (arXiv:2311.01282's first idea).

#include "model/cuda/kernels.hpp"
#include "model/cuda/language.hpp"

namespace steer::model::detail::cuda {
namespace {

constexpr int kWarps = 4, kPairs = kTilePairs / kWarps, kThreads = kWarps * kWarp;
constexpr int kBlockKeys = static_cast<int>(kBlock);
static_assert(kBlockKeys == kWarp && kSplitKeys % kBlockKeys == 0);
constexpr float kNone = -INFINITY;

struct AsF32 {
  using Type = float;
  __device__ static float read(const float* p) { return *p; }
};
struct AsBf16 {
  using Type = std::uint16_t;
  __device__ static float read(const std::uint16_t* p) { return from_bf16(*p); }
};
struct AsF16 {
  using Type = std::uint16_t;
  __device__ static float read(const std::uint16_t* p) { return from_half(*p); }
};

/// What some keys make of one pair: sums relative to exp(top). A lane holds the dimensions lane + 32 j.
template <int kDims>
struct Sum {
  float top = kNone, weight = 0, value[kDims] = {};
};

/// Keys of b follow those of a.
template <int kDims>
__device__ void join(Sum<kDims>& a, const Sum<kDims>& b) {
  if (b.top == kNone) return;
  const float top = fmaxf(a.top, b.top), by_a = a.top == kNone ? 0 : expf(a.top - top), by_b = expf(b.top - top);
  a.weight = __fmaf_rn(a.weight, by_a, __fmul_rn(b.weight, by_b));
  for (int j = 0; j < kDims; ++j) a.value[j] = __fmaf_rn(a.value[j], by_a, __fmul_rn(b.value[j], by_b));
  a.top = top;
}

/// Writes a pair's result. @param sink  the logit of nothing, or kNone.
template <int kDims>
__device__ void finish(Sum<kDims> sum, float sink, float* z, std::int64_t d_head) {
  if (sink != kNone) {
    Sum<kDims> nothing;
    nothing.top = sink, nothing.weight = 1;
    join(sum, nothing);
  }
  const std::int64_t lane = threadIdx.x % kWarp;
  for (int j = 0; j < kDims; ++j)
    if (lane + j * kWarp < d_head) z[lane + j * kWarp] = sum.value[j] / sum.weight;
}

struct Pair {
  std::int64_t row, head;   // of q
  std::int64_t begin, end;  // keys
};

/// Adds the keys of blocks [first, last) to four pairs' sums.
template <class Format, int kDims>
__device__ void add_blocks(const Attention& a, const CacheBlock* blocks, std::int64_t kv_head, const float* q,
                           const Pair* pairs, std::int64_t first, std::int64_t last, Sum<kDims>* sums) {
  using Type = typename Format::Type;
  const int lane = threadIdx.x % kWarp;
  for (std::int64_t b = first; b < last; ++b) {
    const Type* k = static_cast<const Type*>(blocks[b].k) + kv_head * a.d_head * kBlockKeys + lane;
    const Type* v = static_cast<const Type*>(blocks[b].v) + kv_head * a.d_head * kBlockKeys + lane;
    float score[kPairs] = {};
    for (std::int64_t d = 0; d < a.d_head; ++d) {
      const float key = Format::read(k + d * kBlockKeys);
      for (int p = 0; p < kPairs; ++p) score[p] = __fmaf_rn(q[p * a.d_head + d], key, score[p]);
    }
    const std::int64_t key = b * kBlockKeys + lane;
    for (int p = 0; p < kPairs; ++p) {
      float s = score[p] * a.scale;
      if (a.soft_cap > 0) s = tanhf(s / a.soft_cap) * a.soft_cap;
      if (key < pairs[p].begin || key >= pairs[p].end) s = kNone;
      Sum<kDims>& sum = sums[p];
      const float top = fmaxf(sum.top, warp_max(s));
      if (top == kNone) {  // none of this pair's keys yet, in all lanes alike
        score[p] = 0;
        continue;
      }
      const float shrink = sum.top == kNone ? 0 : expf(sum.top - top);
      score[p] = expf(s - top);
      sum.weight = __fmaf_rn(sum.weight, shrink, warp_sum(score[p]));
      for (int j = 0; j < kDims; ++j) sum.value[j] *= shrink;
      sum.top = top;
    }
    for (int t = 0; t < kBlockKeys; ++t) {
      float weight[kPairs];
      for (int p = 0; p < kPairs; ++p) weight[p] = __shfl_sync(kAllLanes, score[p], t);
      for (int j = 0; j < kDims; ++j) {
        if (lane + j * kWarp >= a.d_head) continue;
        const float value = Format::read(v + t * a.d_head + j * kWarp);
        for (int p = 0; p < kPairs; ++p) sums[p].value[j] = __fmaf_rn(weight[p], value, sums[p].value[j]);
      }
    }
  }
}

/// One block a tile, a key-value head and, with `partial`, a split.
template <class Format, int kDims>
__global__ void __launch_bounds__(kThreads) attend_tile(Attention a) {
  __shared__ float queries[kTilePairs * kDims * kWarp];
  const AttentionTile tile = a.tiles[blockIdx.x];
  const AttentionRun run = a.runs[tile.run];
  const std::int64_t kv_head = blockIdx.y, group = a.heads / a.kv_heads, all = run.queries * group;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;

  Pair pairs[kPairs];
  std::int64_t first_key = run.position + run.queries, last_key = 0;  // of the warp's pairs
  float* q = queries + warp * kPairs * a.d_head;
  for (int p = 0; p < kPairs; ++p) {
    // Pairs beyond the last repeat it, and are not written: a pair's bits do not depend on the tile it is in.
    const std::int64_t wanted = tile.first_pair + warp * kPairs + p, i = wanted < all ? wanted : all - 1;
    const std::int64_t position = run.position + i / group;
    pairs[p] = {run.first_row + i / group, kv_head * group + i % group,
                a.window > 0 && position - a.window + 1 > 0 ? position - a.window + 1 : 0, position + 1};
    if (pairs[p].begin < first_key) first_key = pairs[p].begin;
    if (pairs[p].end > last_key) last_key = pairs[p].end;
    for (std::int64_t d = lane; d < a.d_head; d += kWarp)
      q[p * a.d_head + d] = a.q[(pairs[p].row * a.heads + pairs[p].head) * a.d_head + d];
  }
  __syncthreads();

  const CacheBlock* blocks = a.blocks + run.first_block;
  const auto split_of = [&](std::int64_t s, Sum<kDims>* sums) {
    const std::int64_t from = s * kSplitKeys > first_key ? s * kSplitKeys : first_key,
                       to = (s + 1) * kSplitKeys < last_key ? (s + 1) * kSplitKeys : last_key;
    if (from < to)
      add_blocks<Format, kDims>(a, blocks, kv_head, q, pairs, from / kBlockKeys, (to + kBlockKeys - 1) / kBlockKeys,
                                sums);
  };
  const auto is_written = [&](int p) { return tile.first_pair + warp * kPairs + p < all; };
  if (!is_written(0))
    return;  // a decoded token has fewer pairs than a tile: its other warps would read keys for nothing

  if (a.partial) {
    const std::int64_t s = blockIdx.z;
    Sum<kDims> sums[kPairs];
    split_of(s, sums);
    for (int p = 0; p < kPairs; ++p) {
      if (!is_written(p)) continue;
      float* to = a.partial + ((pairs[p].row * a.heads + pairs[p].head) * a.splits + s) * (a.d_head + 2);
      if (lane == 0) to[0] = sums[p].top, to[1] = sums[p].weight;
      for (int j = 0; j < kDims; ++j)
        if (lane + j * kWarp < a.d_head) to[2 + lane + j * kWarp] = sums[p].value[j];
    }
    return;
  }
  Sum<kDims> total[kPairs];
  for (std::int64_t s = first_key / kSplitKeys; s * kSplitKeys < last_key; ++s) {
    Sum<kDims> sums[kPairs];
    split_of(s, sums);
    for (int p = 0; p < kPairs; ++p) join(total[p], sums[p]);
  }
  for (int p = 0; p < kPairs; ++p)
    if (is_written(p))
      finish(total[p], a.sinks ? a.sinks[pairs[p].head] : kNone,
             a.z + (pairs[p].row * a.heads + pairs[p].head) * a.d_head, a.d_head);
}

/// One warp a row and head.
template <int kDims>
__global__ void join_splits(Attention a) {
  const int lane = threadIdx.x % kWarp;
  const std::int64_t at = blockIdx.x;
  Sum<kDims> total;
  for (std::int64_t s = 0; s < a.splits; ++s) {
    const float* from = a.partial + (at * a.splits + s) * (a.d_head + 2);
    Sum<kDims> part;
    part.top = from[0], part.weight = from[1];
    for (int j = 0; j < kDims; ++j)
      if (lane + j * kWarp < a.d_head) part.value[j] = from[2 + lane + j * kWarp];
    join(total, part);
  }
  finish(total, a.sinks ? a.sinks[at % a.heads] : kNone, a.z + at * a.d_head, a.d_head);
}

template <class Format, int kDims>
void launch(Stream stream, const Attention& a) {
  const dim3 grid(static_cast<unsigned>(a.tile_count), static_cast<unsigned>(a.kv_heads),
                  a.partial ? static_cast<unsigned>(a.splits) : 1);
  const auto tile = attend_tile<Format, kDims>;
  STEER_LAUNCH(tile, grid, kThreads, stream, a);
  if (!a.partial) return;
  const auto joined = join_splits<kDims>;
  STEER_LAUNCH(joined, static_cast<unsigned>(a.rows * a.heads), kWarp, stream, a);
}

template <class Format>
void launch_for(Stream stream, const Attention& a) {
  if (a.d_head <= kWarp) return launch<Format, 1>(stream, a);
  if (a.d_head <= 2 * kWarp) return launch<Format, 2>(stream, a);
  if (a.d_head <= 4 * kWarp) return launch<Format, 4>(stream, a);
  launch<Format, 8>(stream, a);
}

}  // namespace

void attend(Stream stream, const Attention& a) {
  if (a.tile_count == 0) return;
  if (a.format == CacheType::f32) return launch_for<AsF32>(stream, a);
  if (a.format == CacheType::bf16) return launch_for<AsBf16>(stream, a);
  launch_for<AsF16>(stream, a);
}

}  // namespace steer::model::detail::cuda
