#include <steer/eval/analysis.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <set>

#include <steer/core/error.hpp>
#include <steer/stats/betting.hpp>
#include <steer/stats/draws.hpp>
#include <steer/stats/paired_proportions.hpp>
#include <steer/stats/proportions.hpp>
#include <steer/stats/simultaneous.hpp>

namespace steer {
namespace {

constexpr double kLowestScore = 1, kHighestScore = 5, kCollapsed = 2;

using Rows = std::vector<const ResultRow*>;

std::vector<std::int64_t> question_clusters(const Rows& rows) {
  std::map<std::string, std::int64_t> ids;
  std::vector<std::int64_t> clusters;
  for (const auto* row : rows)
    clusters.push_back(ids.try_emplace(row->question, static_cast<std::int64_t>(ids.size())).first->second);
  return clusters;
}

/// The share of rows with a property, among those it can be told of.
ShareStats share(const Rows& rows, double level, const std::function<std::optional<bool>(const ResultRow&)>& property) {
  Rows told;
  std::vector<std::uint8_t> hits;
  for (const auto* row : rows)
    if (const auto has = property(*row)) {
      told.push_back(row);
      hits.push_back(*has);
    }
  const auto found = clustered_proportion(hits, question_clusters(told), level);
  return {found.hits, found.n, found.value, found.interval, found.design_effect};
}

ScoreStats score_stats(const Rows& rows, const std::string& name, double level) {
  ScoreStats stats;
  Rows scored;
  std::vector<double> values;
  double sum = 0;
  for (const auto* row : rows) {
    if (const auto found = row->scores.find(name); found != row->scores.end()) {
      scored.push_back(row);
      values.push_back(found->second);
      sum += found->second;
    }
    stats.missing += static_cast<std::int64_t>(row->failed.count(name));
  }
  stats.summary = summarize(values);
  stats.interval = clustered_mean(values, question_clusters(scored), level).interval;
  const double n = static_cast<double>(stats.summary.n + stats.missing), missing = static_cast<double>(stats.missing);
  stats.worst = (sum + missing * kLowestScore) / n;
  stats.best = (sum + missing * kHighestScore) / n;
  return stats;
}

ArmCell make_cell(const std::string& arm, const std::string& behaviour, const Rows& rows, double level) {
  ArmCell cell;
  cell.arm = arm;
  cell.behaviour = behaviour;
  cell.n = static_cast<std::int64_t>(rows.size());
  const auto of = [&](auto property) { return share(rows, level, property); };
  const auto asked = [](const ResultRow& r, bool value) {
    return r.gold.empty() ? std::nullopt : std::optional(value);
  };
  cell.accuracy = of([&](const ResultRow& r) { return asked(r, r.correct()); });
  cell.accuracy_lenient = of([&](const ResultRow& r) { return asked(r, r.answer_lenient == r.gold); });
  cell.accuracy_given_format =
      of([&](const ResultRow& r) { return r.answer.empty() ? std::nullopt : asked(r, r.correct()); });
  cell.accuracy_forced = of([&](const ResultRow& r) -> std::optional<bool> {
    const auto forced = r.scores.find("forced_correct");
    if (forced == r.scores.end()) return std::nullopt;
    return asked(r, forced->second != 0);
  });
  cell.format = of([&](const ResultRow& r) { return asked(r, !r.answer.empty()); });
  cell.truncated = of([](const ResultRow& r) { return std::optional(r.truncated); });
  cell.collapsed = of([](const ResultRow& r) -> std::optional<bool> {
    const auto found = r.scores.find("collapse");
    return found == r.scores.end() ? std::nullopt : std::optional(found->second >= kCollapsed);
  });
  std::set<std::string> names;
  for (const auto* row : rows) {
    for (const auto& [name, value] : row->scores) names.insert(name);
    for (const auto& [name, reason] : row->failed) names.insert(name);
  }
  for (const auto& name : names) cell.scores[name] = score_stats(rows, name, level);
  return cell;
}

std::optional<double> measure_of(const ResultRow& row, const std::string& measure) {
  if (measure == "accuracy") return row.gold.empty() ? std::nullopt : std::optional<double>(row.correct());
  const auto found = row.scores.find(measure);
  return found == row.scores.end() ? std::nullopt : std::optional(found->second);
}

/// Rows of an arm beside the baseline's rows of the same behaviour and question.
struct Pairs {
  std::string arm, measure;
  std::vector<double> differences;
  std::vector<std::int64_t> questions, behaviours;
  std::int64_t identical = 0;
  bool several_behaviours = false;
};

/// The arm's row was not steered and is the baseline's answer again.
bool same_answer(const ResultRow& base, const ResultRow& row) {
  const auto letters = [](const ResultRow& r) { return r.scores.contains("p_gold") ? r.scores.at("p_gold") : -1.0; };
  return row.edits.empty() && row.response == base.response && row.answer == base.answer && row.tokens == base.tokens &&
         letters(row) == letters(base) && !(row.response.empty() && letters(row) < 0);
}

/// @param numbers  of the questions, alike for all arms.
Pairs pair_up(const Rows& base, const Rows& rows, const std::string& measure,
              const std::map<std::string, std::int64_t>& numbers) {
  std::map<std::pair<std::string, std::string>, const ResultRow*> partner;
  for (const auto* row : base) partner[{row->behaviour, row->question}] = row;
  Pairs pairs{.arm = rows[0]->arm, .measure = measure, .differences = {}, .questions = {}, .behaviours = {}};
  std::map<std::string, std::int64_t> behaviours;
  for (const auto* row : rows) {
    const auto found = partner.find({row->behaviour, row->question});
    if (found == partner.end()) continue;
    const auto a = measure_of(*found->second, measure), b = measure_of(*row, measure);
    if (!a || !b) continue;
    pairs.differences.push_back(*b - *a);
    pairs.questions.push_back(numbers.at(row->question));
    pairs.identical += same_answer(*found->second, *row);
    pairs.behaviours.push_back(
        behaviours.try_emplace(row->behaviour, static_cast<std::int64_t>(behaviours.size())).first->second);
  }
  pairs.several_behaviours = behaviours.size() > 1;
  return pairs;
}

/// Differences [behaviours][questions] of the questions answered under every behaviour.
std::vector<std::vector<double>> crossed(const Pairs& pairs) {
  std::map<std::int64_t, std::map<std::int64_t, double>> by_question;
  std::set<std::int64_t> behaviours(pairs.behaviours.begin(), pairs.behaviours.end());
  for (std::size_t i = 0; i < pairs.differences.size(); ++i)
    by_question[pairs.questions[i]][pairs.behaviours[i]] = pairs.differences[i];
  std::vector<std::vector<double>> made(behaviours.size());
  for (const auto& [question, of] : by_question) {
    if (of.size() != behaviours.size()) continue;
    for (const auto& [behaviour, difference] : of) made[static_cast<std::size_t>(behaviour)].push_back(difference);
  }
  return made;
}

/// One rule for a comparison: where its interval ends, and its p.
struct Judged {
  Interval interval;
  double p = 1;
  std::string test;
};

/// Scores that all differ by the same: no spread to estimate an error from, but few questions are no certainty.
Judged judge_alike(const Pairs& pairs, double difference, double level) {
  const double range = kHighestScore - kLowestScore;
  const bool on_scale = pairs.measure == "behaviour" || pairs.measure == "coherence";
  if (!on_scale || std::abs(difference) > range) return {{NAN, NAN}, 1, "none: no spread"};
  std::map<std::int64_t, double> by_question;
  for (std::size_t i = 0; i < pairs.questions.size(); ++i) by_question[pairs.questions[i]] = pairs.differences[i];
  std::vector<double> up, down;
  for (const auto& [question, d] : by_question) {
    up.push_back(d);
    down.push_back(-d);
  }
  const double one_sided = 0.5 + level / 2;
  Judged judged{.interval = {-betting_upper_bound(down, one_sided, range), betting_upper_bound(up, one_sided, range)},
                .test = "bets by question"};
  if (difference != 0) judged.p = std::min(1.0, 2 * betting_p(difference > 0 ? down : up, 0, range));
  return judged;
}

Judged judge(const Pairs& pairs, double level) {
  if (pairs.identical == static_cast<std::int64_t>(pairs.differences.size()))
    return {{0, 0}, 1, "none: unsteered, the baseline's own answers"};
  if (pairs.measure == "accuracy") {
    const auto found = clustered_paired_difference(pairs.differences, pairs.questions, level);
    return {found.interval, found.p,
            pairs.several_behaviours ? "score test by question (Tango)" : "score test (Tango)"};
  }
  const auto mean = clustered_mean(pairs.differences, pairs.questions, level);
  if (mean.clusters > 1 && mean.se_cr1 == 0) return judge_alike(pairs, mean.mean, level);
  return {mean.interval, mean.p, "t, clustered by question"};
}

ArmComparison compare(const Pairs& pairs, const AnalysisOptions& options) {
  ArmComparison result;
  result.arm = pairs.arm;
  result.measure = pairs.measure;
  result.identical = pairs.identical;
  result.difference = clustered_mean(pairs.differences, pairs.questions, options.level);
  result.effect = paired_effect_size(pairs.differences);
  const auto judged = judge(pairs, options.level);
  result.difference.interval = result.simultaneous = judged.interval;
  result.test = judged.test;
  result.p = result.p_holm = result.p_simultaneous = judged.p;
  if (pairs.several_behaviours && !result.unsteered())
    if (const auto effects = crossed(pairs); effects.front().size() >= 2) {
      const auto spread = draw_spread(effects, options.level);
      result.over_behaviours = spread.interval;
      result.between_behaviours = spread.between_sd;
    }
  if (pairs.measure != "accuracy") return result;
  if (result.unsteered()) {
    result.p_non_inferior = result.p_non_inferior_holm = result.p_equivalent = result.loss_bound = 0;
    return result;
  }
  std::vector<double> turned;
  for (double d : pairs.differences) turned.push_back(-d);
  const auto loss = loss_test(pairs.differences, pairs.questions, options.accuracy_loss, options.level);
  const auto gain = loss_test(turned, pairs.questions, options.accuracy_loss, options.level);
  result.p_non_inferior = result.p_non_inferior_holm = loss.p;
  result.p_equivalent = std::max(loss.p, gain.p);
  result.loss_bound = loss.upper;
  return result;
}

using RowsOf = std::map<std::pair<std::string, std::string>, Rows>;  // by arm and behaviour; empty behaviour: all

/// The steered rows of an arm that steered some and not others; else none.
Rows steered_rows(const Rows& rows) {
  Rows steered;
  std::copy_if(rows.begin(), rows.end(), std::back_inserter(steered),
               [](const ResultRow* r) { return !r->edits.empty(); });
  return steered.size() < rows.size() ? steered : Rows{};
}

/// One arm and measure: each behaviour, all, the steered rows.
void compare_arm(Analysis& analysis, const RowsOf& rows, const std::vector<std::string>& behaviours,
                 const std::string& arm, const std::string& measure,
                 const std::map<std::string, std::int64_t>& numbers) {
  const auto& options = analysis.options;
  const std::size_t first = analysis.comparisons.size();
  std::vector<double> p;
  const auto add = [&](const Rows& base, const Rows& of, const std::string& behaviour, bool steered_only) {
    const auto pairs = pair_up(base, of, measure, numbers);
    if (pairs.differences.empty()) return;
    auto comparison = compare(pairs, options);
    comparison.behaviour = behaviour;
    comparison.steered_only = steered_only;
    if (!behaviour.empty()) p.push_back(comparison.p);
    analysis.comparisons.push_back(std::move(comparison));
  };
  for (const auto& behaviour : behaviours) {
    const auto a = rows.find({options.baseline, behaviour}), b = rows.find({arm, behaviour});
    if (a != rows.end() && b != rows.end()) add(a->second, b->second, behaviour, false);
  }
  if (const auto steered = steered_rows(rows.at({arm, ""})); !steered.empty())
    add(rows.at({options.baseline, ""}), steered, "", true);
  const auto adjusted = holm(p);
  for (std::size_t i = 0; i < adjusted.size(); ++i) analysis.comparisons[first + i].p_holm = adjusted[i];
}

/// Whoever reads the largest of several arms' differences has chosen it: intervals and p that allow for that.
void adjust_over_arms(std::vector<std::pair<ArmComparison*, Pairs>>& family, const AnalysisOptions& options) {
  std::erase_if(family, [](const auto& arm) { return arm.first->unsteered(); });
  if (family.size() < 2) return;
  std::vector<ComparedRows> rows;
  std::vector<double> losses;
  for (const auto& [comparison, pairs] : family) {
    rows.push_back({pairs.differences, pairs.questions});
    losses.push_back(comparison->p_non_inferior);
  }
  const Simultaneous all(rows, {.draws = options.draws, .seed = options.seed});
  const double level = all.adjusted_level(options.level);
  const auto non_inferior = holm(losses);
  for (std::size_t i = 0; i < family.size(); ++i) {
    auto& [comparison, pairs] = family[i];
    comparison->p_simultaneous = all.adjusted_p(comparison->p);
    comparison->p_non_inferior_holm = non_inferior[i];
    comparison->simultaneous = judge(pairs, level).interval;
  }
}

}  // namespace

const ArmCell& Analysis::cell(const std::string& arm, const std::string& behaviour) const {
  for (const auto& cell : cells)
    if (cell.arm == arm && cell.behaviour == behaviour && !cell.steered_only) return cell;
  fail(ErrorCode::argument, "Analysis::cell", "expected an arm and behaviour of the results but got \"{}\" and \"{}\"",
       arm, behaviour);
}

const ArmComparison* Analysis::comparison(const std::string& arm, const std::string& measure,
                                          const std::string& behaviour) const {
  for (const auto& comparison : comparisons)
    if (comparison.arm == arm && comparison.measure == measure && comparison.behaviour == behaviour &&
        !comparison.steered_only)
      return &comparison;
  return nullptr;
}

const ArmCell* Analysis::steered_cell(const std::string& arm) const {
  for (const auto& cell : cells)
    if (cell.arm == arm && cell.steered_only) return &cell;
  return nullptr;
}

const ArmComparison* Analysis::steered_comparison(const std::string& arm, const std::string& measure) const {
  for (const auto& comparison : comparisons)
    if (comparison.arm == arm && comparison.measure == measure && comparison.steered_only) return &comparison;
  return nullptr;
}

Analysis analyse_results(std::span<const ResultRow> results, const AnalysisOptions& options) {
  require(!results.empty(), ErrorCode::argument, "analyse_results", "expected results but got none");
  Analysis analysis;
  analysis.options = options;
  RowsOf rows;
  std::map<std::string, std::int64_t> numbers;
  std::set<std::string> keys, measures{"accuracy"};
  for (const auto& result : results) {
    require(keys.insert(result.key()).second, ErrorCode::argument, "analyse_results",
            "expected every row once but got \"{}\" again", result.key());
    const auto note = [](std::vector<std::string>& names, const std::string& name) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    };
    numbers.try_emplace(result.question, static_cast<std::int64_t>(numbers.size()));
    note(analysis.arms, result.arm);
    note(analysis.behaviours, result.behaviour);
    rows[{result.arm, result.behaviour}].push_back(&result);
    rows[{result.arm, ""}].push_back(&result);
    for (const auto& [name, value] : result.scores) measures.insert(name);
  }
  auto behaviours = analysis.behaviours;
  behaviours.emplace_back();
  for (const auto& arm : analysis.arms) {
    for (const auto& behaviour : behaviours)
      if (const auto found = rows.find({arm, behaviour}); found != rows.end())
        analysis.cells.push_back(make_cell(arm, behaviour, found->second, options.level));
    if (const auto steered = steered_rows(rows.at({arm, ""})); !steered.empty()) {
      analysis.cells.push_back(make_cell(arm, "", steered, options.level));
      analysis.cells.back().steered_only = true;
    }
  }
  require(rows.contains({options.baseline, ""}), ErrorCode::argument, "analyse_results",
          "expected rows of the baseline arm \"{}\" but got none among {} rows", options.baseline, results.size());
  for (const auto& arm : analysis.arms)
    if (arm != options.baseline)
      for (const auto& measure : measures) compare_arm(analysis, rows, behaviours, arm, measure, numbers);
  for (const char* measure : {"accuracy", "behaviour", "coherence"}) {
    std::vector<std::pair<ArmComparison*, Pairs>> family;
    for (auto& comparison : analysis.comparisons)
      if (comparison.measure == measure && comparison.behaviour.empty() && !comparison.steered_only)
        family.emplace_back(&comparison,
                            pair_up(rows.at({options.baseline, ""}), rows.at({comparison.arm, ""}), measure, numbers));
    adjust_over_arms(family, options);
  }
  analysis.tradeoffs = tradeoffs(results, options.baseline,
                                 {.accuracy_loss = options.accuracy_loss,
                                  .coherence = options.coherence,
                                  .level = options.level,
                                  .reference = options.reference,
                                  .bootstrap = options.bootstrap});
  return analysis;
}

}  // namespace steer
