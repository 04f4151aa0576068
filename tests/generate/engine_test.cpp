// Rows of an engine against each row alone: to the bit, whenever they come, whoever is there, whatever is cancelled or
// set back meanwhile.
#include <ATen/ops/tensor.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include <steer/core/random.hpp>
#include <steer/generate/engine.hpp>

#include "generate/device_draws.hpp"
#include "model/tiny_models.hpp"
#include "support.hpp"

namespace steer {
namespace {

using test::some_ids;

/// What one row gives alone, by `generate`.
GenerateResult alone(const Model& model, const EngineRequest& r) {
  const GenerateRequest request{.ids = r.ids, .steering = r.steering, .seed = r.seed};
  return generate(model, {&request, 1}, {.sampling = r.sampling, .max_tokens = r.max_tokens, .stop_ids = r.stop_ids})
      .front();
}

bool same(const GenerateResult& a, const GenerateResult& b) {
  if (a.audit.edits.size() != b.audit.edits.size()) return false;
  for (std::size_t i = 0; i < a.audit.edits.size(); ++i) {
    const EditAudit &x = a.audit.edits[i], &y = b.audit.edits[i];
    if (x.seen != y.seen || x.in_scope != y.in_scope || x.edited != y.edited || x.max_change != y.max_change ||
        std::abs(x.mean_change - y.mean_change) > 1e-9)
      return false;
  }
  return a.ids == b.ids && a.log_probabilities == b.log_probabilities && a.finish == b.finish;
}

at::Tensor direction(std::int64_t seed, std::int64_t width = 32) {
  const auto ids = some_ids(width, seed);
  return at::tensor(ids).to(at::kFloat) / 97 - 0.5;
}

/// Random requests: prompts that share beginnings or not, greedy and sampled, steered in many ways or not.
EngineRequest random_request(const ModelConfig& config, Rng& rng, std::uint64_t seed) {
  const auto pick = [&](std::uint64_t n) { return static_cast<std::int64_t>(rng.below(n)); };
  const auto vector = [&](std::int64_t i) { return direction(i, config.d_model); };
  const auto after = [&](std::int64_t layer) {
    return HookPoint{Site::resid_post, std::min(layer, config.n_layers - 1)};
  };
  EngineRequest r;
  r.ids = some_ids(1 + pick(40), pick(5));
  const auto tail = some_ids(pick(8), pick(90));
  r.ids.insert(r.ids.end(), tail.begin(), tail.end());
  r.max_tokens = 1 + pick(24);
  r.seed = seed;
  if (pick(2)) r.sampling = {.temperature = 0.9, .top_p = 0.95, .repetition_penalty = pick(3) ? 1.0 : 1.2};
  if (pick(3) == 0) r.stop_ids = {pick(97)};
  r.priority = pick(4) == 0 ? 1 : 0;
  switch (pick(10)) {
    case 0:
      r.steering.add(vector(3), after(1), 2.0);
      break;
    case 1:
      r.steering.add(vector(4), after(0), -1.0, {.scope = {.where = Where::generated}});
      break;
    case 2:
      r.steering.add(vector(5), HookPoint{Site::resid_pre, config.n_layers - 1}, 1.5,
                     {.scope = {.where = Where::prompt}});
      break;
    case 3:
      r.steering.add(vector(6), after(1), 2.0, {.when = Condition::entropy_between(0, 3)});
      break;
    case 4:
      r.steering.add(vector(7), after(2), 2.0, {.when = Condition::probe_above(vector(8), 0.1, {.point = after(1)})});
      r.steering.abort_when(Condition::entropy_between(4.2, 5), "too unsure");
      break;
    case 5:
      r.steering.add(vector(9), after(1), 2.0, {.scope = {.where = Where::from_last}});
      break;
    case 6:
      r.steering.add(vector(9), after(0), 2.0, {.scope = {.where = Where::span, .begin = -4, .end = -1}});
      break;
    default:
      break;
  }
  return r;
}

struct Traffic {
  std::int64_t rows = 500;
  EngineOptions engine;
  double arrivals = 3;  ///< a step
  double cancelled = 0.1;
};

/// Submits and cancels at random; compares whatever runs to its end.
Engine::Load run_traffic(const Model& model, const Traffic& traffic, std::uint64_t seed, test::CaseCounter& counter) {
  Engine engine(model, traffic.engine);
  Rng rng(seed);
  std::map<RowId, EngineRequest> requests;
  std::map<RowId, std::vector<std::int64_t>> streamed;
  std::set<RowId> open, cancelled;
  const auto on_event = [&](const EngineEvent& e) {
    EXPECT_TRUE(open.contains(e.row)) << "an event after the last";
    if (e.id >= 0) streamed[e.row].push_back(e.id);
    if (!e.result) return;
    open.erase(e.row);
    const GenerateResult whole = alone(model, requests.at(e.row));
    if (cancelled.contains(e.row)) {
      const bool prefix = e.result->finish == FinishReason::aborted && e.result->ids.size() <= whole.ids.size() &&
                          std::equal(e.result->ids.begin(), e.result->ids.end(), whole.ids.begin()) &&
                          streamed[e.row] == e.result->ids;
      counter.count(prefix);
      EXPECT_TRUE(prefix) << "cancelled row " << e.row;
      return;
    }
    const bool equal = same(*e.result, whole) && streamed[e.row] == e.result->ids;
    counter.count(equal);
    EXPECT_TRUE(equal) << "row " << e.row << " of traffic " << seed;
  };
  std::int64_t submitted = 0;
  bool left = true;
  while (left || submitted < traffic.rows) {
    for (auto n = static_cast<std::int64_t>(rng.uniform() * 2 * traffic.arrivals); n > 0 && submitted < traffic.rows;
         --n) {
      const EngineRequest request = random_request(model.config(), rng, static_cast<std::uint64_t>(submitted));
      const RowId id = engine.submit(request);
      requests.emplace(id, request);
      open.insert(id);
      ++submitted;
    }
    if (!open.empty() && rng.uniform() < traffic.cancelled) {
      const RowId victim = *std::next(open.begin(), static_cast<std::ptrdiff_t>(rng.below(open.size())));
      EXPECT_TRUE(engine.cancel(victim));
      cancelled.insert(victim);
    }
    left = engine.step(on_event);
  }
  EXPECT_TRUE(open.empty());
  EXPECT_EQ(engine.load().running, 0);
  EXPECT_EQ(engine.load().waiting, 0);
  return engine.load();
}

TEST(EngineRows, EqualTheRowAloneInAnyCompany) {
  test::CaseCounter counter("engine");
  const Model llama = test::tiny_model("llama").load();
  run_traffic(llama, {.rows = 500}, 1, counter);
}

TEST(EngineRows, EqualTheRowAloneWhenTheCacheIsShort) {
  test::CaseCounter counter("engine");
  for (const auto* family : {"gemma3_text", "gpt2"}) {
    const Model model = test::tiny_model(family).load();
    Session probe(model);
    const SequenceId empty = probe.open();
    const std::int64_t bytes = 4 * probe.cache_bytes(empty, 80);
    const auto load = run_traffic(
        model, {.rows = 120, .engine = {.max_rows = 16, .max_cache_bytes = bytes, .step_tokens = 24}}, 2, counter);
    EXPECT_GT(load.set_back, 0) << "the cache was never short";
    EXPECT_LE(load.cache_bytes, bytes);
  }
}

TEST(EngineRows, EqualTheRowAloneWithoutSharing) {
  test::CaseCounter counter("engine");
  run_traffic(test::tiny_model("qwen3").load(),
              {.rows = 60, .engine = {.max_rows = 7, .step_tokens = 5, .keep_prefixes = false}}, 3, counter);
}

/// Mixtures of experts, layers that keep a state, ropes that depend on the length and the rest.
TEST(EngineRows, EqualTheRowAloneInEveryFamily) {
  const auto data = test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden");
  if (!data.present && !data.named)
    GTEST_SKIP() << "no golden models at " << data.path << " (STEER_GOLDEN_DIR names them)";
  test::CaseCounter counter("engine");
  std::vector<std::filesystem::path> folders;
  for (const auto& root : {data.path / "models", data.path / "families", data.path})
    if (std::filesystem::is_directory(root))
      for (const auto& entry : std::filesystem::directory_iterator(root))
        if (std::filesystem::exists(entry.path() / "golden.safetensors") &&
            std::filesystem::exists(entry.path() / "config.json"))
          folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  for (const auto& folder : folders) {
    SCOPED_TRACE(folder.filename().string());
    const Model model = Model::load(folder);
    Session probe(model);
    const std::int64_t bytes = 4 * probe.cache_bytes(probe.open(), 80);
    run_traffic(model, {.rows = 40, .engine = {.max_rows = 12, .max_cache_bytes = bytes, .step_tokens = 24}}, 4,
                counter);
  }
  if (data.named) {
    EXPECT_FALSE(folders.empty()) << "no case in " << data.path;
  }
}

/// Rows whose logits stay where they are: the same rows, whoever is drawn beside them, but where a number picks one of
/// all tokens; and who wants to see logits sees them.
TEST(Engine, DrawsWhereTheLogitsAre) {
  struct OnDevice {
    OnDevice() { generation::detail::draws_on_device_for_testing = true; }
    ~OnDevice() { generation::detail::draws_on_device_for_testing = false; }
  };
  const Model model = test::tiny_model("qwen3").load();
  const std::vector<SamplingOptions> samplings = {{.repetition_penalty = 1.1},
                                                  {.temperature = 0.8, .top_p = 0.9, .repetition_penalty = 1.1},
                                                  {.temperature = 1.2, .top_k = 20, .presence_penalty = 0.5},
                                                  {.temperature = 1}};
  std::vector<EngineRequest> requests;
  for (std::int64_t i = 0; i < 8; ++i)
    requests.push_back({.ids = some_ids(9 + i, i),
                        .sampling = samplings[static_cast<std::size_t>(i % 4)],
                        .max_tokens = 12,
                        .seed = static_cast<std::uint64_t>(i)});
  const auto run = [&](std::vector<EngineRequest> some) {
    std::map<RowId, GenerateResult> results;
    Engine engine(model);
    std::vector<RowId> ids;
    for (auto& request : some) ids.push_back(engine.submit(std::move(request)));
    for (bool left = true; left;)
      left = engine.step([&](const EngineEvent& e) {
        if (e.result) results[e.row] = *e.result;
      });
    std::vector<GenerateResult> out;
    for (const RowId id : ids) out.push_back(results.at(id));
    return out;
  };
  const auto host = run(requests);
  const OnDevice on_device;
  const auto device = run(requests);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const GenerateResult own = run({requests[i]}).front();
    EXPECT_EQ(own.ids, device[i].ids) << i;
    EXPECT_EQ(device[i].ids.size(), 12u) << i;
    if (i % 4 == 3) {
      EXPECT_NE(device[i].ids, host[i].ids) << i << ": were they drawn on the host?";
      continue;
    }
    EXPECT_EQ(device[i].ids, host[i].ids) << i;
    for (std::size_t t = 0; t < 12; ++t)
      EXPECT_NEAR(device[i].log_probabilities[t], host[i].log_probabilities[t], 1e-5) << i << " " << t;
  }
  EngineRequest with_top = requests[4];
  with_top.top = 3;
  const GenerateResult ranked = run({with_top, requests[0]}).front();
  EXPECT_EQ(ranked.top.size(), 12u);
  for (const auto& tokens : ranked.top) EXPECT_EQ(tokens.size(), 3u);
  EngineRequest curious = requests[2];
  std::int64_t seen = 0;
  curious.on_logits = [&](const auto& at) { seen += std::ssize(at.logits) == model.config().vocab_size; };
  const GenerateResult told = run({curious, requests[0]}).front();
  EXPECT_EQ(seen, 12);
  EXPECT_EQ(told.ids, host[2].ids);
}

TEST(Engine, SamplesForkTheirPrompt) {
  const Model model = test::tiny_model("llama").load();
  for (const bool steered : {false, true}) {
    Engine engine(model, {.max_rows = 3});
    EngineRequest request{
        .ids = some_ids(60), .sampling = {.temperature = 1}, .max_tokens = 10, .seed = 9, .samples = 4};
    if (steered)
      request.steering.add(
          direction(3), "blocks.1.hook_resid_post", 2.0,
          {.when = Condition::probe_above(direction(8), 0.1, {.point = HookPoint{Site::resid_post, 1}})});
    const RowId first = engine.submit(request);
    std::map<RowId, GenerateResult> results;
    while (engine.step([&](const EngineEvent& e) {
      if (e.result) results.emplace(e.row, *e.result);
    })) {
    }
    ASSERT_EQ(results.size(), 4u);
    for (std::uint64_t i = 0; i < 4; ++i) {
      EngineRequest one = request;
      one.seed = i == 0 ? 9 : derive_seed(9, "sample", i);
      EXPECT_TRUE(same(results.at(first + static_cast<RowId>(i)), alone(model, one))) << i;
    }
    EXPECT_NE(results.at(first).ids, results.at(first + 1).ids);
    // Three rows fit at once. The fourth begins when one has ended, from the kept prompt if that may be cut by a token.
    EXPECT_EQ(engine.load().prompt_tokens, steered ? 120 : 61);
    EXPECT_EQ(engine.load().shared_tokens, steered ? 120 : 179);
  }
}

/// A prompt that continues another one, both under the same steering of the prompt: a chat's next turn.
TEST(Engine, SteeredPrefixesAreSharedUnderTheSameSteeringOnly) {
  const Model model = test::tiny_model("llama").load();
  Engine engine(model);
  EngineRequest request{.ids = some_ids(40), .max_tokens = 3};
  request.steering.add(direction(3), "blocks.1.hook_resid_post", 2.0);
  const auto run = [&](const EngineRequest& r) {
    GenerateResult result;
    engine.submit(r);
    while (engine.step([&](const EngineEvent& e) {
      if (e.result) result = *e.result;
    })) {
    }
    EXPECT_TRUE(same(result, alone(model, r)));
  };
  run(request);
  const auto more = some_ids(10, 5);
  request.ids.insert(request.ids.end(), more.begin(), more.end());
  run(request);
  EXPECT_EQ(engine.load().shared_tokens, 40);
  request.steering = {};
  run(request);
  EXPECT_EQ(engine.load().shared_tokens, 40) << "an unsteered row shares nothing with steered ones";
}

TEST(Engine, HigherPriorityGoesFirst) {
  const Model model = test::tiny_model("llama").load();
  Engine engine(model, {.max_rows = 2});
  std::vector<RowId> ended;
  const auto note = [&](const EngineEvent& e) {
    if (e.result) ended.push_back(e.row);
  };
  const auto submit = [&](int priority, std::int64_t seed) {
    return engine.submit({.ids = some_ids(5, seed), .max_tokens = 6, .priority = priority});
  };
  const RowId a = submit(0, 1), b = submit(0, 2), c = submit(0, 3);
  engine.step(note);
  const RowId urgent = submit(1, 4);
  while (engine.step(note)) {
  }
  EXPECT_EQ(ended, (std::vector<RowId>{a, urgent, b, c}));
  EXPECT_EQ(engine.load().set_back, 1);
}

TEST(Engine, LongPromptsDoNotHoldUpRowsThatGenerate) {
  const Model model = test::tiny_model("llama").load();
  Engine engine(model, {.step_tokens = 8});
  const RowId talking = engine.submit({.ids = some_ids(3), .max_tokens = 40});
  engine.step();
  const RowId reading = engine.submit({.ids = some_ids(90, 2), .max_tokens = 1});
  int steps = 0, tokens = 0;
  bool read = false;
  while (!read) {
    ++steps;
    engine.step([&](const EngineEvent& e) {
      tokens += e.row == talking && e.id >= 0;
      read |= e.row == reading;
    });
  }
  EXPECT_EQ(steps, 13) << "90 tokens, 7 a step";
  EXPECT_EQ(tokens, steps);
}

TEST(Engine, RowsMayComeAndGoWithinACallback) {
  const Model model = test::tiny_model("llama").load();
  Engine engine(model);
  const RowId first = engine.submit({.ids = some_ids(4), .max_tokens = 20}),
              other = engine.submit({.ids = some_ids(6), .max_tokens = 20});
  std::shared_ptr<const GenerateResult> stopped;
  RowId late = -1;
  std::map<RowId, int> tokens;
  while (engine.step([&](const EngineEvent& e) {
    EXPECT_FALSE(stopped && e.row == first) << "an event after the last";
    if (e.id >= 0) ++tokens[e.row];
    if (e.row == first && e.id >= 0 && tokens[first] == 3) {
      EXPECT_TRUE(engine.cancel(first, "enough"));
      late = engine.submit({.ids = some_ids(5), .max_tokens = 2});
    }
    if (e.row == first && e.result) {
      stopped = e.result;
      EXPECT_FALSE(engine.cancel(first)) << "it has ended";
    }
  })) {
  }
  ASSERT_TRUE(stopped);
  EXPECT_EQ(stopped->finish, FinishReason::aborted);
  EXPECT_EQ(stopped->abort_reason, "enough");
  EXPECT_EQ(stopped->ids.size(), 3u);
  EXPECT_EQ(tokens[other], 20);
  EXPECT_EQ(tokens[late], 2);
  EXPECT_FALSE(engine.cancel(other));
}

TEST(Engine, GoesOnAfterACallbackThatThrows) {
  const Model model = test::tiny_model("llama").load();
  Engine engine(model);
  std::map<RowId, EngineRequest> requests;
  for (std::int64_t i = 0; i < 5; ++i) {
    const EngineRequest request{.ids = some_ids(9 + i, i), .max_tokens = 8};
    requests.emplace(engine.submit(request), request);
  }
  std::map<RowId, std::vector<std::int64_t>> streamed;
  std::map<RowId, GenerateResult> results;
  int events = 0;
  for (bool left = true; left;) {
    try {
      left = engine.step([&](const EngineEvent& e) {
        if (e.id >= 0) streamed[e.row].push_back(e.id);
        if (e.result) results.emplace(e.row, *e.result);
        if (++events % 7 == 0) throw std::runtime_error("no");
      });
    } catch (const std::runtime_error&) {
    }
  }
  ASSERT_EQ(results.size(), 5u);
  for (const auto& [id, request] : requests) {
    EXPECT_EQ(streamed[id], alone(model, request).ids) << id;
    EXPECT_TRUE(same(results.at(id), alone(model, request))) << id;
  }
}

/// The callback throws between two samples that just forked: the second has no logits left, and computes them again.
TEST(Engine, SamplesGoOnAfterACallbackThatThrows) {
  const Model model = test::tiny_model("llama").load();
  Engine engine(model);
  const EngineRequest request{.ids = some_ids(20), .sampling = {.temperature = 1}, .max_tokens = 5, .samples = 3};
  const RowId first = engine.submit(request);
  EXPECT_THROW(engine.step([](const EngineEvent&) { throw std::runtime_error("no"); }), std::runtime_error);
  std::map<RowId, GenerateResult> results;
  for (int steps = 0; steps < 20; ++steps)
    engine.step([&](const EngineEvent& e) {
      if (e.result) results.emplace(e.row, *e.result);
    });
  ASSERT_EQ(results.size(), 3u);
  for (std::uint64_t i = 0; i < 3; ++i) {
    EngineRequest one = request;
    if (i > 0) one.seed = derive_seed(0, "sample", i);
    EXPECT_TRUE(same(results.at(first + static_cast<RowId>(i)), alone(model, one))) << i;
  }
}

TEST(Engine, RefusesWhatItCannotDo) {
  const Model model = test::tiny_model("llama").load();
  EXPECT_STEER_ERROR(Engine(model, {.max_rows = 0}), ErrorCode::argument, "max_rows");
  Engine engine(model, {.max_cache_bytes = 40000});
  EXPECT_STEER_ERROR(engine.submit({.ids = {}}), ErrorCode::argument, "at least one token");
  EXPECT_STEER_ERROR(engine.submit({.ids = {97}}), ErrorCode::argument, "97");
  EXPECT_STEER_ERROR(engine.submit({.ids = some_ids(128)}), ErrorCode::shape, "context of 128");
  EXPECT_STEER_ERROR(engine.submit({.ids = {1}, .samples = 0}), ErrorCode::argument, "sample");
  EXPECT_STEER_ERROR(engine.submit({.ids = some_ids(100)}), ErrorCode::argument, "max_cache_bytes");
  EXPECT_FALSE(engine.step());
  EXPECT_FALSE(engine.cancel(0));
}

}  // namespace
}  // namespace steer
