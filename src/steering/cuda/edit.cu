// A token's instructions by one block: its warps read registers side by side, one thread says by how much they change,
// all write.

#include "steering/cuda/edit.hpp"

#include "model/cuda/language.hpp"

namespace steer::steering::detail::card {
namespace {

using model::detail::cuda::kWarp;
using model::detail::cuda::warp_sum;

constexpr int kThreads = 256;
// Of runtime.hpp: kOutOfScope, kHolds, kHeld.
constexpr float kNobody = -1;
constexpr std::uint8_t kNow = 1, kBefore = 2;

/// The sum of f(i) over i < n, in all threads of the block.
template <class F>
__device__ float block_sum(std::int64_t n, const F& f) {
  __shared__ float parts[kThreads / kWarp];
  float sum = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += kThreads) sum += f(i);
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = sum;
  __syncthreads();
  sum = 0;
  for (int i = 0; i < kThreads / kWarp; ++i) sum += parts[i];
  __syncthreads();  // `parts` is used again
  return sum;
}

/// A block's token.
struct Token {
  Program program;
  float* h;
  const std::uint8_t* selected;
  std::uint8_t* states;             ///< may be null
  float *changes, *values, *moved;  ///< values and what members moved them by: of a step's registers
};

/// x~ = (h - shift) / in, undone by * out.
struct TokenNorm {
  float shift = 0, in = 1, out = 1;
};

__device__ TokenNorm measure(const float* h, std::int64_t width, Normalization kind) {
  const auto n = static_cast<float>(width);
  TokenNorm norm;
  if (kind == Normalization::constant_norm_rescale) {
    const float length = sqrtf(block_sum(width, [=](std::int64_t i) { return h[i] * h[i]; }));
    norm.in = norm.out = (length > 0 ? length : 1) / sqrtf(n);
  } else if (kind == Normalization::layer_norm) {
    const float mean = block_sum(width, [=](std::int64_t i) { return h[i]; }) / n;
    const float squares = block_sum(width, [=](std::int64_t i) { return (h[i] - mean) * (h[i] - mean); });
    norm.shift = mean;
    norm.out = sqrtf(squares / (n - 1));
    norm.in = norm.out + 1e-5f;
  }
  return norm;
}

__device__ float relative(float change, float arrival) {
  return arrival > 0 ? change / arrival : change > 0 ? 1.f : 0.f;
}

/// Decides the conditions that are known here, in order.
__device__ void decide(const Token& t) {
  for (int k = 0; k < t.program.condition_count; ++k) {
    const Condition& c = t.program.conditions[k];
    float value = 0;
    if (c.kind == Condition::Kind::reads) {
      const TokenNorm norm = measure(t.h, t.program.width, c.normalization);
      const float* row = t.program.table + c.read.read * t.program.width;
      const float dot = block_sum(t.program.width, [&](std::int64_t i) { return t.h[i] * row[i]; });
      value = value_of(c.read, dot, norm.shift, norm.in);
    }
    if (threadIdx.x == 0) {
      const bool before = (t.states[c.number] & kBefore) != 0, all = c.kind == Condition::Kind::all_of;
      bool now = all;
      for (int p = 0; p < c.parts; ++p) {
        const bool part = (t.states[t.program.parts[c.first_part + p]] & kNow) != 0;
        now = all ? now && part : now || part;
      }
      now = c.kind == Condition::Kind::reads ? c.band.holds(static_cast<double>(value), before)
                                             : now || (c.band.sticky && before);
      t.states[c.number] = static_cast<std::uint8_t>((now ? kNow : 0) | (before ? kBefore : 0));
    }
    __syncthreads();  // all threads look at the states
  }
}

__device__ bool acts(const Token& t, int member) {
  const int condition = t.program.members[member].condition;
  return t.selected[member] && (!t.states || condition < 0 || (t.states[condition] & kNow) != 0);
}

/// A warp a register.
__device__ void read(const Token& t, const Step& step, const TokenNorm& norm) {
  const unsigned lane = threadIdx.x % kWarp;
  for (int k = static_cast<int>(threadIdx.x / kWarp); k < step.registers; k += kThreads / kWarp) {
    const Register& r = t.program.registers[step.first_register + k];
    float sum = 0;
    if (r.reading == Reading::norm)
      for (std::int64_t i = lane; i < t.program.width; i += kWarp) sum += t.h[i] * t.h[i];
    else if (r.reading != Reading::nothing)
      for (std::int64_t i = lane; i < t.program.width; i += kWarp)
        sum += t.h[i] * t.program.table[r.read * t.program.width + i];
    sum = warp_sum(sum);
    if (lane != 0) continue;
    t.moved[k] = 0;
    t.values[k] = r.reading == Reading::norm      ? sqrtf(sum)
                  : r.reading == Reading::nothing ? 0.f
                                                  : value_of(r, sum, norm.shift, norm.in);
  }
}

/// By how much the members change the registers, one after the other. One thread.
__device__ void change(const Token& t, const Step& step, const TokenNorm& norm, float arrival) {
  for (int k = 0; k < step.members; ++k) {
    if (!acts(t, step.first_member + k)) continue;
    const Member& m = t.program.members[step.first_member + k];
    const Change& c = m.change;
    const float reach = t.program.registers[step.first_register + c.first].write_norm * norm.out;
    const float unit = !c.by_norm ? 1.f : reach > 0 ? arrival / reach : 0.f;
    const float x[2] = {t.values[c.first] + t.moved[c.first],
                        c.pair ? t.values[c.first + 1] + t.moved[c.first + 1] : 0.f};
    const float d[2] = {change_of(c, 0, x, unit), c.pair ? change_of(c, 1, x, unit) : 0.f};
    t.moved[c.first] += d[0];
    if (c.pair) t.moved[c.first + 1] += d[1];
    t.changes[m.line] = relative((c.pair ? sqrtf(d[0] * d[0] + d[1] * d[1]) : fabsf(d[0])) * reach, arrival);
  }
}

/// What moves nothing leaves every bit.
__device__ void write(const Token& t, const Step& step, const TokenNorm& norm) {
  const Register* registers = t.program.registers + step.first_register;
  for (std::int64_t i = threadIdx.x; i < t.program.width; i += kThreads) {
    float x = t.h[i];
    for (int k = 0; k < step.registers; ++k)
      if (registers[k].reading == Reading::norm && t.moved[k] != 0 && t.values[k] > 0)
        x *= 1 + t.moved[k] / t.values[k];
    for (int k = 0; k < step.registers; ++k)
      if (registers[k].reading != Reading::norm && t.moved[k] != 0)
        x = __fmaf_rn(t.moved[k] * norm.out, t.program.table[registers[k].write * t.program.width + i], x);
    t.h[i] = x;
  }
}

__device__ void add_constant(const Token& t, const Step& step, float arrival) {
  const Member* members = t.program.members + step.first_member;
  const bool by_norm = members[0].change.by_norm;
  const float unit = by_norm ? arrival : 1;
  const float* row = t.program.table + t.program.registers[step.first_register].write * t.program.width;
  for (std::int64_t i = threadIdx.x; i < t.program.width; i += kThreads) t.h[i] = __fmaf_rn(unit, row[i], t.h[i]);
  if (threadIdx.x == 0)
    for (int k = 0; k < step.members; ++k)
      t.changes[members[k].line] = by_norm ? (arrival > 0 ? members[k].size : 0) : relative(members[k].size, arrival);
}

__global__ void __launch_bounds__(kThreads) edit_token(Launch launch) {
  const Work work = launch.work[blockIdx.x];
  const Program& p = work.program;
  float* const registers = launch.registers + work.registers;
  const Token t{.program = p,
                .h = launch.h + work.row * launch.stride,
                .selected = launch.selected + work.selected,
                .states = launch.states ? launch.states + work.states : nullptr,
                .changes = launch.changes + work.changes,
                .values = registers,
                .moved = registers + p.most_registers};
  if (threadIdx.x == 0)
    for (int line = 0; line < p.lines; ++line) t.changes[line] = kNobody;
  if (t.states) decide(t);
  float arrival = -1;
  for (int s = 0; s < p.step_count; ++s) {
    const Step step = p.steps[s];
    bool any = false;
    for (int k = 0; k < step.members; ++k) any |= acts(t, step.first_member + k);
    if (!any) continue;  // all threads alike
    if (arrival < 0) arrival = sqrtf(block_sum(p.width, [&](std::int64_t i) { return t.h[i] * t.h[i]; }));
    if (step.constant) {
      add_constant(t, step, arrival);
    } else {
      const TokenNorm norm = measure(t.h, p.width, step.normalization);
      read(t, step, norm);
      __syncthreads();
      if (threadIdx.x == 0) change(t, step, norm, arrival);
      __syncthreads();
      write(t, step, norm);
    }
    __syncthreads();
  }
}

}  // namespace

void edit(void* stream, const Launch& launch) {
  if (launch.tokens == 0) return;
  STEER_LAUNCH(edit_token, static_cast<unsigned>(launch.tokens), kThreads, stream, launch);
}

}  // namespace steer::steering::detail::card
