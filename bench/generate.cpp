// What the engine costs over the passes it makes: rows that generate, and the same passes by hand in turn.
//   STEER_BENCH_MODEL=FOLDER bench/generate
// A folder: bench/peers/make_llama.py. Rows ignore ends, so every run makes the same passes.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <vector>

#include <steer/core/random.hpp>
#include <steer/generate/generate.hpp>

namespace {

using namespace steer;

const Model* model() {
  static const char* const folder = std::getenv("STEER_BENCH_MODEL");
  if (!folder) return nullptr;
  static const Model loaded = Model::load(folder);
  return &loaded;
}

std::vector<GenerateRequest> requests_of(std::int64_t rows, std::int64_t prompt) {
  Rng rng(1);
  std::vector<GenerateRequest> requests(static_cast<std::size_t>(rows));
  for (auto& request : requests)
    for (std::int64_t i = 0; i < prompt; ++i) request.ids.push_back(static_cast<std::int64_t>(rng.below(30000)) + 3);
  return requests;
}

/// Passes as a program would write them that knows its rows: prompts, then a token each, the likeliest.
void by_hand(const Model& m, std::span<const GenerateRequest> requests, std::int64_t tokens) {
  Session session(m, {.batch_invariant = true});
  std::vector<StepInput> inputs;
  std::vector<SequenceId> sequences;
  for (const auto& request : requests) {
    sequences.push_back(session.open());
    inputs.push_back({sequences.back(), request.ids, Phase::prompt});
  }
  at::Tensor logits = session.step(inputs);
  std::vector<std::int64_t> next(requests.size());
  for (std::int64_t t = 1; t < tokens; ++t) {
    inputs.clear();
    for (std::size_t r = 0; r < requests.size(); ++r) {
      const float* row = logits.const_data_ptr<float>() + static_cast<std::int64_t>(r) * logits.size(1);
      next[r] = std::max_element(row, row + logits.size(1)) - row;
      inputs.push_back({sequences[r], std::span(&next[r], 1), Phase::generated});
    }
    logits = session.step(inputs);
  }
}

double seconds(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void generate_rows(benchmark::State& state) {
  if (!model()) return state.SkipWithError("set STEER_BENCH_MODEL to a model's folder");
  const std::int64_t rows = state.range(0), tokens = 32;
  const auto requests = requests_of(rows, state.range(1));
  GenerateOptions options{.max_tokens = tokens, .ignore_eos = true};
  if (state.range(2)) options.sampling = {.temperature = 0.8, .top_p = 0.9};
  std::vector<double> engine, over;
  for (auto _ : state) {
    const bool swap = engine.size() % 2;
    double hand = swap ? seconds([&] { by_hand(*model(), requests, tokens); }) : 0;
    engine.push_back(seconds([&] { benchmark::DoNotOptimize(generate(*model(), requests, options)); }));
    if (!swap) hand = seconds([&] { by_hand(*model(), requests, tokens); });
    over.push_back(100 * (engine.back() / hand - 1));
  }
  const auto quantile = [](std::vector<double> values, double q) {
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1))];
  };
  state.counters["tokens_per_s"] = static_cast<double>(rows * tokens) / quantile(engine, 0.5);
  state.counters["over_percent"] = quantile(over, 0.5);
  state.counters["over_q1"] = quantile(over, 0.25);
  state.counters["over_q3"] = quantile(over, 0.75);
}
BENCHMARK(generate_rows)
    ->ArgNames({"rows", "prompt", "sampled"})
    ->ArgsProduct({{1, 8, 16}, {32}, {0, 1}})
    ->Unit(benchmark::kMillisecond)
    ->Iterations(9);

}  // namespace

BENCHMARK_MAIN();
