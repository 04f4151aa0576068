#include "features/auto_steer_evidence.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/features/attribution.hpp>
#include <steer/generate/score.hpp>

#include "core/format_text.hpp"

namespace steer::features::detail {
namespace {

/// Attribution runs one gradient a text: a few texts settle its sign.
constexpr std::size_t attributed_texts = 8;
/// The screen: this many prompts and first tokens are enough to tell steerings that do nothing or collapse at once.
constexpr std::size_t screen_prompts = 6;
constexpr std::int64_t screen_tokens = 32;
/// A feature nudged alone must gain this share of what asking gains to count as a cause.
constexpr double least_output_score = 0.02;
/// Each prompt's answer is told from so many other behaviours, the next prompt's from the next ones: over the prompts
/// all have their turn, and an answer is read 5 times instead of 15.
constexpr std::size_t others_a_prompt = 3;
/// How hard it is nudged to find out, in units of its maximum activation.
constexpr double probe_strength = 4;

at::Tensor attributions(Session& session, const Sae& sae, const std::vector<TokenizedText>& texts) {
  at::Tensor effect = at::zeros({sae.d_sae()}, at::kFloat);
  const std::size_t count = std::min(texts.size(), attributed_texts);
  for (std::size_t i = 0; i < count; ++i) {
    const auto tokens = static_cast<std::int64_t>(texts[i].ids.size());
    const auto metric = sequence_log_probability(texts[i].ids, texts[i].begin, tokens);
    effect += attribute_features(session, sae, texts[i].ids, metric).effect.cpu() /
              static_cast<double>(tokens - texts[i].begin);
  }
  return effect / static_cast<double>(std::max<std::size_t>(count, 1));
}

/// The strongest features by contrast and, as many again, by direction.
std::vector<AutoSteerCandidate> candidates_of(const std::vector<FeatureContrast>& ranked, const at::Tensor& positive,
                                              const at::Tensor& negative, const Evidence& evidence, const Sae& sae,
                                              const AutoSteerOptions& options) {
  const at::Tensor rows = sae.W_dec().cpu();
  const at::Tensor along =
      (at::mv(rows, evidence.residual_asked - evidence.residual_other) / rows.norm(2, 1).clamp_min(1e-12)).contiguous();
  std::vector<FeatureContrast> active;
  for (const auto& found : ranked)
    if (found.standardised > 0 && !found.always_on) active.push_back(found);
  std::vector<std::int64_t> picked;
  const auto take = [&](const std::vector<FeatureContrast>& order) {
    std::int64_t taken = 0;
    for (const auto& found : order) {
      if (taken == options.candidates) break;
      if (std::ranges::find(picked, found.feature) == picked.end()) picked.push_back(found.feature), ++taken;
    }
  };
  take(active);
  std::ranges::stable_sort(active, std::greater{},
                           [&](const auto& found) { return along.data_ptr<float>()[found.feature]; });
  take(active);
  // The interval only for those: it is what costs.
  std::vector<AutoSteerCandidate> candidates;
  if (picked.empty()) return candidates;
  const at::Tensor index = at::tensor(picked);
  for (auto found : contrast_features(positive.index_select(1, index), negative.index_select(1, index),
                                      {.limit = 0, .bootstrap = 200, .seed = options.seed})) {
    found.feature = picked[static_cast<std::size_t>(found.feature)];
    candidates.push_back({.feature = found.feature, .label = {}, .contrast = found, .dropped = {}});
    if (found.auroc_low <= 0.5)
      candidates.back().dropped =
          format_text("contrast not clear of chance (AUROC {:.2f}, low {:.2f})", found.auroc, found.auroc_low);
  }
  return candidates;
}

}  // namespace

std::vector<TokenizedText> after_plain_prompts(const std::vector<PromptPair>& prompts,
                                               const std::vector<Answer>& answers) {
  std::vector<TokenizedText> texts;
  for (const Answer& answer : answers) {
    if (answer.ids.empty() || answer.loops) continue;
    const auto& plain = prompts[answer.prompt].plain;
    TokenizedText text{.ids = plain, .begin = static_cast<std::int64_t>(plain.size())};
    text.ids.insert(text.ids.end(), answer.ids.begin(), answer.ids.end());
    texts.push_back(std::move(text));
  }
  return texts;
}

bool loops(std::span<const std::int64_t> ids) {
  if (ids.size() < 12) return false;
  std::set<std::array<std::int64_t, 3>> distinct;
  for (std::size_t i = 0; i + 3 <= ids.size(); ++i) distinct.insert({ids[i], ids[i + 1], ids[i + 2]});
  return 2 * distinct.size() < ids.size() - 2;
}

double mean_of(const std::vector<double>& values) {
  return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::vector<std::int64_t> render(const Model& model, std::string_view system, std::string_view user) {
  std::vector<Message> chat;
  if (!system.empty()) chat.push_back({Role::system, std::string(system)});
  chat.push_back({Role::user, std::string(user)});
  return model.chat().render(chat).ids;
}

std::vector<Answer> answer_all(AnswerStore& store, const AutoSteerOptions& options,
                               const std::vector<std::vector<std::int64_t>>& prompts, std::string_view purpose) {
  std::vector<GenerateRequest> requests;
  for (std::size_t p = 0; p < prompts.size(); ++p)
    requests.push_back({.ids = prompts[p], .steering = {}, .seed = derive_seed(options.seed, purpose, p)});
  const auto results = store.generate(requests, options.max_tokens, format_text("answers, {}", purpose));
  std::vector<Answer> answers;
  for (std::size_t p = 0; p < results.size(); ++p)
    answers.push_back({p, results[p].ids, results[p].finish != FinishReason::length, loops(results[p].ids)});
  return answers;
}

std::vector<Reading> read(const Model& model, const Evidence& evidence, std::span<const Answer> answers) {
  using Key = std::pair<std::size_t, std::vector<std::int64_t>>;
  auto& known = evidence.readings;
  std::set<Key> unread;
  std::vector<ScoreRequest> requests;
  const auto add = [&](const std::vector<std::int64_t>& prompt, const std::vector<std::int64_t>& ids) {
    ScoreRequest request{.ids = prompt, .begin = static_cast<std::int64_t>(prompt.size()), .steering = {}};
    request.ids.insert(request.ids.end(), ids.begin(), ids.end());
    requests.push_back(std::move(request));
  };
  for (const Answer& answer : answers) {
    if (answer.ids.empty()) continue;
    if (Key key{answer.prompt, answer.ids}; !known.contains(key)) unread.insert(std::move(key));
  }
  for (const auto& [prompt, ids] : unread) {
    add(evidence.prompts[prompt].asked, ids);
    add(evidence.prompts[prompt].plain, ids);
    for (const auto& other : evidence.prompts[prompt].others) add(other, ids);
  }
  const auto scores = score_texts(model, requests);
  std::size_t next = 0;
  for (const Key& key : unread) {
    const auto& [prompt, ids] = key;
    const double asked = scores[next].log_probability, plain = scores[next + 1].log_probability;
    double against = std::exp(plain - asked);
    next += 2;
    for (std::size_t o = 0; o < evidence.prompts[prompt].others.size(); ++o)
      against += std::exp(scores[next++].log_probability - asked);
    known[key] = {1 / (1 + against), -std::max(asked, plain) / static_cast<double>(ids.size())};
  }
  std::vector<Reading> readings;
  for (const Answer& answer : answers)
    readings.push_back(answer.ids.empty() ? Reading{} : known.at({answer.prompt, answer.ids}));
  return readings;
}

Reading mean_of(std::span<const Reading> readings) {
  Reading mean;
  for (const Reading& reading : readings) {
    mean.posterior += reading.posterior / static_cast<double>(readings.size());
    mean.nll += reading.nll / static_cast<double>(readings.size());
  }
  return mean;
}

std::vector<ScreenResult> screen(AnswerStore& store, const AutoSteerOptions& options, const Evidence& evidence,
                                 std::span<const Steering> steerings) {
  const std::size_t prompts = std::min(screen_prompts, evidence.prompts.size());
  std::vector<GenerateRequest> requests;
  for (const Steering& steering : steerings)
    for (std::size_t p = 0; p < prompts; ++p)
      requests.push_back({evidence.prompts[p].plain, steering, derive_seed(options.seed, "screen", p)});
  const auto results =
      store.generate(requests, std::min(screen_tokens, options.max_tokens), "first tokens of each steering");
  std::vector<Answer> answers;
  for (std::size_t i = 0; i < results.size(); ++i)
    answers.push_back({i % prompts, results[i].ids, true, loops(results[i].ids)});
  const auto readings = read(store.model(), evidence, answers);
  std::vector<ScreenResult> screened(steerings.size());
  for (std::size_t i = 0; i < results.size(); ++i) {
    screened[i / prompts].behaviour += readings[i].posterior / static_cast<double>(prompts);
    screened[i / prompts].loops += answers[i].loops / static_cast<double>(prompts);
  }
  for (auto& result : screened)
    result.behaviour =
        (result.behaviour - evidence.unsteered.posterior) / (evidence.asked.posterior - evidence.unsteered.posterior);
  return screened;
}

Evidence gather_evidence(AnswerStore& store, Session& session, const Sae& sae, const AutoSteerOptions& options,
                         std::string_view behaviour, const std::vector<Answer>& unsteered) {
  const Model& model = session.model();
  Evidence evidence;
  const std::string ask = format_text(fmt::runtime(options.ask), behaviour);
  std::vector<std::vector<std::int64_t>> asked_prompts, opposite_prompts;
  std::vector<std::string> others;
  std::ranges::copy_if(options.others, std::back_inserter(others), [&](const auto& o) { return o != behaviour; });
  std::size_t turn = 0;
  for (const auto& prompt : options.prompts) {
    evidence.prompts.push_back({render(model, "", prompt), render(model, ask, prompt)});
    for (std::size_t o = 0; o < std::min(others_a_prompt, others.size()); ++o, ++turn)
      evidence.prompts.back().others.push_back(
          render(model, format_text(fmt::runtime(options.ask), others[turn % others.size()]), prompt));
    asked_prompts.push_back(evidence.prompts.back().asked);
    if (!options.ask_opposite.empty())
      opposite_prompts.push_back(render(model, format_text(fmt::runtime(options.ask_opposite), behaviour), prompt));
  }
  const auto asked = answer_all(store, options, asked_prompts, format_text("asked {}", behaviour));
  auto unasked = unsteered;
  const auto opposite = answer_all(store, options, opposite_prompts, format_text("opposite {}", behaviour));
  unasked.insert(unasked.end(), opposite.begin(), opposite.end());
  evidence.unsteered = mean_of(read(model, evidence, unsteered));
  evidence.asked = mean_of(read(model, evidence, asked));
  evidence.asked_answers = asked;
  evidence.opposite = opposite.empty() ? Reading{std::nan(""), std::nan("")} : mean_of(read(model, evidence, opposite));

  // Read without the request: what steering must bring about is the answer's own state, not the memory of being asked.
  const auto positive = after_plain_prompts(evidence.prompts, asked),
             negative = after_plain_prompts(evidence.prompts, unasked);
  if (positive.size() < 2 || negative.size() < 2) return evidence;
  at::Tensor largest = at::zeros({sae.d_sae()}, at::kFloat);
  const auto pooled = [&](const std::vector<TokenizedText>& texts, at::Tensor& residual) {
    at::Tensor rows = at::zeros({static_cast<std::int64_t>(texts.size()), sae.d_sae()}, at::kFloat);
    residual = at::zeros({sae.d_in()}, at::kFloat);
    visit_activations(session, sae, texts, [&](std::size_t i, const at::Tensor& x) {
      const at::Tensor f = sae.encode(x).cpu();
      rows[static_cast<std::int64_t>(i)].copy_(f.mean(0));
      largest = at::maximum(largest, f.amax(0));
      residual += x.mean(0).cpu() / static_cast<double>(texts.size());
    });
    return rows;
  };
  const at::Tensor positive_rows = pooled(positive, evidence.residual_asked);
  const at::Tensor negative_rows = pooled(negative, evidence.residual_other);
  if (at::equal(positive_rows, negative_rows)) return evidence;

  const auto ranked =
      contrast_features(positive_rows, negative_rows, {.limit = 0, .bootstrap = 0, .seed = options.seed});
  evidence.candidates = candidates_of(ranked, positive_rows, negative_rows, evidence, sae, options);
  const at::Tensor effect = attributions(session, sae, positive);
  std::vector<Steering> alone;
  for (auto& candidate : evidence.candidates) {
    candidate.max_activation = largest[candidate.feature].item<double>();
    if (options.labels) {
      candidate.label = options.labels->label(candidate.feature);
      candidate.max_activation = options.labels->max_activation(candidate.feature).value_or(candidate.max_activation);
    }
    candidate.attribution = effect[candidate.feature].item<double>();
    if (candidate.dropped.empty() && !(candidate.max_activation > 0)) candidate.dropped = "maximum activation unknown";
    if (candidate.dropped.empty())
      alone.push_back(Steering().nudge(sae, candidate.feature, probe_strength,
                                       {.scope = {.where = Where::onset, .count = 8},
                                        .unit = StrengthUnit::max_activation,
                                        .max_activation = candidate.max_activation}));
  }
  const auto scores = screen(store, options, evidence, alone);
  std::size_t next = 0;
  for (auto& candidate : evidence.candidates) {
    if (!candidate.dropped.empty()) continue;
    candidate.output_score = scores[next++].behaviour;
    if (candidate.output_score < least_output_score)
      candidate.dropped = format_text("marks the behaviour but does not cause it (nudged alone it gains {:.2g})",
                                      candidate.output_score);
  }
  std::ranges::stable_sort(evidence.candidates, [](const auto& a, const auto& b) {
    if (a.dropped.empty() != b.dropped.empty()) return a.dropped.empty();
    return a.output_score > b.output_score;
  });
  evidence.usable = static_cast<std::size_t>(
      std::ranges::count_if(evidence.candidates, [](const auto& c) { return c.dropped.empty(); }));
  return evidence;
}

}  // namespace steer::features::detail
