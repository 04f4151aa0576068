#include <steer/eval/judge_calibration.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "io/strict_json.hpp"
#include "io/text_file.hpp"

namespace steer {
namespace {

using nlohmann::ordered_json;
constexpr double kLeastSpearman = 0.6;

/// The difference from the baseline's row of the same question and behaviour, where both have a score.
ClusteredMean contrast(std::span<const ResultRow> rows, std::span<const std::optional<double>> scores,
                       const std::string& arm, const std::string& baseline) {
  std::map<std::pair<std::string, std::string>, double> base;
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (rows[i].arm == baseline && scores[i]) base[{rows[i].behaviour, rows[i].question}] = *scores[i];
  std::vector<double> differences;
  std::vector<std::int64_t> clusters;
  std::map<std::string, std::int64_t> questions;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto found = base.find({rows[i].behaviour, rows[i].question});
    if (rows[i].arm != arm || !scores[i] || found == base.end()) continue;
    differences.push_back(*scores[i] - found->second);
    clusters.push_back(
        questions.try_emplace(rows[i].question, static_cast<std::int64_t>(questions.size())).first->second);
  }
  return clustered_mean(differences, clusters);
}

/// Two raters of the same rows: resampled by question.
struct Rated {
  std::vector<double> theirs, ours;
  std::vector<int> their_levels, our_levels;
  std::vector<std::int64_t> questions;  // 0, 1, ... of each row

  /// The rows of a draw, each as often as its question was drawn.
  Rated drawn(std::span<const std::int32_t> weights) const {
    Rated some;
    for (std::size_t i = 0; i < theirs.size(); ++i)
      for (std::int32_t k = 0; k < weights[static_cast<std::size_t>(questions[i])]; ++k) {
        some.theirs.push_back(theirs[i]);
        some.ours.push_back(ours[i]);
        some.their_levels.push_back(their_levels[i]);
        some.our_levels.push_back(our_levels[i]);
      }
    return some;
  }
};

Interval interval_of(const Rated& rated, const std::function<double(const Rated&)>& agreement) {
  constexpr std::int64_t kDraws = 1000;
  const auto questions = rated.questions.empty() ? 0 : *std::ranges::max_element(rated.questions) + 1;
  if (questions < 2) return {std::nan(""), std::nan("")};
  auto draws =
      bootstrap_draws(questions, [&](std::span<const std::int32_t> weights) { return agreement(rated.drawn(weights)); },
                      {.draws = kDraws});
  std::erase_if(draws, [](double x) { return std::isnan(x); });  // a draw without any spread has no correlation
  return percentile_interval(std::move(draws), 0.95);
}

JudgeAgreement agree(std::span<const ResultRow> rows, const std::string& measure, std::span<const Judgement> judgements,
                     const std::string& baseline) {
  JudgeAgreement result;
  Rated rated;
  std::map<std::string, std::int64_t> questions;
  std::vector<std::optional<double>> reference(rows.size()), judged(rows.size());
  std::vector<std::string> arms;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto known = rows[i].scores.find(measure);
    if (known == rows[i].scores.end()) continue;
    ++result.rows;
    if (!judgements[i].score) {
      ++result.failed;
      continue;
    }
    reference[i] = known->second;
    judged[i] = judgements[i].score;
    rated.theirs.push_back(known->second);
    rated.ours.push_back(*judgements[i].score);
    rated.questions.push_back(
        questions.try_emplace(rows[i].question, static_cast<std::int64_t>(questions.size())).first->second);
    const auto level = [](double score) { return std::clamp(static_cast<int>(std::lround(score)), 0, 5); };
    rated.their_levels.push_back(level(known->second));
    rated.our_levels.push_back(level(*judgements[i].score));
    if (rows[i].arm != baseline && std::find(arms.begin(), arms.end(), rows[i].arm) == arms.end())
      arms.push_back(rows[i].arm);
  }
  if (rated.theirs.size() < 2) return result;
  const auto ranks = [](const Rated& r) { return spearman(r.theirs, r.ours); };
  const auto levels = [](const Rated& r) { return weighted_kappa(r.their_levels, r.our_levels, 0, 5); };
  result.spearman = ranks(rated);
  result.spearman_interval = interval_of(rated, ranks);
  result.weighted_kappa = levels(rated);
  result.kappa_interval = interval_of(rated, levels);
  for (const auto& arm : arms) {
    const auto theirs_there = contrast(rows, reference, arm, baseline);
    if (theirs_there.n > 0) result.contrasts.push_back({arm, theirs_there, contrast(rows, judged, arm, baseline)});
  }
  return result;
}

ordered_json number(double value) { return std::isfinite(value) ? ordered_json(value) : ordered_json(); }
double number(const ordered_json& value) { return value.is_null() ? std::nan("") : value.get<double>(); }

ordered_json interval_json(const Interval& interval) { return {number(interval.low), number(interval.high)}; }
Interval interval_from(const ordered_json& json) { return {number(json.at(0)), number(json.at(1))}; }

ordered_json mean_json(const ClusteredMean& mean) {
  return {{"n", mean.n},
          {"mean", number(mean.mean)},
          {"low", number(mean.interval.low)},
          {"high", number(mean.interval.high)}};
}

ClusteredMean mean_from(const ordered_json& json) {
  ClusteredMean mean;
  mean.n = json.at("n");
  mean.mean = number(json.at("mean"));
  mean.interval = {number(json.at("low")), number(json.at("high"))};
  return mean;
}

}  // namespace

bool JudgedContrast::wrong_sign() const {
  const bool sure = reference.interval.low > 0 || reference.interval.high < 0;
  return sure && judge.mean * reference.mean <= 0;
}

std::string JudgeAgreement::unusable() const {
  if (rows - failed < 2) return "it scored none of the reference rows";
  if (!(spearman >= kLeastSpearman))
    return format_text("its scores agree with the reference's at Spearman {:.2f}, and {:g} is asked for", spearman,
                       kLeastSpearman);
  for (const auto& contrast : contrasts)
    if (contrast.wrong_sign())
      return format_text("it puts {} at {:+.2f} against the baseline where the reference says {:+.2f}", contrast.arm,
                         contrast.judge.mean, contrast.reference.mean);
  return {};
}

std::string JudgeCalibration::describe() const {
  std::string text = format_text("{}\nagainst {}\n", judge, reference);
  for (const auto& [measure, a] : agreement) {
    text += format_text("\n{}: {} rows{}, Spearman {:.3f} [{:.3f}, {:.3f}], weighted kappa {:.3f} [{:.3f}, {:.3f}]\n",
                        measure, a.rows, a.failed ? format_text(" ({} without a score)", a.failed) : "", a.spearman,
                        a.spearman_interval.low, a.spearman_interval.high, a.weighted_kappa, a.kappa_interval.low,
                        a.kappa_interval.high);
    for (const auto& c : a.contrasts) {
      const auto shown = [](const ClusteredMean& m) {
        return format_text("{:+.2f} [{:+.2f}, {:+.2f}]", m.mean, m.interval.low, m.interval.high);
      };
      text += format_text("  {:24} reference {:22} judge {:22}{}\n", c.arm, shown(c.reference), shown(c.judge),
                          c.wrong_sign() ? " WRONG SIGN" : "");
    }
    const std::string why = a.unusable();
    text += why.empty() ? "  a verdict may rest on it\n" : "  no verdict may rest on it: " + why + "\n";
  }
  return text;
}

void JudgeCalibration::save(const std::filesystem::path& path) const {
  ordered_json json{{"judge", judge}, {"reference", reference}};
  for (const auto& [measure, a] : agreement) {
    ordered_json contrasts = ordered_json::array();
    for (const auto& c : a.contrasts)
      contrasts.push_back({{"arm", c.arm}, {"reference", mean_json(c.reference)}, {"judge", mean_json(c.judge)}});
    json["agreement"][measure] = {{"rows", a.rows},
                                  {"failed", a.failed},
                                  {"spearman", number(a.spearman)},
                                  {"spearman_interval", interval_json(a.spearman_interval)},
                                  {"weighted_kappa", number(a.weighted_kappa)},
                                  {"kappa_interval", interval_json(a.kappa_interval)},
                                  {"contrasts", contrasts}};
  }
  io::detail::write_text_file(path, json.dump(2) + "\n", "JudgeCalibration::save");
}

JudgeCalibration JudgeCalibration::load(const std::filesystem::path& path) {
  constexpr auto where = "JudgeCalibration::load";
  const auto json = io::detail::read_json<ordered_json>(path, where);
  try {
    JudgeCalibration calibration{.judge = json.at("judge"), .reference = json.at("reference")};
    for (const auto& [measure, a] : json.at("agreement").items()) {
      JudgeAgreement& agreement = calibration.agreement[measure];
      agreement.rows = a.at("rows");
      agreement.failed = a.at("failed");
      agreement.spearman = number(a.at("spearman"));
      agreement.weighted_kappa = number(a.at("weighted_kappa"));
      if (a.contains("spearman_interval")) agreement.spearman_interval = interval_from(a.at("spearman_interval"));
      if (a.contains("kappa_interval")) agreement.kappa_interval = interval_from(a.at("kappa_interval"));
      for (const auto& c : a.at("contrasts"))
        agreement.contrasts.push_back({c.at("arm"), mean_from(c.at("reference")), mean_from(c.at("judge"))});
    }
    return calibration;
  } catch (const ordered_json::exception& error) {
    fail(ErrorCode::format, where, "expected a judge's calibration but got: {} ({}); write one with calibrate_judge",
         error.what(), path.string());
  }
}

JudgeCalibration calibrate_judge(std::span<const ResultRow> rows, const std::map<std::string, std::string>& prompts,
                                 const std::vector<Behaviour>& behaviours, Judge& judge, std::string reference,
                                 const std::string& baseline) {
  std::map<std::string, const Behaviour*> known;
  for (const auto& behaviour : behaviours) known[behaviour.name] = &behaviour;
  std::vector<JudgeRequest> requests;
  for (const auto& row : rows) {
    const auto prompt = prompts.find(row.question);
    const auto behaviour = known.find(row.behaviour);
    require(prompt != prompts.end() && behaviour != known.end(), ErrorCode::argument, "calibrate_judge",
            "expected the question \"{}\" and the behaviour \"{}\" among those given", row.question, row.behaviour);
    requests.push_back({prompt->second, row.response, behaviour->second});
  }
  JudgeCalibration calibration{.judge = judge.identity(), .reference = std::move(reference)};
  for (const Rubric rubric : {Rubric::behaviour, Rubric::coherence}) {
    const std::string measure(to_string(rubric));
    const bool any =
        std::any_of(rows.begin(), rows.end(), [&](const ResultRow& row) { return row.scores.contains(measure); });
    if (judge.measure(rubric) != measure || !any) continue;
    calibration.agreement[measure] = agree(rows, measure, judge.judge(rubric, requests), baseline);
  }
  require(
      !calibration.agreement.empty(), ErrorCode::argument, "calibrate_judge",
      "expected rows with reference scores \"behaviour\" or \"coherence\" and a judge that gives them but got none");
  return calibration;
}

}  // namespace steer
