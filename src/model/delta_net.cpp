#include "model/delta_net.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/crew.hpp"
#include "model/cpu_loops.hpp"

namespace steer::model::detail {
namespace {

/// Added below the root when q and k are made unit length.
constexpr float kUnitEps = 1e-6f;

struct Sizes {
  explicit Sizes(const DeltaNetConfig& c)
      : keys(c.key_heads * c.d_key), values(c.value_heads * c.d_value), channels(2 * keys + values) {}
  std::int64_t keys, values, channels;
};

float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }

const float* data(const at::Tensor& t) { return t.const_data_ptr<float>(); }

/// The columns before a run: of the state it goes on from, or zeros.
at::Tensor columns_before(const DeltaNetRun& run, std::span<const RecurrentState> after, const DeltaNetConfig& c,
                          const at::Tensor& like) {
  if (run.follows >= 0) return after[static_cast<std::size_t>(run.follows)].columns;
  return run.before ? run.before->columns : at::zeros({c.kernel - 1, Sizes(c).channels}, like.options());
}

at::Tensor memory_before(const DeltaNetRun& run, std::span<const RecurrentState> after, const DeltaNetConfig& c,
                         const at::Tensor& like) {
  if (run.follows >= 0) return after[static_cast<std::size_t>(run.follows)].memory;
  return run.before ? run.before->memory : at::zeros({c.value_heads, c.d_key, c.d_value}, like.options());
}

}  // namespace

at::Tensor delta_net_on_cpu(const DeltaNetConfig& c, const DeltaNetWeights& w, const at::Tensor& qkv,
                            const at::Tensor& beta, const at::Tensor& alpha, std::span<const DeltaNetRun> runs,
                            std::span<RecurrentState> after) {
  const Sizes size(c);
  const cpu::Loops& loops = cpu::loops();
  at::Tensor mixed = at::empty_like(qkv), out = at::empty({qkv.size(0), size.values}, qkv.options());
  float* rows = mixed.data_ptr<float>();
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const auto& run = runs[r];
    const at::Tensor history = columns_before(run, after, c, qkv);
    // What a row sees: the columns before the run, then those of the run itself.
    const auto column = [&](std::int64_t t) {
      return t < 0 ? data(history) + (t + c.kernel - 1) * size.channels : data(qkv) + (run.begin + t) * size.channels;
    };
    core::detail::run_ranges(run.end - run.begin, 1 + 16384 / size.channels, [&](std::int64_t begin, std::int64_t end) {
      std::vector<const float*> columns(static_cast<std::size_t>(c.kernel));
      for (std::int64_t t = begin; t < end; ++t) {
        for (std::int64_t j = 0; j < c.kernel; ++j) columns[static_cast<std::size_t>(j)] = column(t - c.kernel + 1 + j);
        float* row = rows + (run.begin + t) * size.channels;
        loops.convolve(data(w.conv), columns.data(), c.kernel, size.channels, row);
        loops.activate(row, row, nullptr, size.channels, ActivationKind::silu);
        for (std::int64_t head = 0; head < c.key_heads; ++head) {
          loops.make_unit(row + head * c.d_key, c.d_key, 1 / std::sqrt(static_cast<float>(c.d_key)), kUnitEps);
          loops.make_unit(row + size.keys + head * c.d_key, c.d_key, 1, kUnitEps);
        }
      }
    });
    at::Tensor columns = at::empty({c.kernel - 1, size.channels}, qkv.options());
    const std::int64_t count = run.end - run.begin;
    for (std::int64_t j = 0; j < c.kernel - 1; ++j)
      std::copy_n(column(count - c.kernel + 1 + j), size.channels, columns.data_ptr<float>() + j * size.channels);
    after[r] = {memory_before(run, after, c, qkv).clone(), columns};
  }
  // A run that goes on from another of the pass starts with that one's memory, so runs come in order within a head.
  const std::int64_t group = c.value_heads / c.key_heads, block = c.d_key * c.d_value;
  const std::int64_t work = block * qkv.size(0);
  core::detail::run_ranges(
      c.value_heads, 1 + 16384 / std::max<std::int64_t>(work, 1), [&](std::int64_t from, std::int64_t to) {
        std::vector<float> recalled(static_cast<std::size_t>(c.d_value));
        for (std::int64_t head = from; head < to; ++head)
          for (std::size_t r = 0; r < runs.size(); ++r) {
            float* memory = static_cast<float*>(after[r].memory.data_ptr()) + head * block;
            if (runs[r].follows >= 0)
              std::copy_n(data(after[static_cast<std::size_t>(runs[r].follows)].memory) + head * block, block, memory);
            for (std::int64_t t = runs[r].begin; t < runs[r].end; ++t) {
              const float* row = rows + t * size.channels;
              const std::int64_t at = t * c.value_heads + head;
              const std::int64_t key = w.tiled ? head % c.key_heads : head / group;
              const float rate = data(w.decay)[head] * softplus(data(alpha)[at] + data(w.dt_bias)[head]);
              loops.delta_step(memory, row + key * c.d_key, row + size.keys + key * c.d_key,
                               row + 2 * size.keys + head * c.d_value, std::exp(-rate),
                               1 / (1 + std::exp(-data(beta)[at])), c.d_key, c.d_value, recalled.data(),
                               out.data_ptr<float>() + t * size.values + head * c.d_value);
            }
          }
      });
  return out;
}

at::Tensor delta_net_by_operators(const DeltaNetConfig& c, const DeltaNetWeights& w, const at::Tensor& qkv,
                                  const at::Tensor& beta, const at::Tensor& alpha, std::span<const DeltaNetRun> runs,
                                  std::span<RecurrentState> after) {
  const Sizes size(c);
  const std::int64_t group = c.value_heads / c.key_heads;
  const auto unit = [](const at::Tensor& x) { return x * at::rsqrt(x.square().sum(-1, true) + kUnitEps); };
  std::vector<at::Tensor> outputs;
  for (std::size_t r = 0; r < runs.size(); ++r) {
    const auto& run = runs[r];
    const std::int64_t count = run.end - run.begin;
    const auto rows = [&](const at::Tensor& t) { return t.narrow(0, run.begin, count); };
    const at::Tensor all = at::cat(std::vector<at::Tensor>{columns_before(run, after, c, qkv), rows(qkv)});
    at::Tensor mixed = at::zeros({count, size.channels}, qkv.options());
    for (std::int64_t j = 0; j < c.kernel; ++j) mixed = mixed + all.narrow(0, j, count) * w.conv.select(1, j);
    mixed = at::silu(mixed);
    const auto heads = [&](std::int64_t from, std::int64_t n, std::int64_t d) {
      return mixed.narrow(1, from, n * d).reshape({count, n, d});
    };
    const auto for_values = [&](const at::Tensor& t) {
      return w.tiled ? t.repeat({1, group, 1}) : t.repeat_interleave(group, 1);
    };
    const at::Tensor q = for_values(unit(heads(0, c.key_heads, c.d_key))) / std::sqrt(static_cast<double>(c.d_key));
    const at::Tensor k = for_values(unit(heads(size.keys, c.key_heads, c.d_key)));
    const at::Tensor v = heads(2 * size.keys, c.value_heads, c.d_value);
    const at::Tensor keep = at::exp(-w.decay * at::softplus(rows(alpha) + w.dt_bias)), write = at::sigmoid(rows(beta));
    at::Tensor memory = memory_before(run, after, c, qkv);
    for (std::int64_t t = 0; t < count; ++t) {
      memory = memory * keep[t].reshape({-1, 1, 1});
      const at::Tensor recalled = at::einsum("hkv,hk->hv", {memory, k[t]});
      const at::Tensor change = (v[t] - recalled) * write[t].unsqueeze(1);
      memory = memory + k[t].unsqueeze(2) * change.unsqueeze(1);
      outputs.push_back(at::einsum("hkv,hk->hv", {memory, q[t]}).reshape({1, size.values}));
    }
    after[r] = {memory, all.narrow(0, count, c.kernel - 1)};
  }
  return at::cat(outputs);
}

}  // namespace steer::model::detail
