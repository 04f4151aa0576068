// What steering costs: one hook point's pass by kind of edit, width, features, batch and distinct steerings; a dense
// encode beside it; and, with STEER_BENCH_MODEL=FOLDER, decode steps of a model with and without, in turn.
//   bench/steering --benchmark_out=steering.json --benchmark_out_format=json
// One core: OMP_NUM_THREADS=1. bench/peers/run_steering_pairs.py runs the decode lines beside a Python peer.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>

#include <steer/core/random.hpp>
#include <steer/core/threads.hpp>
#include <steer/model/session.hpp>
#include <steer/steering/steering.hpp>

#include "steering/kernels.hpp"
#include "steering/runtime.hpp"

namespace {

using namespace steer;

const HookPoint kPoint{Site::resid_post, 1};

/// An SAE of random rows; the decoder is the encoder's transpose and shares its memory.
Sae random_sae(std::int64_t width, std::int64_t features) {
  SaeConfig config;
  config.activation = SaeActivation::jumprelu;
  config.hook_in = config.hook_out = kPoint;
  SaeWeights w;
  w.W_dec = at::randn({features, width}).div_(std::sqrt(static_cast<double>(width)));
  w.W_enc = w.W_dec.t();
  w.b_enc = at::zeros({features});
  w.b_dec = at::zeros({width});
  w.threshold = at::full({features}, 0.1);
  return Sae::from_weights(config, w);
}

const Sae& sae_of(std::int64_t width) {
  static std::map<std::int64_t, Sae> saes;
  const auto known = saes.find(width);
  return known != saes.end() ? known->second : saes.emplace(width, random_sae(width, 4096)).first->second;
}

enum Kind { add, nudge, pin, clamp, project_out, rotate, gated_add, keep_norm };
constexpr const char* kKinds[] = {"add", "nudge", "pin", "clamp", "project_out", "rotate", "gated_add", "keep_norm"};

/// `count` edits of a kind on vectors or features of its own, chosen by `number`.
Steering steering_of(Kind kind, std::int64_t width, std::int64_t count, std::int64_t number) {
  const Sae& sae = sae_of(width);
  Steering s;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t feature = (number * count + i) * 3 % sae.d_sae(), other = (feature + 1) % sae.d_sae();
    const at::Tensor v = sae.W_dec()[feature], w = sae.W_dec()[other];
    switch (kind) {
      case add:
        s.add(v, kPoint, 0.1);
        break;
      case nudge:
        s.nudge(sae, feature, 0.1);
        break;
      case pin:
        s.pin(sae, feature, 0.5);
        break;
      case clamp:
        s.clamp(sae, feature, 0.2, 0.6);
        break;
      case project_out:
        s.project_out(v, kPoint);
        break;
      case rotate:
        s.rotate(v, w, kPoint, 0.1);
        break;
      case gated_add:
        s.gated_add(v, 0.1, w, kPoint, 0.1);
        break;
      case keep_norm:
        s.add(v, kPoint, 0.1).keep_norm(kPoint);
        break;
    }
  }
  return s;
}

/// A decode step's pass at one hook point: kind, width, features, batch, distinct steerings.
void pass(benchmark::State& state) {
  const auto kind = static_cast<Kind>(state.range(0));
  const std::int64_t width = state.range(1), count = state.range(2), batch = state.range(3), distinct = state.range(4);
  ModelConfig config;
  config.d_model = width;
  config.n_layers = 2;
  config.context = 4096;
  using steering::detail::CompiledSteering;
  std::vector<std::unique_ptr<CompiledSteering>> programs;
  for (std::int64_t i = 0; i < distinct; ++i)
    programs.push_back(std::make_unique<CompiledSteering>(config, std::nullopt, steering_of(kind, width, count, i)));
  std::vector<std::int64_t> ids(static_cast<std::size_t>(batch), 5);
  std::vector<TokenRun> runs;
  for (std::int64_t i = 0; i < batch; ++i)
    runs.push_back({static_cast<SequenceId>(i), i, i + 1, 100, 50, Phase::generated});
  std::vector<std::unique_ptr<InterventionMemory>> memories;
  std::vector<std::vector<IntervenedRun>> groups(programs.size());
  for (std::size_t i = 0; i < runs.size(); ++i) {
    memories.push_back(programs[i % programs.size()]->start());
    groups[i % programs.size()].push_back({&runs[i], memories.back().get()});
  }
  const BatchView view{ids, runs};
  at::Tensor h = at::randn({batch, width});
  const at::Tensor start = h.clone();
  std::int64_t calls = 0;
  for (auto _ : state) {
    HookContext at{kPoint, h, view};
    for (std::size_t i = 0; i < programs.size(); ++i) programs[i]->run(at, groups[i]);
    // Additions grow without bound; begin again now and then, at no cost that shows.
    if (++calls % 4096 == 0) h.copy_(start);
  }
  state.SetLabel(kKinds[kind]);
  state.counters["us_per_token"] = benchmark::Counter(
      static_cast<double>(batch) * 1e-6, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
void grid(benchmark::internal::Benchmark* b) {
  b->ArgNames({"kind", "d", "features", "batch", "distinct"})->Unit(benchmark::kMicrosecond)->MinTime(0.05);
  for (int kind : {add, nudge, pin, clamp, project_out, rotate, gated_add, keep_norm})
    for (int width : {256, 768, 2048, 4096})
      for (int features : {1, 3, 16})
        for (int batch : {1, 16, 64})
          for (int distinct : {1, 16, 64})
            if (distinct <= batch) b->Args({kind, width, features, batch, distinct});
}
BENCHMARK(pass)->Apply(grid);

/// One token through all features of an SAE of Llama-8B's shapes: 1 GiB of encoder.
void dense_encode(benchmark::State& state) {
  const Sae sae = random_sae(4096, 65536);
  const at::Tensor x = at::randn({1, 4096});
  for (auto _ : state) benchmark::DoNotOptimize(sae.encode(x));
}
BENCHMARK(dense_encode)->Unit(benchmark::kMicrosecond)->MinTime(1);

/// The arithmetic of the pass alone, by its own kernel and with nothing around it: to every row of [64, d] one shared
/// vector (distinct 1) or one of its own (64). What 64 cost more here is the price of reading them.
void add_rows(benchmark::State& state) {
  const std::int64_t width = state.range(0), distinct = state.range(1), batch = 64;
  at::Tensor h = at::randn({batch, width}), vectors = at::randn({distinct, width});
  float* rows = h.data_ptr<float>();
  float sign = 1;
  for (auto _ : state) {
    for (std::int64_t r = 0; r < batch; ++r) {
      const float* v = vectors.const_data_ptr<float>() + r % distinct * width;
      steering::detail::kernels().add_scaled(rows + r * width, &v, &sign, 1, width);
    }
    sign = -sign;
  }
  state.counters["us_per_token"] = benchmark::Counter(
      static_cast<double>(batch) * 1e-6, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(add_rows)->ArgNames({"d", "distinct"})->ArgsProduct({{256, 768, 2048, 4096}, {1, 64}})->MinTime(0.2);

enum Mode { plain, nudge_3, pin_3, nudge_3_shared, nudge_3_own };
constexpr const char* kModes[] = {"plain", "nudge 3", "pin 3", "nudge 3, one for all rows",
                                  "nudge 3, each row its own"};

/// A batch of sequences that decode in one mode, in a session of their own, steered in the middle layer.
class Decoder {
 public:
  Decoder(const Model& model, Mode mode, std::int64_t batch)
      : batch_(batch), session_(model), rows_(rows(model.config(), mode, batch)) {
    restart();
  }

  /// Another token for every sequence. Lengths go round between the prompt's and kLongest.
  void step() {
    std::vector<StepInput> inputs;
    for (const SequenceId s : sequences_) inputs.push_back({s, next_, Phase::generated});
    benchmark::DoNotOptimize(session_.step(inputs));
  }
  bool is_long() const { return session_.length(sequences_.front()) >= kLongest; }

  void restart() {
    for (const SequenceId s : sequences_) session_.close(s);
    sequences_.clear();
    const std::vector<std::int64_t> prompt(32, 7);
    for (std::int64_t r = 0; r < batch_; ++r) {
      const Steering& steering = rows_[static_cast<std::size_t>(r)];
      sequences_.push_back(r == 0 ? session_.open({.steering = steering})
                                  : session_.fork(sequences_.front(), {.steering = steering}));
      if (r == 0) session_.step({{sequences_.front(), prompt, Phase::prompt}}, Logits::none);
    }
  }

 private:
  static constexpr std::int64_t kLongest = 160;

  static std::vector<Steering> rows(const ModelConfig& config, Mode mode, std::int64_t batch) {
    EditOptions options;
    options.point = HookPoint{Site::resid_post, config.n_layers / 2};
    std::vector<Steering> rows;
    for (std::int64_t r = 0; r < batch; ++r) {
      Steering s;
      for (std::int64_t i = 0; i < 3 && mode != plain; ++i) {
        const std::int64_t feature = 7 * i + (mode == nudge_3_own ? 21 * r : 0);
        if (mode == pin_3)
          s.pin(sae_of(config.d_model), feature, 0.5, options);
        else
          s.nudge(sae_of(config.d_model), feature, 0.1, options);
      }
      rows.push_back(s);
    }
    return rows;
  }

  std::int64_t batch_;
  Session session_;
  std::vector<Steering> rows_;
  std::vector<SequenceId> sequences_;
  std::vector<std::int64_t> next_{9};
};

/// Decode steps of two modes in turn, one step each: the median and the quartiles of what the second costs over the
/// first.
void decode_pairs(benchmark::State& state) {
  const char* folder = std::getenv("STEER_BENCH_MODEL");
  if (!folder) {
    state.SkipWithError("set STEER_BENCH_MODEL to a model's folder");
    return;
  }
  static const Model model = Model::load(folder);
  const auto first = static_cast<Mode>(state.range(0)), second = static_cast<Mode>(state.range(1));
  Decoder a(model, first, state.range(2)), b(model, second, state.range(2));
  const auto seconds = [](Decoder& decoder) {
    const auto start = std::chrono::steady_clock::now();
    decoder.step();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  std::vector<double> plain_us, over_us, over_percent;
  for (auto _ : state) {
    state.PauseTiming();
    if (a.is_long()) a.restart(), b.restart();
    state.ResumeTiming();
    // Which one goes first alternates too.
    const bool swap = plain_us.size() % 2;
    double of_b = swap ? seconds(b) : 0;
    const double of_a = seconds(a);
    if (!swap) of_b = seconds(b);
    plain_us.push_back(1e6 * of_a);
    over_us.push_back(1e6 * (of_b - of_a));
    over_percent.push_back(100 * (of_b / of_a - 1));
  }
  const auto quantile = [](std::vector<double> values, double q) {
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1))];
  };
  state.SetLabel(fmt::format("{} over {}", kModes[second], kModes[first]));
  state.counters["step_us"] = quantile(plain_us, 0.5);
  state.counters["over_us"] = quantile(over_us, 0.5);
  state.counters["over_percent"] = quantile(over_percent, 0.5);
  state.counters["low_percent"] = quantile(over_percent, 0.25);
  state.counters["high_percent"] = quantile(over_percent, 0.75);
}
BENCHMARK(decode_pairs)
    ->ArgNames({"first", "second", "batch"})
    ->Args({plain, plain, 1})
    ->Args({plain, nudge_3, 1})
    ->Args({plain, pin_3, 1})
    ->Args({nudge_3_shared, nudge_3_own, 64})
    ->Unit(benchmark::kMicrosecond)
    ->MinTime(6);

}  // namespace

BENCHMARK_MAIN();
