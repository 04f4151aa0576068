#include "features/auto_steer_certificate.hpp"

#include <algorithm>
#include <cmath>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/generate/score.hpp>

#include "core/format_text.hpp"
#include "features/auto_steer_search.hpp"

namespace steer::features::detail {
namespace {

/// Ids that `text` adds after a text that ends in `before`: no space that a tokenizer puts before a text of its own.
std::vector<std::int64_t> continuation(const Tokenizer& tokenizer, std::string_view before, std::string_view text) {
  const auto whole = tokenizer.encode(format_text("{}{}", before, text), {.add_special = false}),
             start = tokenizer.encode(before, {.add_special = false});
  const auto same = std::ranges::mismatch(start, whole);
  return {same.in2, whole.end()};
}

/// How many of the ids it takes until their text contains `sought`; nothing if it never does.
std::optional<std::size_t> tokens_until(const Tokenizer& tokenizer, std::span<const std::int64_t> ids,
                                        std::string_view sought) {
  const auto contains = [&](std::size_t n) { return tokenizer.decode(ids.first(n)).find(sought) != std::string::npos; };
  if (!contains(ids.size())) return std::nullopt;
  std::size_t low = 0, high = ids.size();  // not contained in low tokens, contained in high
  while (high - low > 1) {
    const std::size_t middle = (low + high) / 2;
    (contains(middle) ? high : low) = middle;
  }
  return high;
}

std::vector<double> softmax(std::vector<double> values) {
  const double most = *std::ranges::max_element(values);
  double sum = 0;
  for (double& v : values) sum += v = std::exp(v - most);
  for (double& v : values) v /= sum;
  return values;
}

}  // namespace

OpenedAnswer open_answer(const Tokenizer& tokenizer, const GenerateResult& answer, const CertificateSet& set) {
  if (const auto opened = tokens_until(tokenizer, answer.ids, set.opening)) {
    const auto ids = std::span(answer.ids).first(*opened);
    if (tokenizer.decode(ids).ends_with(set.opening)) return {{ids.begin(), ids.end()}, true};
    // The opening's last token holds more than it: say it again in tokens of its own.
    OpenedAnswer result{{ids.begin(), ids.end() - 1}, true};
    const auto rest = continuation(tokenizer, tokenizer.decode(result.ids), set.opening);
    result.ids.insert(result.ids.end(), rest.begin(), rest.end());
    return result;
  }
  OpenedAnswer result{answer.ids, false};
  const std::string text = tokenizer.decode(answer.ids);
  const bool thinks = !set.closing.empty() && text.find(set.closing) == std::string::npos;
  const auto rest = continuation(tokenizer, text, (thinks ? set.closing : std::string()) + set.opening);
  result.ids.insert(result.ids.end(), rest.begin(), rest.end());
  return result;
}

std::vector<double> right_probabilities(const Model& model, std::span<const ChoiceQuestion* const> questions,
                                        std::span<const OpenedAnswer> answers, const CertificateSet& set,
                                        const std::optional<Steering>& steering, double temperature) {
  std::vector<ScoreRequest> requests;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    const auto prompt = render(model, "", questions[i]->message);
    for (const auto& choice : questions[i]->choices) {
      ScoreRequest request{prompt, std::ssize(prompt), steering};
      request.ids.insert(request.ids.end(), answers[i].ids.begin(), answers[i].ids.end());
      // Without steering the answer is as good as prompt, and computed once for all choices.
      if (!steering) request.begin = std::ssize(request.ids);
      const auto ids = continuation(model.tokenizer(), set.opening, choice);
      request.ids.insert(request.ids.end(), ids.begin(), ids.end());
      requests.push_back(std::move(request));
    }
  }
  const auto scores = score_texts(model, requests);
  std::vector<double> result;
  std::size_t next = 0;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    std::vector<double> logits;
    for (std::size_t c = 0; c < questions[i]->choices.size(); ++c) logits.push_back(scores[next++].log_probability);
    const double most = *std::ranges::max_element(logits);
    for (double& v : logits) v = temperature > 0 ? v / temperature : v == most ? 0 : -1e9;
    result.push_back(softmax(logits)[questions[i]->right]);
  }
  return result;
}

std::vector<CertificateReading> Search::read_answers(std::span<const ChoiceQuestion* const> questions,
                                                     std::span<const GenerateResult> answers,
                                                     const std::optional<Steering>& steering,
                                                     const std::string& behaviour) const {
  const CertificateSet& set = options_.certificate;
  std::vector<OpenedAnswer> opened;
  for (const auto& answer : answers) opened.push_back(open_answer(model_.tokenizer(), answer, set));
  const auto right = right_probabilities(model_, questions, opened, set, steering, options_.sampling.temperature);
  std::vector<CertificateReading> readings(answers.size());
  for (std::size_t i = 0; i < answers.size(); ++i) readings[i] = {right[i], static_cast<double>(opened[i].formed), 0};
  if (options_.others.empty()) return readings;
  // Which of these was asked for, if any? At even odds, by the unsteered model's own likelihoods.
  std::vector<std::string> asks = {"", format_text(fmt::runtime(options_.ask), behaviour)};
  for (const auto& other : options_.others)
    if (other != behaviour) asks.push_back(format_text(fmt::runtime(options_.ask), other));
  std::vector<ScoreRequest> requests;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (answers[i].ids.empty()) continue;
    for (const auto& ask : asks) {
      ScoreRequest request{.ids = render(model_, ask, questions[i]->message), .steering = {}};
      request.begin = std::ssize(request.ids);
      request.ids.insert(request.ids.end(), answers[i].ids.begin(), answers[i].ids.end());
      requests.push_back(std::move(request));
    }
  }
  const auto scores = score_texts(model_, requests);
  std::size_t next = 0;
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (answers[i].ids.empty()) continue;
    std::vector<double> logits;
    for (std::size_t a = 0; a < asks.size(); ++a) logits.push_back(scores[next++].log_probability);
    const auto share = softmax(logits);
    for (std::size_t a = 2; a < asks.size(); ++a) readings[i].other += share[a];
  }
  return readings;
}

std::vector<std::vector<double>> Search::predicted_losses(const Steering& steering, const std::string& behaviour) {
  const CertificateSet& set = options_.certificate;
  std::vector<const ChoiceQuestion*> questions;
  std::vector<GenerateRequest> requests;
  for (const auto* group : {&set.questions, &set.population})
    for (const auto& question : *group) {
      questions.push_back(&question);
      requests.push_back(
          {render(model_, "", question.message),
           {},
           derive_seed(derive_seed(options_.seed, "certificate, control variate"), behaviour, requests.size())});
    }
  std::vector<OpenedAnswer> opened;
  for (const auto& answer : store_.generate(requests, options_.max_tokens, "certificate, control variate"))
    opened.push_back(open_answer(model_.tokenizer(), answer, set));
  const double temperature = options_.sampling.temperature;
  const auto before = right_probabilities(model_, questions, opened, set, {}, temperature);
  std::vector<std::vector<double>> predicted;
  for (const double multiple : set.multiples) {
    const auto after = right_probabilities(model_, questions, opened, set, steering.scaled(multiple), temperature);
    auto& of = predicted.emplace_back();
    for (std::size_t i = 0; i < after.size(); ++i) of.push_back(before[i] - after[i]);
  }
  return predicted;
}

void Search::certify(const Evidence& found, AutoSteerResult& result) {
  const CertificateSet& set = options_.certificate;
  const AutoSteerTrial searched = result.trials[static_cast<std::size_t>(result.chosen)];
  std::vector<std::optional<CertificateReading>> control(set.questions.size());  // mean over draws
  const auto ask = [&](const std::vector<std::int64_t>& which, const std::optional<Steering>& steering,
                       std::int64_t draws, std::string_view purpose) {
    std::vector<GenerateRequest> requests;
    std::vector<const ChoiceQuestion*> questions;
    for (std::int64_t q : which)
      for (std::int64_t d = 0; d < draws; ++d) {
        questions.push_back(&set.questions[static_cast<std::size_t>(q)]);
        requests.push_back({render(model_, "", questions.back()->message), steering,
                            derive_seed(derive_seed(options_.seed, purpose), result.behaviour,
                                        static_cast<std::uint64_t>(q * draws + d))});
      }
    const auto answers = store_.generate(requests, options_.max_tokens, purpose);
    return read_answers(questions, answers, steering, result.behaviour);
  };
  std::vector<std::vector<double>> predicted;  // by strength: of all questions, then of the population
  double highest = 1;
  if (set.control_variate > 0) {
    predicted = predicted_losses(searched.steering, result.behaviour);
    for (const auto& everywhere : predicted)
      highest = std::max(highest, adjust_losses({}, {}, everywhere, set.control_variate).highest);
  }
  const auto losses = [&](std::size_t strength, std::int64_t first, std::int64_t count) {
    std::vector<std::int64_t> all, missing;
    for (std::int64_t q = first; q < first + count; ++q) {
      all.push_back(q);
      if (!control[static_cast<std::size_t>(q)]) missing.push_back(q);
    }
    const auto drawn = ask(missing, {}, set.control_draws, "certificate, unsteered");
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      auto& mean = control[static_cast<std::size_t>(missing[i / static_cast<std::size_t>(set.control_draws)])];
      if (!mean) mean.emplace();
      const auto share = 1 / static_cast<double>(set.control_draws);
      mean->right += share * drawn[i].right;
      mean->formed += share * drawn[i].formed;
      mean->other += share * drawn[i].other;
    }
    const auto readings = ask(all, searched.steering.scaled(set.multiples[strength]), 1, "certificate, steered");
    std::vector<std::vector<double>> result_rows;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto& without = *control[static_cast<std::size_t>(first + i)];
      const auto& with = readings[static_cast<std::size_t>(i)];
      result_rows.push_back({without.right - with.right, without.formed - with.formed});
      if (!options_.others.empty()) result_rows.back().push_back(with.other - without.other);
    }
    if (!predicted.empty()) {
      std::vector<double> accuracy;
      for (const auto& row : result_rows) accuracy.push_back(row[0]);
      const auto& everywhere = predicted[strength];
      const auto mine = std::span(everywhere).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
      const auto adjusted = adjust_losses(accuracy, mine, everywhere, set.control_variate);
      for (std::size_t i = 0; i < result_rows.size(); ++i) result_rows[i][0] = adjusted.losses[i];
    }
    return result_rows;
  };
  CertificateOptions how{
      .level = set.level,
      .questions = std::ssize(set.questions),
      .conditions = format_text("answers of at most {} tokens at temperature {:g}, {} unsteered "
                                "answers a question",
                                options_.max_tokens, options_.sampling.temperature, set.control_draws)};
  if (!predicted.empty())
    how.conditions += format_text(", of {} questions by a control variate", predicted.front().size());
  how.risks = {{.name = "accuracy", .margin = set.accuracy_loss, .highest = highest},
               {.name = "format", .margin = set.format_loss}};
  if (!options_.others.empty()) how.risks.push_back({.name = "off-target behaviour", .margin = set.off_target});
  result.certificate = steer::certify(set.multiples, losses, how);
  const std::string sentence = result.certificate->sentence();
  auto& chosen = result.trials[static_cast<std::size_t>(result.chosen)];
  if (result.certificate->certified < 0) {
    chosen.dropped = "not certified";
    result.verdict = AutoSteerVerdict::not_certified;
    result.chosen = -1;
    result.reason += ". " + sentence;
    return;
  }
  const double multiple = result.certificate->strength;
  if (multiple != 1) {
    AutoSteerTrial weaker = searched;
    weaker.strength *= multiple;
    weaker.steering = searched.steering.scaled(multiple);
    weaker.target = 0;
    weaker.effect = effect_meter().of(weaker.steering).quantile;
    chosen.dropped = format_text("certified at {:g} times its strength only", multiple);
    result.trials.push_back(std::move(weaker));
    result.chosen = std::ssize(result.trials) - 1;
    const std::size_t last[] = {result.trials.size() - 1};
    measure_behaviour(found, result.trials, last, found.prompts.size());
    measure_cost(result.trials, last);
    result.reason = format_text(
        "{} at {:.2f}, {:g} times the strength that the search chose: behaviour {:.2f} of what "
        "asking gains",
        searched.form, searched.strength * multiple, multiple, result.trials.back().behaviour);
  }
  result.reason += ". " + sentence;
}

}  // namespace steer::features::detail
