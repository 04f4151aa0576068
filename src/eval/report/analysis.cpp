#include <steer/eval/analysis.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <set>

#include <steer/core/error.hpp>

namespace steer {
namespace {

constexpr double kLowestScore = 1, kHighestScore = 5, kCollapsed = 2;

using Rows = std::vector<const Result*>;

std::vector<std::int64_t> question_clusters(const Rows& rows) {
  std::map<std::string, std::int64_t> ids;
  std::vector<std::int64_t> clusters;
  for (const auto* row : rows)
    clusters.push_back(ids.try_emplace(row->question, static_cast<std::int64_t>(ids.size())).first->second);
  return clusters;
}

/// The share of rows with a property, among those it can be told of.
Share share(const Rows& rows, bool one_behaviour, double level,
            const std::function<std::optional<bool>(const Result&)>& property) {
  Share result;
  Rows told;
  std::vector<double> values;
  for (const auto* row : rows)
    if (const auto has = property(*row)) {
      told.push_back(row);
      values.push_back(*has);
      result.hits += *has;
    }
  result.n = static_cast<std::int64_t>(values.size());
  result.value = summarize(values).mean;
  if (one_behaviour || result.hits == 0 || result.hits == result.n) {
    result.interval = proportion_interval(result.hits, result.n, level);
  } else {
    result.interval = clustered_mean(values, question_clusters(told)).interval;
    result.interval = {std::max(0.0, result.interval.low), std::min(1.0, result.interval.high)};
  }
  return result;
}

ScoreStats score_stats(const Rows& rows, const std::string& name) {
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
  stats.interval = clustered_mean(values, question_clusters(scored)).interval;
  const double n = static_cast<double>(stats.summary.n + stats.missing), missing = static_cast<double>(stats.missing);
  stats.worst = (sum + missing * kLowestScore) / n;
  stats.best = (sum + missing * kHighestScore) / n;
  return stats;
}

Cell make_cell(const std::string& arm, const std::string& behaviour, const Rows& rows, double level) {
  const bool one = !behaviour.empty();
  Cell cell;
  cell.arm = arm;
  cell.behaviour = behaviour;
  cell.n = static_cast<std::int64_t>(rows.size());
  const auto of = [&](auto property) { return share(rows, one, level, property); };
  const auto asked = [](const Result& r, bool value) { return r.gold.empty() ? std::nullopt : std::optional(value); };
  cell.accuracy = of([&](const Result& r) { return asked(r, r.correct()); });
  cell.accuracy_lenient = of([&](const Result& r) { return asked(r, r.answer_lenient == r.gold); });
  cell.accuracy_given_format =
      of([&](const Result& r) { return r.answer.empty() ? std::nullopt : asked(r, r.correct()); });
  cell.format = of([&](const Result& r) { return asked(r, !r.answer.empty()); });
  cell.truncated = of([](const Result& r) { return std::optional(r.truncated); });
  cell.collapsed = of([](const Result& r) -> std::optional<bool> {
    const auto found = r.scores.find("collapse");
    return found == r.scores.end() ? std::nullopt : std::optional(found->second >= kCollapsed);
  });
  std::set<std::string> names;
  for (const auto* row : rows) {
    for (const auto& [name, value] : row->scores) names.insert(name);
    for (const auto& [name, reason] : row->failed) names.insert(name);
  }
  for (const auto& name : names) cell.scores[name] = score_stats(rows, name);
  return cell;
}

std::optional<double> measure_of(const Result& row, const std::string& measure) {
  if (measure == "accuracy") return row.gold.empty() ? std::nullopt : std::optional<double>(row.correct());
  const auto found = row.scores.find(measure);
  return found == row.scores.end() ? std::nullopt : std::optional(found->second);
}

/// Nothing when no row of the arm has a partner with this measure.
std::optional<Comparison> compare(const Rows& base, const Rows& rows, const std::string& measure,
                                  const AnalysisOptions& options) {
  std::map<std::pair<std::string, std::string>, const Result*> partner;
  for (const auto* row : base) partner[{row->behaviour, row->question}] = row;
  Rows paired;
  std::vector<double> differences;
  std::vector<std::uint8_t> right_a, right_b;
  for (const auto* row : rows) {
    const auto found = partner.find({row->behaviour, row->question});
    if (found == partner.end()) continue;
    const auto a = measure_of(*found->second, measure), b = measure_of(*row, measure);
    if (!a || !b) continue;
    paired.push_back(row);
    differences.push_back(*b - *a);
    right_a.push_back(*a != 0);
    right_b.push_back(*b != 0);
  }
  if (paired.empty()) return std::nullopt;
  Comparison result;
  result.arm = rows[0]->arm;
  result.measure = measure;
  const auto clusters = question_clusters(paired);
  result.difference = clustered_mean(differences, clusters);
  result.effect = paired_effect_size(differences);
  std::set<std::string> behaviours;
  for (const auto* row : paired) behaviours.insert(row->behaviour);
  if (behaviours.size() > 1) {
    result.test = "permutation of questions";
    result.p = permutation_test(differences, clusters, options.permutations, options.seed);
  } else if (measure == "accuracy") {
    result.test = "exact McNemar";
    result.p = mcnemar(right_a, right_b).p_exact;
  } else {
    result.test = "Wilcoxon signed rank";
    result.p = wilcoxon_signed_rank(differences).p;
  }
  result.p_holm = result.p;
  if (measure == "accuracy") {
    const auto within = equivalence_test(result.difference, options.margin);
    result.p_non_inferior = within.p_lower;
    result.p_equivalent = within.p;
  }
  return result;
}

}  // namespace

const Cell& Analysis::cell(const std::string& arm, const std::string& behaviour) const {
  for (const auto& cell : cells)
    if (cell.arm == arm && cell.behaviour == behaviour) return cell;
  fail(ErrorCode::argument, "Analysis::cell", "expected an arm and behaviour of the results but got \"{}\" and \"{}\"",
       arm, behaviour);
}

const Comparison* Analysis::comparison(const std::string& arm, const std::string& measure,
                                       const std::string& behaviour) const {
  for (const auto& comparison : comparisons)
    if (comparison.arm == arm && comparison.measure == measure && comparison.behaviour == behaviour) return &comparison;
  return nullptr;
}

Analysis analyse(std::span<const Result> results, const AnalysisOptions& options) {
  require(!results.empty(), ErrorCode::argument, "analyse", "expected results but got none");
  Analysis analysis;
  analysis.options = options;
  std::map<std::pair<std::string, std::string>, Rows> rows;  // empty behaviour: all
  std::set<std::string> keys, measures{"accuracy"};
  for (const auto& result : results) {
    require(keys.insert(result.key()).second, ErrorCode::argument, "analyse",
            "expected every row once but got \"{}\" again", result.key());
    const auto note = [](std::vector<std::string>& names, const std::string& name) {
      if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    };
    note(analysis.arms, result.arm);
    note(analysis.behaviours, result.behaviour);
    rows[{result.arm, result.behaviour}].push_back(&result);
    rows[{result.arm, ""}].push_back(&result);
    for (const auto& [name, value] : result.scores) measures.insert(name);
  }
  auto behaviours = analysis.behaviours;
  behaviours.emplace_back();
  for (const auto& arm : analysis.arms)
    for (const auto& behaviour : behaviours)
      if (const auto found = rows.find({arm, behaviour}); found != rows.end())
        analysis.cells.push_back(make_cell(arm, behaviour, found->second, options.level));

  for (const auto& arm : analysis.arms) {
    if (arm == options.baseline) continue;
    for (const auto& measure : measures) {
      const std::size_t first = analysis.comparisons.size();
      std::vector<double> p;
      for (const auto& behaviour : behaviours) {
        const auto a = rows.find({options.baseline, behaviour}), b = rows.find({arm, behaviour});
        if (a == rows.end() || b == rows.end()) continue;
        auto comparison = compare(a->second, b->second, measure, options);
        if (!comparison) continue;
        comparison->behaviour = behaviour;
        if (!behaviour.empty()) p.push_back(comparison->p);
        analysis.comparisons.push_back(std::move(*comparison));
      }
      const auto adjusted = holm(p);
      for (std::size_t i = 0; i < adjusted.size(); ++i) analysis.comparisons[first + i].p_holm = adjusted[i];
    }
  }
  analysis.tradeoffs = tradeoffs(results, options.baseline, options.tradeoff);
  return analysis;
}

}  // namespace steer
