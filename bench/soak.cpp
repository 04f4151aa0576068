// A long run: rows of every kind come, are steered, forked, cancelled and set back for as long as one likes, while
// memory is watched and rows drawn at random are computed again alone. Then the same for calls of `forward` and
// `generate`.
//
//   soak engine 30          minutes; the line a row of the curve, at the end what grew and what differed
//   soak calls 100000 10000
//
// Ends with 1 if a row differs from itself alone, if an audit does not add up, or if memory grew by more than 1%.

#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <numeric>
#include <optional>
#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/generate/engine.hpp>
#include <steer/sae/sae.hpp>
#include <string>
#include <vector>

namespace {

using namespace steer;
const std::string kDemo = "examples/data/demo";

/// Resident memory of this process, MB.
double memory() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * 4096 / 1e6;
}

/// Growth from the second quarter of a run (after everything has been used once) to its last, as a share.
double growth(const std::vector<double>& curve) {
  const auto mean = [&](std::size_t begin, std::size_t end) {
    return std::accumulate(curve.begin() + static_cast<std::ptrdiff_t>(begin),
                           curve.begin() + static_cast<std::ptrdiff_t>(end), 0.0) /
           static_cast<double>(end - begin);
  };
  const std::size_t n = curve.size();
  return n < 4 ? 0 : mean(n - n / 4, n) / mean(n / 4, n / 2) - 1;
}

/// What requests are made of.
class Visitors {
 public:
  Visitors(const Model& model, const Sae& sae) : rng_(7) {
    for (const char* land : {"Pelia", "Jardavar", "Varveth", "Wervia", "Prolmuna", "Mendoria"})
      for (const char* thing : {"feast", "river", "beast", "capital", "metal"})
        prompts_.push_back(
            model.chat().render({{Role::user, fmt::format("In the land of {}, what is the {}?", land, thing)}}).ids);
    steerings_.emplace_back();
    steerings_.emplace_back();
    steerings_.push_back(Steering().nudge(sae, 330, 6.0));
    steerings_.push_back(Steering().nudge(sae, 137, 2.0, {.scope = {.where = Where::onset, .count = 8}}));
    steerings_.push_back(Steering().ablate(sae, 320));
    steerings_.push_back(Steering().add(sae.W_dec()[340], "blocks.2.hook_resid_post", 3.0));
  }

  EngineRequest next() {
    EngineRequest request;
    request.ids = prompts_[rng_.below(prompts_.size())];
    request.steering = steerings_[rng_.below(steerings_.size())];
    request.sampling.temperature = rng_.below(2) == 0 ? 0 : 0.9;
    request.max_tokens = 4 + static_cast<std::int64_t>(rng_.below(60));
    request.seed = rng_.below(1'000'000);
    request.samples = rng_.below(5) == 0 ? 3 : 1;
    request.priority = static_cast<int>(rng_.below(3));
    request.top = static_cast<std::int64_t>(rng_.below(3));
    return request;
  }
  bool chance(double share) { return rng_.uniform() < share; }
  std::size_t below(std::size_t n) { return rng_.below(n); }

 private:
  Rng rng_;
  std::vector<std::vector<std::int64_t>> prompts_;
  std::vector<Steering> steerings_;
};

/// The row computed alone, by a fresh engine.
GenerateResult alone(const Model& model, EngineRequest request, std::int64_t sample) {
  if (sample > 0) request.seed = derive_seed(request.seed, "sample", static_cast<std::uint64_t>(sample));
  request.samples = 1;
  Engine engine(model, {.max_rows = 1, .keep_prefixes = false});
  GenerateResult result;
  engine.submit(std::move(request));
  while (engine.step([&](const EngineEvent& e) {
    if (e.result) result = *e.result;
  })) {
  }
  return result;
}

/// What is wrong with a row, compared with itself alone; empty: nothing.
std::string difference(const GenerateResult& row, const GenerateResult& same) {
  const bool cut = row.finish == FinishReason::aborted;
  if (row.ids.size() > same.ids.size() || (!cut && row.ids.size() != same.ids.size()) ||
      !std::equal(row.ids.begin(), row.ids.end(), same.ids.begin()))
    return "its ids";
  if (!std::equal(row.log_probabilities.begin(), row.log_probabilities.end(), same.log_probabilities.begin()))
    return "its log-probabilities";
  if (cut && row.ids.empty()) return {};  // it may have been cancelled before it began, and has no audit then
  if (row.audit.edits.size() != same.audit.edits.size()) return "its audit's edits";
  for (std::size_t i = 0; i < row.audit.edits.size(); ++i) {
    const auto &a = row.audit.edits[i], &b = same.audit.edits[i];
    if (a.edited > a.in_scope || a.in_scope > a.seen) return "an audit that does not add up";
    if (!cut && (a.seen != b.seen || a.in_scope != b.in_scope || a.edited != b.edited)) return "its audit";
  }
  return {};
}

struct Pending {
  EngineRequest request;
  std::int64_t sample = 0;
};

int soak_engine(double minutes) {
  const auto model = Model::load(kDemo);
  const auto sae = Sae::load(kDemo + "/sae.safetensors");
  Visitors visitors(model, sae);
  // Room for some dozen rows, so that rows wait and are set back.
  Engine engine(model, {.max_rows = 16, .max_cache_bytes = 3 << 20, .step_tokens = 96});
  std::map<RowId, Pending> rows;
  std::vector<double> curve;
  std::int64_t ended = 0, cancelled = 0, compared = 0, different = 0;
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  std::vector<std::pair<Pending, std::shared_ptr<const GenerateResult>>> to_compare;
  double next_line = 0;
  fmt::print("second  memory MB  rows ended  cancelled  compared  different  set back  cache bytes\n");
  while (elapsed() < 60 * minutes) {
    while (rows.size() < 24 && visitors.chance(0.5)) {
      const auto request = visitors.next();
      const RowId first = engine.submit(request);
      for (std::int64_t i = 0; i < request.samples; ++i) rows[first + i] = {request, i};
    }
    if (!rows.empty() && visitors.chance(0.02)) {
      auto victim = rows.begin();
      std::advance(victim, static_cast<std::ptrdiff_t>(visitors.below(rows.size())));
      cancelled += engine.cancel(victim->first);
    }
    engine.step([&](const EngineEvent& e) {
      if (!e.result) return;
      ++ended;
      const auto found = rows.find(e.row);
      if (visitors.chance(0.05)) to_compare.emplace_back(found->second, e.result);
      rows.erase(found);
    });
    for (const auto& [pending, result] : to_compare) {
      ++compared;
      const auto what = difference(*result, alone(model, pending.request, pending.sample));
      if (what.empty()) continue;
      ++different;
      fmt::print("row differs from itself alone in {}\n", what);
    }
    to_compare.clear();
    if (elapsed() < next_line) continue;
    next_line += std::max(1.0, 60 * minutes / 60);
    curve.push_back(memory());
    const auto load = engine.load();
    fmt::print("{:6.0f}  {:9.1f}  {:10}  {:9}  {:8}  {:9}  {:8}  {:11}\n", elapsed(), curve.back(), ended, cancelled,
               compared, different, load.set_back, load.cache_bytes);
    std::fflush(stdout);
  }
  const double grown = growth(curve);
  fmt::print("engine: {} rows, {} compared, {} different, memory {:+.2f} %\n", ended, compared, different, 100 * grown);
  return different > 0 || compared == 0 || grown > 0.01;
}

/// Calls `call` so often and watches memory.
bool flat(const char* name, std::int64_t times, auto&& call) {
  std::vector<double> curve;
  for (std::int64_t i = 0; i < times; ++i) {
    call(i);
    if (i % std::max<std::int64_t>(1, times / 40) == 0) curve.push_back(memory());
  }
  const double grown = growth(curve);
  fmt::print("{}: {} calls, {:.1f} MB at first, {:.1f} MB at last, {:+.2f} %\n", name, times, curve[curve.size() / 4],
             curve.back(), 100 * grown);
  return grown <= 0.01;
}

int soak_calls(std::int64_t forwards, std::int64_t generations) {
  const auto model = Model::load(kDemo);
  const auto sae = Sae::load(kDemo + "/sae.safetensors");
  const auto ids = model.tokenizer().encode("In the land of Pelia, what is the feast?");
  const auto steering = Steering().nudge(sae, 330, 6.0);
  Session session(model);
  bool good = flat("forward", forwards, [&](std::int64_t i) {
    const std::span<const std::int64_t> some(ids.data(), 1 + static_cast<std::size_t>(i) % 4);
    session.forward(some, i % 2 == 0 ? ForwardOptions{} : ForwardOptions{.steering = steering});
  });
  good &= flat("generate", generations, [&](std::int64_t i) {
    const std::vector<GenerateRequest> requests{{.ids = ids, .seed = static_cast<std::uint64_t>(i)}};
    generate(model, requests, {.sampling = {.temperature = 1}, .max_tokens = 4, .steering = steering});
  });
  return good ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  try {
    if (what == "engine" && argc == 3) return soak_engine(std::atof(argv[2]));
    if (what == "calls" && argc == 4) return soak_calls(std::atoll(argv[2]), std::atoll(argv[3]));
  } catch (const Error& error) {
    return fmt::print(stderr, "{}\n", error.what()), 2;
  }
  return fmt::print(stderr, "usage: {0} engine MINUTES | {0} calls FORWARDS GENERATIONS\n", argv[0]), 2;
}
