// What one request of an engine may ask for, and what other threads may do with it.
#include <ATen/Context.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <future>
#include <map>
#include <thread>

#include <steer/core/random.hpp>
#include <steer/generate/engine_loop.hpp>
#include <steer/generate/score.hpp>

#include "generate/misplaced.hpp"
#include "model/tiny_models.hpp"
#include "sanitized.hpp"
#include "support.hpp"

namespace steer {
namespace {

using test::some_ids;

using Results = std::map<RowId, GenerateResult>;

Results run(Engine& engine, const EngineEventFunction& on_event = {}) {
  Results results;
  while (engine.step([&](const EngineEvent& e) {
    if (on_event) on_event(e);
    if (e.result) results.emplace(e.row, *e.result);
  })) {
  }
  return results;
}

GenerateResult run_one(const Model& model, EngineRequest request, const EngineOptions& options = {}) {
  Engine engine(model, options);
  engine.submit(std::move(request));
  return run(engine).at(0);
}

at::Tensor direction(std::int64_t seed, std::int64_t width = 32) {
  return at::tensor(some_ids(width, seed)).to(at::kFloat) / 97 - 0.5;
}

Steering push(double strength, const Scope& scope = {}) {
  return Steering().add(direction(3), "blocks.1.hook_resid_post", strength, {.scope = scope});
}

/// Greedy generation as OpenAI's definition reads, a token at a time.
TEST(EngineRequests, BiasAndPenaltiesAreTheDefinitions) {
  const Model model = test::tiny_model("llama").load();
  const auto prompt = some_ids(9);
  struct Case {
    double presence, frequency;
    std::vector<std::pair<std::int64_t, double>> bias;
  };
  for (const Case& c : {Case{0, 0, {}}, Case{3, 0, {}}, Case{0, 1.5, {}}, Case{1, 0.7, {{11, 2.5}, {12, -4}}},
                        Case{0, 0, {{20, -INFINITY}, {21, 100}}}}) {
    const auto got = run_one(
        model, {.ids = prompt,
                .sampling = {.presence_penalty = c.presence, .frequency_penalty = c.frequency, .logit_bias = c.bias},
                .max_tokens = 20,
                .ignore_eos = true});
    Session session(model, {.batch_invariant = true});
    auto ids = prompt;
    std::map<std::int64_t, int> counts;
    for (std::size_t t = 0; t < 20; ++t) {
      const at::Tensor logits = session.forward(ids, {.logits = Logits::last})[0].to(at::kDouble);
      at::Tensor adjusted = logits.clone();
      for (const auto& [id, bias] : c.bias) adjusted[id] += bias;
      for (const auto& [id, count] : counts) adjusted[id] -= c.presence + c.frequency * count;
      const auto id = adjusted.argmax().item<std::int64_t>();
      ASSERT_EQ(got.ids[t], id) << "token " << t << " at penalties " << c.presence << ", " << c.frequency;
      EXPECT_NEAR(got.log_probabilities[t], at::log_softmax(logits, 0)[id].item<double>(), 1e-5);
      ids.push_back(id);
      ++counts[id];
    }
  }
}

TEST(EngineRequests, PromptsAreScoredAsSessionsDo) {
  const Model model = test::tiny_model("llama").load();
  const auto ids = some_ids(70);
  for (const bool steered : {false, true})
    for (const std::int64_t from : {1, 2, 30, 69}) {
      EngineRequest request{.ids = ids, .max_tokens = 3, .score_from = from, .prompt_top = 4};
      if (steered) request.steering = push(2);
      const auto got = run_one(model, request, {.step_tokens = 16});
      Session session(model, {.batch_invariant = true});
      const auto truth = session.log_probabilities(ids, {.steering = request.steering, .begin = from, .top = 4});
      EXPECT_EQ(got.prompt_log_probabilities, truth.tokens) << from;
      EXPECT_EQ(got.prompt_top, truth.top) << from;
      request.score_from = -1;
      request.prompt_top = 0;
      EXPECT_EQ(got.ids, run_one(model, request).ids);
      request.score_from = from;
      request.max_tokens = 0;
      const auto read = run_one(model, request);
      EXPECT_EQ(read.prompt_log_probabilities, truth.tokens);
      EXPECT_EQ(read.finish, FinishReason::length);
      EXPECT_TRUE(read.ids.empty());
    }
}

/// Scores and the unsteered part of a prompt that is kept agree, and samples have them too.
TEST(EngineRequests, ScoredPromptsShareWhatPrecedes) {
  const Model model = test::tiny_model("llama").load();
  Engine engine(model, {.max_rows = 2});
  const EngineRequest plain{.ids = some_ids(40), .max_tokens = 2};
  EngineRequest scored{
      .ids = some_ids(40), .sampling = {.temperature = 1}, .max_tokens = 2, .samples = 3, .score_from = 20};
  engine.submit(plain);
  run(engine);
  engine.submit(scored);
  const Results results = run(engine);
  EXPECT_GE(engine.load().shared_tokens, 19);
  const auto alone = run_one(model, scored, {.keep_prefixes = false});
  ASSERT_EQ(results.size(), 3u);
  for (const auto& [row, result] : results) EXPECT_EQ(result.prompt_log_probabilities, alone.prompt_log_probabilities);
}

/// A row that was cut off and goes on with what it had is the row.
TEST(EngineRequests, GivenTokensAreAsIfDrawn) {
  const Model model = test::tiny_model("llama").load();
  for (const Where where : {Where::all, Where::generated})
    for (const double temperature : {0.0, 1.0}) {
      EngineRequest request{.ids = some_ids(12),
                            .steering = push(1.5, {.where = where}),
                            .sampling = {.temperature = temperature},
                            .max_tokens = 16,
                            .seed = 5,
                            .ignore_eos = true,
                            .top = 2};
      const auto whole = run_one(model, request);
      ASSERT_EQ(whole.ids.size(), 16u);
      for (const std::size_t cut : {1u, 7u, 15u, 16u}) {
        request.given.assign(whole.ids.begin(), whole.ids.begin() + static_cast<std::ptrdiff_t>(cut));
        const auto again = run_one(model, request);
        EXPECT_EQ(again.ids, whole.ids) << cut;
        EXPECT_EQ(again.log_probabilities, whole.log_probabilities) << cut;
        EXPECT_EQ(again.top, whole.top) << cut;
        EXPECT_EQ(again.audit.edited(), whole.audit.edited()) << cut;
      }
      request.given.push_back(1);
      Engine engine(model);
      EXPECT_STEER_ERROR(engine.submit(request), ErrorCode::argument, "given");
    }
}

TEST(EngineRequests, LogitsAreThoseOfThePass) {
  const Model model = test::tiny_model("llama").load();
  std::vector<at::Tensor> seen;
  std::vector<std::int64_t> positions;
  EngineRequest request{.ids = some_ids(10), .max_tokens = 6, .ignore_eos = true};
  request.on_logits = [&](const LogitsObservation& o) {
    seen.push_back(at::tensor(std::vector<float>(o.logits.begin(), o.logits.end())));
    positions.push_back(o.position);
  };
  const auto got = run_one(model, request);
  auto ids = request.ids;
  ids.insert(ids.end(), got.ids.begin(), got.ids.end());
  Session session(model, {.batch_invariant = true});
  const at::Tensor all = session.forward(ids);
  EXPECT_EQ(positions, (std::vector<std::int64_t>{10, 11, 12, 13, 14, 15}));
  for (std::size_t i = 0; i < seen.size(); ++i) EXPECT_TRUE(at::equal(seen[i], all[positions[i] - 1])) << i;
}

/// Every site of a model: what an observer is told is what a recording of the whole text has, and the row is the row.
TEST(EngineRequests, ObserversSeeWhatARecordingHasAndChangeNothing) {
  for (const auto* family : {"llama", "gemma3_text"}) {
    const Model model = test::tiny_model(family).load();
    const std::int64_t layer = model.config().n_layers - 1;
    Steering steering;
    steering.add(direction(3, model.config().d_model), HookPoint{Site::resid_post, 0}, 2.0);
    std::vector<HookPoint> points{{Site::embed, 0}, {Site::ln_final, 0}};
    for (const Site site : {Site::resid_pre, Site::ln1, Site::attn_q, Site::attn_v, Site::attn_z, Site::attn_out,
                            Site::resid_mid, Site::mlp_post, Site::mlp_out, Site::resid_post})
      points.push_back({site, layer});
    EngineRequest request{.ids = some_ids(33), .steering = steering, .max_tokens = 9, .ignore_eos = true};
    const auto bare = run_one(model, request);
    std::map<HookPoint, std::vector<at::Tensor>> seen;
    std::map<HookPoint, std::vector<std::int64_t>> ids;
    for (const HookPoint& point : points)
      request.observers.push_back({point, [&](const Observation& o) {
                                     EXPECT_EQ(o.position, std::ssize(ids[o.point]));
                                     seen[o.point].push_back(o.value.clone());
                                     ids[o.point].insert(ids[o.point].end(), o.ids.begin(), o.ids.end());
                                   }});
    // Others beside it, and a cache so short that it is set back.
    Session probe(model);
    Engine engine(model, {.max_cache_bytes = probe.cache_bytes(probe.open(), 70), .step_tokens = 10});
    engine.submit({.ids = some_ids(33), .max_tokens = 2});
    const RowId row = engine.submit(request);
    for (int i = 0; i < 7; ++i) engine.step();
    for (int i = 1; i < 4; ++i) engine.submit({.ids = some_ids(30, i), .max_tokens = 30, .priority = i});
    const auto observed = run(engine).at(row);
    EXPECT_GT(engine.load().set_back, 0);
    EXPECT_EQ(observed.ids, bare.ids);
    EXPECT_EQ(observed.log_probabilities, bare.log_probabilities);

    auto text = request.ids;
    text.insert(text.end(), bare.ids.begin(), bare.ids.end() - 1);
    Session session(model, {.batch_invariant = true});
    std::vector<std::string> names;
    for (const HookPoint& point : points) names.push_back(point.name());
    const auto recorded = session.run_with_cache(text, names, {.steering = steering});
    for (const HookPoint& point : points) {
      EXPECT_EQ(ids[point], text) << point.name();
      EXPECT_TRUE(at::equal(at::cat(seen[point]), recorded[point])) << family << " " << point.name();
    }
  }
}

TEST(EngineRequests, FeaturesAreTheSaesOwn) {
  const Model model = test::tiny_model("llama").load();
  SaeConfig config;
  config.hook_in = HookPoint{Site::resid_post, 1};
  at::manual_seed(2);
  const Sae sae = Sae::from_weights(
      config,
      {.W_enc = at::randn({32, 24}), .b_enc = at::randn({24}), .W_dec = at::randn({24, 32}), .b_dec = at::zeros({32})});
  std::vector<std::pair<std::int64_t, float>> top, named;
  EngineRequest request{.ids = some_ids(6), .max_tokens = 5, .ignore_eos = true};
  request.observers.push_back(observe_features(sae,
                                               [&](const FeatureObservation& o) {
                                                 for (const auto& t : o.active)
                                                   top.insert(top.end(), t.begin(), t.end());
                                               },
                                               {.top = 3}));
  request.observers.push_back(observe_features(sae,
                                               [&](const FeatureObservation& o) {
                                                 for (const auto& t : o.active)
                                                   named.insert(named.end(), t.begin(), t.end());
                                               },
                                               {.features = {7, 2}, .prompt = false}));
  const auto got = run_one(model, request);
  auto text = request.ids;
  text.insert(text.end(), got.ids.begin(), got.ids.end() - 1);
  Session session(model, {.batch_invariant = true});
  const at::Tensor f =
      sae.encode(session.run_with_cache(text, {"blocks.1.hook_resid_post"})["blocks.1.hook_resid_post"]);
  std::size_t at = 0;
  for (std::int64_t t = 0; t < f.size(0); ++t) {
    const auto [values, order] = f[t].topk(3);
    for (std::int64_t i = 0; i < 3 && values[i].item<float>() > 0; ++i, ++at) {
      ASSERT_LT(at, top.size());
      EXPECT_EQ(top[at].first, order[i].item<std::int64_t>());
      EXPECT_NEAR(top[at].second, values[i].item<float>(), 1e-5);
    }
  }
  EXPECT_EQ(at, top.size());
  ASSERT_EQ(named.size(), 2u * 4u) << "of generated tokens that have a pass of their own";
  for (std::size_t t = 0; t < 4; ++t) {
    EXPECT_EQ(named[2 * t].first, 7);
    EXPECT_NEAR(named[2 * t].second, f[6 + static_cast<std::int64_t>(t)][7].item<float>(), 1e-5);
    EXPECT_NEAR(named[2 * t + 1].second, f[6 + static_cast<std::int64_t>(t)][2].item<float>(), 1e-5);
  }
}

/// One row's NaN, one's callback, one's observer, one's custom edit: each ends its own row and no other.
TEST(EngineRequests, ARowFailsAlone) {
  const Model model = test::tiny_model("llama").load();
  const EngineRequest good{.ids = some_ids(11), .max_tokens = 8, .ignore_eos = true};
  const auto truth = run_one(model, good);
  Engine engine(model);
  EngineRequest nan = good, callback = good, observer = good, custom = good;
  nan.steering.custom([](const CustomContext& at) { return at.h * std::nan(""); }, "blocks.1.hook_resid_post");
  custom.steering.custom([](const CustomContext&) -> at::Tensor { throw std::runtime_error("custom edit broke"); },
                         "blocks.0.hook_resid_post");
  callback.on_event = [n = 0](const EngineEvent& e) mutable {
    if (e.id >= 0 && ++n == 3) throw std::runtime_error("client gone");
  };
  observer.observers.push_back({HookPoint{Site::resid_post, 0}, [](const Observation& o) {
                                  if (o.position > 12) throw std::runtime_error("observer broke");
                                }});
  const RowId first = engine.submit(good);
  for (const auto& request : {nan, callback, observer, custom}) engine.submit(request);
  const RowId last = engine.submit(good);
  int errors = 0;
  const Results results = run(engine, [&](const EngineEvent& e) { errors += e.error != nullptr; });
  ASSERT_EQ(results.size(), 6u);
  EXPECT_EQ(errors, 4);
  for (const RowId row : {first, last}) {
    EXPECT_EQ(results.at(row).ids, truth.ids);
    EXPECT_EQ(results.at(row).log_probabilities, truth.log_probabilities);
  }
  const char* const reasons[] = {"finite logits", "client gone", "observer broke", "custom edit broke"};
  for (RowId row = 1; row <= 4; ++row) {
    EXPECT_EQ(results.at(row).finish, FinishReason::failed) << row;
    EXPECT_NE(results.at(row).abort_reason.find(reasons[row - 1]), std::string::npos) << results.at(row).abort_reason;
  }
  EXPECT_EQ(results.at(2).ids.size(), 3u);
}

TEST(EngineRequests, WarningsAreOfTheRowsOwnSteering) {
  const Model model = test::tiny_model("llama").load();
  const EngineRequest misplaced{.ids = some_ids(5), .steering = test::misplaced_nudge(), .max_tokens = 2};
  Engine engine(model);
  engine.submit(misplaced);
  engine.submit({.ids = some_ids(5), .max_tokens = 2});
  engine.submit({.ids = some_ids(5), .steering = push(1), .max_tokens = 2});
  const Results results = run(engine);
  EXPECT_EQ(results.at(0).warnings.size(), 1u);
  EXPECT_TRUE(results.at(1).warnings.empty());
  EXPECT_TRUE(results.at(2).warnings.empty());
  Engine strict(model, {.on_warning = OnWarning::error});
  EXPECT_STEER_ERROR(strict.submit(misplaced), ErrorCode::config, "trained at");
}

/// A chat's next turn takes the answer before it too.
TEST(EngineRequests, TheNextTurnOfAChatSharesItsPast) {
  const Model model = test::tiny_model("llama").load();
  Engine engine(model);
  EngineRequest request{.ids = some_ids(20), .max_tokens = 12, .ignore_eos = true};
  const RowId first = engine.submit(request);
  const auto turn = run(engine).at(first);
  request.ids.insert(request.ids.end(), turn.ids.begin(), turn.ids.end());
  for (const auto id : some_ids(6, 4)) request.ids.push_back(id);
  const RowId second = engine.submit(request);
  const auto answer = run(engine).at(second);
  EXPECT_EQ(engine.load().shared_tokens, 31) << "all but the last token, which had no pass";
  const auto alone = run_one(model, request, {.keep_prefixes = false});
  EXPECT_EQ(answer.ids, alone.ids);
  EXPECT_EQ(answer.log_probabilities, alone.log_probabilities);
  // The past of a steered answer is steered: it is not taken.
  EngineRequest steered{
      .ids = some_ids(20, 7), .steering = push(3, {.where = Where::generated}), .max_tokens = 12, .ignore_eos = true};
  const auto before = engine.load().shared_tokens;
  const auto odd = run_one(model, steered);
  engine.submit(steered);
  run(engine);
  steered.ids.insert(steered.ids.end(), odd.ids.begin(), odd.ids.end());
  const RowId third = engine.submit(steered);
  const auto next = run(engine).at(third);
  EXPECT_EQ(engine.load().shared_tokens, before + 20);
  EXPECT_EQ(next.ids, run_one(model, steered, {.keep_prefixes = false}).ids);
}

/// Hooks of the session's owner that may edit: what is computed under them is not kept for later rows, nor the other
/// way round. Those that only read leave sharing alone.
TEST(EngineRequests, PrefixesAreNotSharedAcrossEditingHooks) {
  const Model model = test::tiny_model("llama").load();
  Session session(model, {.batch_invariant = true});
  Engine engine(session);
  const EngineRequest request{.ids = some_ids(30), .max_tokens = 5, .ignore_eos = true};
  const auto one = [&] {
    const RowId row = engine.submit(request);
    return run(engine).at(row);
  };
  const auto plain = one();
  EXPECT_EQ(one().ids, plain.ids);
  EXPECT_EQ(engine.load().shared_tokens, 29);
  GenerateResult hooked;
  {
    const auto hook = session.hook("blocks.1.hook_resid_post", [](HookContext& at) { at.value.mul_(-1); });
    hooked = one();
    EXPECT_EQ(one().log_probabilities, hooked.log_probabilities);
    EXPECT_NE(hooked.log_probabilities, plain.log_probabilities);
    EXPECT_EQ(engine.load().shared_tokens, 29) << "every prompt token passes an editing hook";
  }
  EXPECT_EQ(one().log_probabilities, plain.log_probabilities);
  std::int64_t seen = 0;
  const auto reader =
      session.hook("blocks.1.hook_resid_post", [&](HookContext& at) { seen += at.value.size(0); }, {.read_only = true});
  EXPECT_EQ(one().log_probabilities, plain.log_probabilities);
  EXPECT_EQ(seen, 1 + 4) << "what was not taken from the prefix";
}

TEST(EngineRequests, StopStringsAreNamed) {
  const Model model = Model::load("examples/data/demo");
  const auto ids = model.chat().render({{Role::user, "In the land of Pelia, what is the feast?"}}).ids;
  const auto whole = run_one(model, {.ids = ids, .max_tokens = 30});
  ASSERT_GT(whole.text.size(), 20u);
  const std::string stop = whole.text.substr(10, 4);
  const auto cut = run_one(model, {.ids = ids, .max_tokens = 30, .stop = {"never this", stop}});
  EXPECT_EQ(cut.finish, FinishReason::stop_string);
  EXPECT_EQ(cut.stop, stop);
  EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(stop)));
}

/// Memory of this process, in bytes; 0 where the system does not say, and where a sanitizer keeps what was freed.
std::int64_t resident_bytes() {
#if defined(STEER_ADDRESS_SANITIZER) || defined(STEER_THREAD_SANITIZER)
  return 0;
#endif
  std::ifstream file("/proc/self/statm");
  std::int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * 4096;
}

/// The cache holds nothing but kept prompts after a thousand rows one after another, and no more after the second five
/// hundred than after the first.
TEST(EngineRequests, AThousandRowsLeaveNothingBehind) {
  const Model model = test::tiny_model("llama").load();
  Engine engine(model, {.max_rows = 4});
  std::int64_t half = 0, resident = 0;
  for (std::int64_t i = 0; i < 1000; ++i) {
    EngineRequest request{.ids = some_ids(40, i), .max_tokens = 3, .ignore_eos = true};
    if (i % 3 == 0) request.steering = push(static_cast<double>(i) / 500);  // ever new ones
    engine.submit(request);
    run(engine);
    if (i == 499) half = engine.load().cache_bytes, resident = resident_bytes();
  }
  EXPECT_EQ(engine.load().running + engine.load().waiting, 0);
  EXPECT_LE(engine.load().cache_bytes, half);
  EXPECT_LE(resident_bytes(), resident + (std::int64_t{8} << 20));
  Session probe(model);
  EXPECT_LE(half, 4 * probe.cache_bytes(probe.open(), 43));
}

TEST(EngineLoop, RowsFromManyThreadsAreTheRows) {
  const Model model = test::tiny_model("llama").load();
  EngineLoop loop(model, {.max_rows = 5, .step_tokens = 32});
  constexpr int kThreads = 8, kRows = 12;
  const auto request_of = [](int thread, int row) {
    EngineRequest r{
        .ids = some_ids(5 + row, thread), .max_tokens = 4 + row, .seed = static_cast<std::uint64_t>(thread)};
    r.sampling.temperature = row % 2;
    if (thread % 2) r.steering = push(thread);
    return r;
  };
  std::vector<std::future<std::vector<std::shared_ptr<const GenerateResult>>>> clients;
  for (int t = 0; t < kThreads; ++t)
    clients.push_back(std::async(std::launch::async, [&, t] {
      std::vector<std::promise<std::shared_ptr<const GenerateResult>>> ends(kRows);
      for (int i = 0; i < kRows; ++i) {
        EngineRequest r = request_of(t, i);
        r.on_event = [&end = ends[static_cast<std::size_t>(i)]](const EngineEvent& e) {
          if (e.result) end.set_value(e.result);
        };
        const RowId row = loop.submit(std::move(r));
        if (i % 4 == 3) loop.cancel(row, "gone");
        (void)loop.load();
      }
      std::vector<std::shared_ptr<const GenerateResult>> results;
      for (auto& end : ends) results.push_back(end.get_future().get());
      return results;
    }));
  for (int t = 0; t < kThreads; ++t) {
    const auto results = clients[static_cast<std::size_t>(t)].get();
    for (int i = 0; i < kRows; ++i) {
      const auto truth = run_one(model, request_of(t, i));
      const GenerateResult& got = *results[static_cast<std::size_t>(i)];
      if (got.finish == FinishReason::aborted) {
        EXPECT_EQ(i % 4, 3);
        EXPECT_EQ(got.abort_reason, "gone");
        ASSERT_LE(got.ids.size(), truth.ids.size());
        EXPECT_TRUE(std::equal(got.ids.begin(), got.ids.end(), truth.ids.begin()));
      } else {
        EXPECT_EQ(got.ids, truth.ids) << t << " " << i;
        EXPECT_EQ(got.log_probabilities, truth.log_probabilities);
      }
    }
  }
}

TEST(EngineLoop, EndsWithEveryRowTold) {
  const Model model = test::tiny_model("llama").load();
  std::atomic<int> ended = 0, aborted = 0;
  const auto count = [&](const EngineEvent& e) {
    if (!e.result) return;
    ++ended;
    aborted += e.result->finish == FinishReason::aborted;
  };
  {
    EngineLoop loop(model);
    for (int i = 0; i < 20; ++i) loop.submit({.ids = some_ids(4, i), .max_tokens = 5, .on_event = count});
    loop.finish();
    EXPECT_EQ(ended, 20);
    EXPECT_EQ(aborted, 0);
    EXPECT_STEER_ERROR(loop.submit({.ids = {1}}), ErrorCode::cancelled, "no further rows");
  }
  {
    EngineLoop loop(model, {.max_rows = 2});
    for (int i = 0; i < 20; ++i)
      loop.submit({.ids = some_ids(4, i), .max_tokens = 100, .ignore_eos = true, .on_event = count});
  }
  EXPECT_EQ(ended, 40);
  EXPECT_GT(aborted, 0);
}

TEST(EngineRequests, AreRefusedWithReasons) {
  const Model model = test::tiny_model("llama").load();
  Engine engine(model, {.max_waiting = 2});
  const auto refuse = [&](EngineRequest request, const char* why) {
    EXPECT_STEER_ERROR(engine.submit(std::move(request)), ErrorCode::argument, why);
  };
  refuse({.ids = {1}, .sampling = {.logit_bias = {{97, 1}}}}, "logit_bias");
  refuse({.ids = {1}, .sampling = {.logit_bias = {{9, NAN}}}}, "logit_bias");
  refuse({.ids = {1}, .sampling = {.presence_penalty = NAN}}, "presence");
  refuse({.ids = {1}, .max_tokens = 2, .min_tokens = 3}, "min_tokens");
  refuse({.ids = {1}, .top = 98}, "top");
  refuse({.ids = {1, 2}, .score_from = 2}, "score_from");
  refuse({.ids = {1, 2}, .score_from = 0}, "score_from");
  refuse({.ids = {1, 2}, .prompt_top = 1}, "prompt_top");
  refuse({.ids = {1}, .given = {97}}, "97");
  refuse({.ids = {1}, .samples = 3}, "samples");
  refuse({.ids = {1}, .observers = {{HookPoint{Site::resid_post, 9}, [](const Observation&) {}}}}, "layer");
  refuse({.ids = {1}, .observers = {{HookPoint{Site::resid_post, 0}, {}}}}, "function");
  engine.submit({.ids = {1}, .max_tokens = 1, .samples = 2});
  refuse({.ids = {1}}, "max_waiting");
  run(engine);
  engine.submit({.ids = {1}, .max_tokens = 1});
  engine.close();
  EXPECT_STEER_ERROR(engine.submit({.ids = {1}}), ErrorCode::cancelled, "no further");
  EXPECT_EQ(run(engine).size(), 1u) << "what was there still ends";
}

}  // namespace
}  // namespace steer
