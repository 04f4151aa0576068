#include "features/auto_steer_search.hpp"

#include <algorithm>
#include <cmath>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/generate/score.hpp>

#include "core/format_text.hpp"
#include "model/reproducible.hpp"

namespace steer::features::detail {
namespace {

/// A KL costs two passes a text; a few answers settle its size.
constexpr std::size_t kl_prompts = 8, most_effect_texts = 4;
/// Of a long answer the beginning is enough to measure an effect on.
constexpr std::int64_t effect_tokens = 32;

SessionOptions session_options(const Model& model, const AutoSteerOptions& options) {
  SessionOptions result = model::detail::reproducible(model);
  result.on_warning = options.on_warning;
  return result;
}

}  // namespace

Search::Search(Model model, Sae sae, AutoSteerOptions options)
    : model_(std::move(model)),
      sae_(std::move(sae)),
      options_(std::move(options)),
      point_(sae_point(model_, sae_)),
      session_(model_, session_options(model_, options_)),
      store_(model_, options_) {
  session_.close(session_.open({.steering = Steering().nudge(sae_, 0, 1, {.point = point_})}));  // may warn
}

const std::vector<Answer>& Search::unsteered() {
  if (!unsteered_.empty()) return unsteered_;
  std::vector<std::vector<std::int64_t>> prompts;
  for (const auto& prompt : options_.prompts) prompts.push_back(render(model_, "", prompt));
  return unsteered_ = answer_all(store_, options_, prompts, "unsteered");
}

const Evidence& Search::evidence_for(std::string_view behaviour) {
  if (auto known = evidence_.find(behaviour); known != evidence_.end()) return known->second;
  Evidence found = gather_evidence(store_, session_, sae_, options_, behaviour, unsteered());
  if (found.residual_asked.defined()) {
    // What answers on any request share is no part of this behaviour.
    at::Tensor others;
    double count = 0;
    for (const auto& other : options_.others) {
      if (other == behaviour) continue;
      const at::Tensor mean = asked_residual(other);
      others = others.defined() ? others + mean : mean;
      ++count;
    }
    if (count > 0) found.residual_centre = others / count;
  }
  return evidence_.emplace(behaviour, std::move(found)).first->second;
}

at::Tensor Search::asked_residual(const std::string& behaviour) {
  at::Tensor& mean = asked_residuals_[behaviour];
  if (mean.defined()) return mean;
  const std::string ask = format_text(fmt::runtime(options_.ask), behaviour);
  std::vector<std::vector<std::int64_t>> asked;
  std::vector<PromptPair> pairs;
  for (const auto& prompt : options_.prompts) {
    pairs.push_back({render(model_, "", prompt), render(model_, ask, prompt)});
    asked.push_back(pairs.back().asked);
  }
  const auto texts =
      after_plain_prompts(pairs, answer_all(store_, options_, asked, format_text("asked {}", behaviour)));
  return mean = pooled_residuals(session_, point_, texts).mean(0).cpu();
}

std::vector<TokenizedText> Search::effect_texts() const {
  std::vector<TokenizedText> texts;
  for (const Answer& answer : unsteered_) {
    if (answer.ids.size() < 2 || texts.size() == most_effect_texts) continue;
    TokenizedText text{.ids = render(model_, "", options_.prompts[answer.prompt])};
    text.begin = std::ssize(text.ids);
    text.ids.insert(text.ids.end(), answer.ids.begin(),
                    answer.ids.begin() + std::min(std::ssize(answer.ids), effect_tokens));
    texts.push_back(std::move(text));
  }
  return texts.empty() ? neutral_texts(model_) : texts;
}

EffectMeter& Search::effect_meter() {
  if (!effect_meter_) effect_meter_.emplace(model_, effect_texts(), effect_options.quantile);
  return *effect_meter_;
}

Scope Search::generated_scope() const {
  std::size_t tagged = 0;
  for (const Answer& answer : unsteered_)
    tagged += model_.tokenizer().decode(answer.ids).find("</thinking>") != std::string::npos;
  if (5 * tagged >= 4 * unsteered_.size()) return {.where = Where::inside_tag, .tag = "thinking"};
  return {.where = Where::generated};
}

double Search::behaviour_share(const Evidence& found, double posterior) const {
  return (posterior - found.unsteered.posterior) / (found.asked.posterior - found.unsteered.posterior);
}

CapabilityFigures Search::figures(std::span<const GenerateResult> answers) const {
  CapabilityFigures sum;
  for (std::size_t p = 0; p < answers.size(); ++p) {
    const auto [correct, formatted] = options_.capability.score(p, answers[p]);
    sum.accuracy += correct;
    sum.format += formatted;
    sum.loops += loops(answers[p].ids);
  }
  const auto n = static_cast<double>(answers.size());
  return {sum.accuracy / n, sum.format / n, sum.loops / n};
}

void Search::measure_capability() {
  if (std::exchange(capability_known_, true)) return;
  std::vector<GenerateRequest> requests;
  for (std::size_t p = 0; p < options_.capability.prompts.size(); ++p)
    requests.push_back({options_.capability.prompts[p], {}, derive_seed(options_.seed, "capability", p)});
  capability_answers_ = store_.generate(requests, options_.max_tokens, "answers to capability prompts");
  capability_ = figures(capability_answers_);
}

std::vector<double> Search::measure_behaviour(const Evidence& found, std::vector<AutoSteerTrial>& trials,
                                              std::span<const std::size_t> which, std::size_t prompts) {
  std::vector<GenerateRequest> requests;
  for (std::size_t t : which)
    for (std::size_t p = 0; p < prompts; ++p)
      requests.push_back({found.prompts[p].plain, trials[t].steering, derive_seed(options_.seed, "measure", p)});
  const auto results = store_.generate(requests, options_.max_tokens, "answers under each steering");
  std::vector<Answer> answers;
  for (std::size_t i = 0; i < results.size(); ++i)
    answers.push_back({i % prompts, results[i].ids, results[i].finish != FinishReason::length, false});
  const auto readings = read(model_, found, answers);
  std::vector<double> looping;
  for (std::size_t n = 0; n < which.size(); ++n) {
    auto& trial = trials[which[n]];
    std::int64_t edited = 0;
    double loop_count = 0;
    for (std::size_t p = 0; p < prompts; ++p) {
      const auto& result = results[n * prompts + p];
      edited += result.audit.edited();
      loop_count += loops(result.ids);
    }
    require(edited > 0, ErrorCode::config, "AutoSteer::find",
            "expected every steering to edit the answers it steers but \"{}\" edited none", trial.steering.describe());
    const Reading reading = mean_of(std::span(readings).subspan(n * prompts, prompts));
    trial.behaviour = behaviour_share(found, reading.posterior);
    trial.nll_gain = reading.nll - found.asked.nll;
    looping.push_back(loop_count / static_cast<double>(prompts));
  }
  return looping;
}

void Search::measure_cost(std::vector<AutoSteerTrial>& trials, std::span<const std::size_t> which) {
  const auto count = options_.capability.prompts.size();
  std::vector<GenerateRequest> requests;
  for (std::size_t t : which)
    for (std::size_t p = 0; p < count; ++p)
      requests.push_back(
          {options_.capability.prompts[p], trials[t].steering, derive_seed(options_.seed, "capability", p)});
  const auto results =
      store_.generate(requests, options_.max_tokens, "answers to capability prompts under each steering");
  for (std::size_t n = 0; n < which.size(); ++n) {
    auto& trial = trials[which[n]];
    const auto [accuracy, format, looping] = figures(std::span(results).subspan(n * count, count));
    trial.accuracy = accuracy;
    trial.format = format;
    trial.loops = looping;
    trial.kl = kl_of(trial.steering);
    trial.dropped = beyond_bounds(trial);
    trial.within_bounds = trial.dropped.empty();
  }
}

std::string Search::beyond_bounds(const AutoSteerTrial& trial) const {
  const CapabilityBounds& b = options_.bounds;
  const auto over = [](const char* what, double change, double bound) {
    return change > bound + 1e-9 ? format_text("{} {:.3f} beyond its bound of {:.3f}", what, change, bound) : "";
  };
  for (const auto& reason : {over("accuracy loss", capability_.accuracy - trial.accuracy, b.accuracy_loss),
                             over("format loss", capability_.format - trial.format, b.format_loss),
                             over("more loops,", trial.loops - capability_.loops, b.loop_gain),
                             over("KL", trial.kl, b.kl), over("NLL gain", trial.nll_gain, b.nll_gain)})
    if (!reason.empty()) return reason;
  return "";
}

double Search::kl_of(const Steering& steering) const {
  std::vector<ScoreRequest> requests;
  for (std::size_t p = 0; p < capability_answers_.size() && requests.size() < kl_prompts; ++p) {
    if (capability_answers_[p].ids.empty()) continue;
    ScoreRequest request{options_.capability.prompts[p],
                         static_cast<std::int64_t>(options_.capability.prompts[p].size()), steering};
    request.ids.insert(request.ids.end(), capability_answers_[p].ids.begin(), capability_answers_[p].ids.end());
    requests.push_back(std::move(request));
  }
  std::vector<double> kl;
  for (const auto& text : divergence_from_unsteered(model_, requests)) kl.push_back(text.mean);
  return mean_of(kl);
}

}  // namespace steer::features::detail
