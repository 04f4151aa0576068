// What steering costs: one hook point's pass by kind of edit, width, features, batch and distinct steerings; a dense
// encode beside it; and, with STEER_BENCH_MODEL=FOLDER, decode steps of a model with and without.
//   bench/steering --benchmark_out=steering.json --benchmark_out_format=json
// For the decode lines add --benchmark_filter=decode --benchmark_repetitions=9
// --benchmark_enable_random_interleaving=true, so that lines that are compared run in turn.
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdlib>
#include <map>

#include <steer/core/random.hpp>
#include <steer/core/threads.hpp>
#include <steer/steering/plan.hpp>

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
        s.gated_add(v, 0.1, w, 0.1, kPoint);
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
  std::vector<Steering> kinds, rows;
  for (std::int64_t i = 0; i < distinct; ++i) kinds.push_back(steering_of(kind, width, count, i));
  for (std::int64_t i = 0; i < batch; ++i) rows.push_back(kinds[i % distinct]);
  auto plan = SteeringPlan::compile(config, std::nullopt, rows);
  std::vector<std::int64_t> ids(batch, 5);
  std::vector<TokenRun> runs;
  for (std::int64_t i = 0; i < batch; ++i) {
    plan.bind(static_cast<SequenceId>(i), i);
    runs.push_back({static_cast<SequenceId>(i), i, i + 1, 100, 50, Phase::generated});
  }
  const BatchView view{ids, runs};
  at::Tensor h = at::randn({batch, width});
  const at::Tensor start = h.clone();
  std::int64_t calls = 0;
  for (auto _ : state) {
    HookContext at{kPoint, h, view};
    plan.apply(at);
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

/// Decode steps of a model: 0 plain, 1 nudge of three features at one layer, 2 pin of three; and the batch. With 3 and
/// 4 the batch shares one nudge, or every row has its own.
void decode(benchmark::State& state) {
  const char* folder = std::getenv("STEER_BENCH_MODEL");
  if (!folder) {
    state.SkipWithError("set STEER_BENCH_MODEL to a model's folder");
    return;
  }
  static const Model model = Model::load(folder);
  const std::int64_t mode = state.range(0), batch = state.range(1), width = model.config().d_model;
  EditOptions options;
  options.point = HookPoint{Site::resid_post, model.config().n_layers / 2};
  std::vector<Steering> rows;
  for (std::int64_t r = 0; r < batch; ++r) {
    Steering s;
    for (std::int64_t i = 0; i < 3 && mode > 0; ++i) {
      const std::int64_t feature = 7 * i + (mode == 4 ? 21 * r : 0);
      if (mode == 2)
        s.pin(sae_of(width), feature, 0.5, options);
      else
        s.nudge(sae_of(width), feature, 0.1, options);
    }
    rows.push_back(s);
  }
  Session session(model);
  auto plan = SteeringPlan::compile(model, rows);
  const auto hooks = plan.attach(session);
  const std::vector<std::int64_t> prompt(32, 7);
  constexpr std::int64_t kLongest = 160;  // all lines see the same lengths
  std::vector<SequenceId> sequences;
  const auto restart = [&] {
    for (const SequenceId s : sequences) session.close(s);
    sequences.clear();
    for (std::int64_t r = 0; r < batch; ++r) {
      sequences.push_back(r == 0 ? session.open() : session.fork(sequences.front()));
      if (r == 0) session.step({{sequences.front(), prompt, Phase::prompt}}, Logits::none);
      plan.bind(sequences.back(), r);
    }
  };
  restart();
  const std::vector<std::int64_t> next{9};
  for (auto _ : state) {
    if (session.length(sequences.front()) >= kLongest) {
      state.PauseTiming();
      restart();
      state.ResumeTiming();
    }
    std::vector<StepInput> inputs;
    for (const SequenceId s : sequences) inputs.push_back({s, next, Phase::generated});
    benchmark::DoNotOptimize(session.step(inputs));
  }
  constexpr const char* kModes[] = {"plain", "nudge 3", "pin 3", "nudge 3, shared", "nudge 3, each its own"};
  state.SetLabel(kModes[mode]);
}
BENCHMARK(decode)
    ->ArgNames({"mode", "batch"})
    ->Args({0, 1})
    ->Args({1, 1})
    ->Args({2, 1})
    ->Args({3, 64})
    ->Args({4, 64})
    ->Unit(benchmark::kMicrosecond)
    ->MinTime(1);

}  // namespace

BENCHMARK_MAIN();
