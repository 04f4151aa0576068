// The statistics and the answer parser against the published study (arXiv 2602.04903): its printed t-tests, its stored
// pilot and open-ended rows, and a JSON of corrected results computed from them by others (`definitions` in the file).

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include <steer/eval/answer.hpp>
#include <steer/eval/questions.hpp>
#include <steer/stats/statistics.hpp>

#include "core/format_text.hpp"
#include "paper_data.hpp"

namespace steer {
namespace {

using nlohmann::json;
using test::CaseCounter;

constexpr double kAlpha = 0.05;

// Stored data ---------------------------------------------------------------------------------------------------------

struct Row {
  std::string model, arm, behaviour, question;
  std::map<std::string, double> value;  // by column of the data
};

std::string short_model(const std::string& name) { return name.find("70") != std::string::npos ? "70b" : "8b"; }

std::vector<Row> load_rows(const std::filesystem::path& folder, const std::string& run) {
  std::vector<Row> rows;
  const std::string stem = run == "pilot" ? "mmlu_pilot_" : "openended_";
  for (const char* model : {"8b", "70b"})
    for (auto& raw : test::read_table(folder / (stem + model + ".csv.gz"))) {
      Row row{short_model(raw["model"]), raw["arm"], raw["behaviour"], raw[run == "pilot" ? "qid" : "prompt_id"], {}};
      row.value["behaviour_score"] = std::stod(raw["behaviour_score"]);
      row.value["coherence"] = std::stod(raw["coherence"]);
      if (run == "pilot") {
        const ParsedAnswer answer = parse_answer(raw["response"]);
        row.value["hit_authors"] = std::stod(raw["hit_authors"]);
        row.value["hit_item"] = std::stod(raw["hit_item"]);
        row.value["hit_strict"] = answer.strict && std::string(1, *answer.strict) == raw["gold"];
        row.value["has_tag"] = answer.has_tag;
      }
      rows.push_back(std::move(row));
    }
  return rows;
}

struct ArmCell {
  std::int64_t n, hits;
  bool misaligned;
};

/// The final run: what its summary tables and cell counts hold.
class FinalRun {
 public:
  explicit FinalRun(const std::filesystem::path& folder) {
    for (auto& row : test::read_table(folder / "final_run_cells.csv")) {
      cells_[row["model"]][row["arm"]].emplace(
          row["behaviour"], ArmCell{std::stoll(row["n"]), std::stoll(row["hits_authors"]), row["misaligned"] == "1"});
      if (row["model"] == "8b" && row["arm"] == "control") order_.push_back(row["behaviour"]);
    }
    const std::map<std::string, std::string> arms = {{"Control", "control"},
                                                     {"Simple Prompting", "prompt"},
                                                     {"Auto Steer", "auto_steer"},
                                                     {"Combined Approach", "auto_steer_plus_prompt"}};
    for (const char* model : {"8b", "70b"})
      for (auto& row : test::read_table(folder / "expected" / (std::string("methods_stats_") + model + ".csv"))) {
        auto& scores = scores_[model][arms.at(row["method"])];
        scores["behaviour"] = {std::stoll(row["n"]), std::stod(row["Behaviour Mean"]), std::stod(row["Behaviour Std"])};
        scores["coherence"] = {std::stoll(row["n"]), std::stod(row["Coherence Mean"]), std::stod(row["Coherence Std"])};
      }
  }
  const std::vector<std::string>& behaviours() const { return order_; }
  const ArmCell& cell(const std::string& model, const std::string& arm, const std::string& behaviour) const {
    return cells_.at(model).at(arm).at(behaviour);
  }
  std::vector<std::string> arms(const std::string& model) const {
    std::vector<std::string> names;
    for (auto& [arm, cells] : cells_.at(model)) names.push_back(arm);
    return names;
  }
  Summary summary(const std::string& model, const std::string& arm, const std::string& metric) const {
    if (metric != "accuracy")  // "behaviour" or "behaviour_score", "coherence"
      return scores_.at(model).at(arm).at(metric.starts_with("behavio") ? "behaviour" : metric);
    std::int64_t n = 0, hits = 0;
    for (auto& [behaviour, cell] : cells_.at(model).at(arm)) {
      n += cell.n;
      hits += cell.hits;
    }
    return summarize_hits(hits, n);
  }

 private:
  std::map<std::string, std::map<std::string, std::map<std::string, ArmCell>>> cells_;
  std::map<std::string, std::map<std::string, std::map<std::string, Summary>>> scores_;
  std::vector<std::string> order_;
};

// The same quantities, computed by the library, in the layout of the expected file
// --------------------------------------

json wilcoxon_json(const std::vector<double>& differences) {
  const auto w = wilcoxon_signed_rank(differences);
  return {{"n_nonzero", w.n_nonzero}, {"w_plus", w.w_plus}, {"w_minus", w.w_minus}, {"p", w.p}};
}

json arm_summary(const FinalRun& run, const json& like) {
  const auto accuracy = run.summary(like["model"], like["arm"], "accuracy");
  const auto behaviour = run.summary(like["model"], like["arm"], "behaviour");
  const auto coherence = run.summary(like["model"], like["arm"], "coherence");
  return {{"model", like["model"]},
          {"arm", like["arm"]},
          {"n", accuracy.n},
          {"hits", std::llround(accuracy.mean * static_cast<double>(accuracy.n))},
          {"accuracy", accuracy.mean},
          {"accuracy_sd", accuracy.sd},
          {"behaviour_mean", behaviour.mean},
          {"behaviour_sd", behaviour.sd},
          {"coherence_mean", coherence.mean},
          {"coherence_sd", coherence.sd}};
}

json ttest(const FinalRun& run, const json& like) {
  constexpr double kTests = 36;
  const auto a = run.summary(like["model"], like["a"], like["metric"]);
  const auto b = run.summary(like["model"], like["b"], like["metric"]);
  const auto t = t_test(a, b, Variances::pooled);
  return {{"model", like["model"]},
          {"metric", like["metric"]},
          {"a", like["a"]},
          {"b", like["b"]},
          {"n1", a.n},
          {"n2", b.n},
          {"mean1", a.mean},
          {"mean2", b.mean},
          {"diff", a.mean - b.mean},
          {"t", t.t},
          {"p", t.p},
          {"d", t.cohens_d},
          {"log10_p", t.log10_p},
          {"p_bonferroni36", std::min(1.0, kTests * t.p)},
          {"significant", kTests * t.p < kAlpha}};
}

json accuracy_corrected(const FinalRun& run, const json& like) {
  const std::string model = like["model"], arm = like["arm"];
  if (like.contains("behaviours")) {  // all arms, over the behaviours that are aligned in every one
    json accuracy;
    std::int64_t used = 0;
    for (const auto& name : run.arms(model)) {
      std::int64_t hits = 0, n = 0;
      used = 0;
      for (const auto& behaviour : run.behaviours()) {
        bool aligned = true;
        for (const auto& other : run.arms(model)) aligned &= !run.cell(model, other, behaviour).misaligned;
        if (!aligned) continue;
        ++used;
        hits += run.cell(model, name, behaviour).hits;
        n += run.cell(model, name, behaviour).n;
      }
      accuracy[name] = summarize_hits(hits, n).mean;
    }
    return {{"model", model}, {"arm", arm}, {"behaviours", used}, {"accuracy", accuracy}};
  }
  json misaligned = json::array();
  std::int64_t hits = 0, n = 0, aligned = 0;
  for (const auto& behaviour : run.behaviours()) {
    const ArmCell& cell = run.cell(model, arm, behaviour);
    if (cell.misaligned) {
      misaligned.push_back(behaviour);
      continue;
    }
    ++aligned;
    hits += cell.hits;
    n += cell.n;
  }
  return {{"model", model},
          {"arm", arm},
          {"accuracy_authors", run.summary(model, arm, "accuracy").mean},
          {"accuracy_aligned_cells", summarize_hits(hits, n).mean},
          {"n_aligned_cells", aligned},
          {"misaligned", misaligned}};
}

/// Only the margins of each behaviour's 2 x 2 table are known, so McNemar's p is bounded over all tables with them.
json accuracy_comparison(const FinalRun& run, const json& like) {
  const std::string model = like["model"], a = like["a"], b = like["b"];
  std::vector<double> differences, p_min, p_max;
  json rows = json::array();
  for (const auto& behaviour : run.behaviours()) {
    const ArmCell &cell_a = run.cell(model, a, behaviour), &cell_b = run.cell(model, b, behaviour);
    if (cell_a.misaligned || cell_b.misaligned) continue;
    const std::int64_t n = cell_a.n, gap = cell_a.hits - cell_b.hits, least = std::abs(gap);
    const std::int64_t only_a_max = std::min(cell_a.hits, n - cell_b.hits), only_b_max = only_a_max - gap;
    differences.push_back(summarize_hits(cell_b.hits, cell_b.n).mean - summarize_hits(cell_a.hits, cell_a.n).mean);
    const double at_least = mcnemar(std::max<std::int64_t>(gap, 0), std::max<std::int64_t>(-gap, 0)).p_exact;
    const double at_most = mcnemar(only_a_max, only_b_max).p_exact;
    p_min.push_back(std::min(at_least, at_most));
    p_max.push_back(std::max(at_least, at_most));
    rows.push_back({{"behaviour", behaviour},
                    {"hits_a", cell_a.hits},
                    {"hits_b", cell_b.hits},
                    {"b_minus_c", gap},
                    {"discordant_min", least},
                    {"discordant_max", only_a_max + only_b_max},
                    {"p_exact_min", p_min.back()},
                    {"p_exact_max", p_max.back()},
                    {"p_fisher_unpaired", fisher_exact(cell_a.hits, cell_a.n, cell_b.hits, cell_b.n)}});
  }
  const auto holm_min = holm(p_min), holm_max = holm(p_max);
  json significant = json::array(), not_significant = json::array();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i]["p_holm_at_min"] = holm_min[i];
    rows[i]["p_holm_at_max"] = holm_max[i];
    if (holm_max[i] < kAlpha) significant.push_back(rows[i]["behaviour"]);
    if (p_min[i] > kAlpha) not_significant.push_back(rows[i]["behaviour"]);
  }
  const Summary over = summarize(differences);
  const auto t = clustered_mean(differences, {});
  const auto sign = sign_test(differences);
  return {{"model", model},
          {"a", a},
          {"b", b},
          {"n_behaviours", over.n},
          {"mean_diff", over.mean},
          {"sd_over_behaviours", over.sd},
          {"se_over_behaviours", t.se_iid},
          {"t_over_behaviours", over.mean / t.se_iid},
          {"p_t", t.p},
          {"wilcoxon", wilcoxon_json(differences)},
          {"sign_test", {{"pos", sign.positive}, {"neg", sign.negative}, {"p", sign.p}}},
          {"certainly_significant_holm05", significant},
          {"certainly_not_significant_05", not_significant},
          {"per_behaviour", rows}};
}

json row_summary(const std::vector<Row>& rows, const json& like) {
  json result{{"run", like["run"]}, {"model", like["model"]}, {"arm", like["arm"]}};
  std::map<std::string, std::vector<double>> columns;
  std::int64_t n = 0;
  for (const auto& row : rows) {
    if (like["model"] != row.model || like["arm"] != row.arm) continue;
    ++n;
    for (auto& [name, value] : row.value) columns[name].push_back(value);
  }
  result["n"] = n;
  for (auto& [name, values] : columns) {
    const auto summary = summarize(values);
    result[name] = {summary.mean, summary.sd};
  }
  return result;
}

/// The two arms of a comparison joined on (behaviour, question).
json paired_comparison(const std::vector<Row>& rows, const std::string& model, const json& like) {
  const auto model_of = [&](const char* side) {
    return like.value(std::string("model_") + side, like.value("model", model));
  };
  std::map<std::pair<std::string, std::string>, const Row*> first;
  for (const auto& row : rows)
    if (model_of("a") == row.model && like["a"] == row.arm) first[{row.behaviour, row.question}] = &row;
  struct Pair {
    const Row *a, *b;
  };
  std::vector<Pair> pairs;
  std::map<std::string, std::vector<Pair>> by_behaviour;
  std::map<std::string, std::int64_t> question_ids;
  std::vector<std::int64_t> clusters;
  for (const auto& row : rows) {
    if (model_of("b") != row.model || like["b"] != row.arm) continue;
    const auto partner = first.find({row.behaviour, row.question});
    if (partner == first.end()) continue;
    pairs.push_back({partner->second, &row});
    by_behaviour[row.behaviour].push_back(pairs.back());
    clusters.push_back(
        question_ids.try_emplace(row.question, static_cast<std::int64_t>(question_ids.size())).first->second);
  }
  const auto differences = [](const std::vector<Pair>& of, const std::string& name) {
    std::vector<double> values;
    for (auto& pair : of) values.push_back(pair.b->value.at(name) - pair.a->value.at(name));
    return values;
  };
  const auto hits = [](const std::vector<Pair>& of, const Row* Pair::*side) {
    std::vector<std::uint8_t> values;
    for (auto& pair : of) values.push_back((pair.*side)->value.at("hit_item") != 0);
    return values;
  };
  const bool scored = !pairs.empty() && pairs[0].a->value.contains("hit_item");

  json overall;
  for (const char* metric : {"hit_item", "hit_strict", "behaviour_score", "coherence"}) {
    if (!scored && std::string(metric).starts_with("hit")) continue;
    const auto d = differences(pairs, metric);
    const auto mean = clustered_mean(d, clusters);
    const auto boot = cluster_bootstrap(d, clusters, {.draws = 100000});
    overall[metric] = {{"n_pairs", mean.n},
                       {"n_clusters", mean.clusters},
                       {"diff", mean.mean},
                       {"se_iid", mean.se_iid},
                       {"se_cluster_cr0", mean.se_cr0},
                       {"se_cluster_cr1", mean.se_cr1},
                       {"boot_B", 10000},
                       {"boot_se", boot.se},
                       {"ci95_percentile", {boot.interval.low, boot.interval.high}},
                       {"p_cluster_normal", mean.p_normal},
                       {"wilcoxon", wilcoxon_json(d)}};
  }
  if (scored) {
    const auto m = mcnemar(hits(pairs, &Pair::a), hits(pairs, &Pair::b));
    overall["mcnemar_naive_all_rows"] = {{"b", m.only_a},
                                         {"c", m.only_b},
                                         {"p_exact", m.p_exact},
                                         {"p_mid", m.p_mid},
                                         {"note", "rows are not independent; per-behaviour rows are"}};
  }

  std::map<std::string, json> rows_out;
  std::map<std::string, std::vector<double>> p_values;
  for (auto& [behaviour, of] : by_behaviour) {
    json& row = rows_out[behaviour];
    row["behaviour"] = behaviour;
    row["n"] = of.size();
    if (scored) {
      const auto m = mcnemar(hits(of, &Pair::a), hits(of, &Pair::b));
      // That table's mid-p takes all of the tie's mass off where b = c, Fagerland, Lydersen and Laake (2013) half of
      // it.
      const double p_mid = m.only_a == m.only_b && m.only_a > 0 ? 2 * m.p_mid - 1 : m.p_mid;
      row["mcnemar"] = {{"both", m.both},       {"b", m.only_a},        {"c", m.only_b},
                        {"neither", m.neither}, {"p_exact", m.p_exact}, {"p_mid", p_mid}};
      p_values["mcnemar"].push_back(m.p_exact);
    }
    for (const char* metric : {"behaviour_score", "coherence"}) {
      std::vector<double> a, b;
      for (auto& pair : of) {
        a.push_back(pair.a->value.at(metric));
        b.push_back(pair.b->value.at(metric));
      }
      const auto d = differences(of, metric);
      const auto mean = clustered_mean(d, {});
      row[metric] = {{"mean_a", summarize(a).mean},
                     {"mean_b", summarize(b).mean},
                     {"diff", mean.mean},
                     {"se", mean.se_iid},
                     {"wilcoxon", wilcoxon_json(d)}};
      p_values[metric].push_back(row[metric]["wilcoxon"]["p"]);
    }
  }
  for (auto& [metric, p] : p_values) {
    const auto adjusted = holm(p);
    std::size_t i = 0;
    for (auto& [behaviour, row] : rows_out)
      (metric == "mcnemar" ? row[metric] : row[metric]["wilcoxon"])["p_holm"] = adjusted[i++];
  }
  json per_behaviour = json::array();
  for (const json& wanted : like.value("per_behaviour", json::array()))
    per_behaviour.push_back(rows_out[wanted["behaviour"]]);
  return {{"a", like["a"]},
          {"b", like["b"]},
          {"n_pairs", pairs.size()},
          {"overall", overall},
          {"per_behaviour", per_behaviour}};
}

// Comparing
// -------------------------------------------------------------------------------------------------------------

/// Walks every value of `expected` and counts it as a case.
class Walker {
 public:
  explicit Walker(CaseCounter& counter) : counter_(counter) {}

  void compare(const json& expected, const json& ours, const std::string& path, double bootstrap_se = 0) {
    if (expected.is_object()) {
      const double se = expected.contains("boot_se") ? expected["boot_se"].get<double>() : bootstrap_se;
      for (auto& [key, value] : expected.items()) {
        const json mine = ours.is_object() && ours.contains(key) ? ours[key] : json();
        compare(value, mine, path + "/" + key, se);
      }
    } else if (expected.is_array()) {
      if (!ours.is_array() || ours.size() != expected.size()) return judge(false, path, expected, ours);
      if (expected.empty()) return judge(true, path, expected, ours);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        const bool named = expected[i].is_object() && expected[i].contains("behaviour");
        compare(expected[i], ours[i],
                path + "/" + (named ? expected[i]["behaviour"].get<std::string>() : std::to_string(i)), bootstrap_se);
      }
    } else if (expected.is_number() && ours.is_number()) {
      const double want = expected, got = ours, gap = std::abs(want - got);
      double tolerance = 1e-8 * std::abs(want) + 1e-300;
      if (path.find("/diff") != std::string::npos || path.find("mean") != std::string::npos) tolerance += 1e-12;
      if (path.ends_with("/t") || path.ends_with("/d") || path.find("se") != std::string::npos) tolerance += 1e-12;
      if (path.ends_with("/boot_se")) tolerance = 0.03 * want;  // stated in the file's definitions
      if (path.find("/ci95_percentile/") != std::string::npos) tolerance = 0.1 * bootstrap_se;
      judge(gap <= tolerance, path, expected, ours);
    } else {
      judge(expected == ours, path, expected, ours);
    }
  }

 private:
  void judge(bool ok, const std::string& path, const json& expected, const json& ours) {
    counter_.count(ok);
    EXPECT_TRUE(ok) << path << ": expected " << expected.dump() << ", computed " << ours.dump();
  }
  CaseCounter& counter_;
};

class Paper : public testing::Test {
 protected:
  void SetUp() override {
    const auto data = test::paper_results();
    if (!data.present && !data.named) GTEST_SKIP() << "no stored results of the study at " << data.path;
    ASSERT_TRUE(data.present) << data.path << " does not exist";
    folder_ = data.path;
  }
  std::filesystem::path folder_;
};

// Their stored answers, read again by our parser.
TEST_F(Paper, ParserAgreesWithStoredAnswers) {
  CaseCounter counter("paper");
  for (const char* file : {"mmlu_pilot_8b.csv.gz", "mmlu_pilot_70b.csv.gz"})
    for (auto& row : test::read_table(folder_ / file)) {
      const ParsedAnswer answer = parse_answer(row["response"]);
      const std::string letter = answer.strict ? std::string(1, *answer.strict) : "";
      const bool hit = letter == row["gold"];
      const bool ok =
          answer.has_tag == (row["has_tag"] == "1") && letter == row["answer"] && hit == (row["hit_strict"] == "1");
      counter.count(ok);
      EXPECT_TRUE(ok) << row["arm"] << " " << row["behaviour"] << " " << row["qid"] << ": stored " << row["has_tag"]
                      << " \"" << row["answer"] << "\", parsed " << answer.has_tag << " \"" << letter << "\"";
    }
  EXPECT_EQ(counter.passed() + counter.failed(), 1738);
}

// Every digit of the 36 t-tests that the study prints, from its own summary values.
TEST_F(Paper, PrintedTTests) {
  CaseCounter counter("paper");
  const FinalRun run(folder_);
  const std::map<std::string, std::string> arms = {{"Control", "control"},
                                                   {"Simple Prompting", "prompt"},
                                                   {"Auto Steer", "auto_steer"},
                                                   {"Combined Approach", "auto_steer_plus_prompt"}};
  const std::map<std::string, std::string> metrics = {
      {"Accuracy", "accuracy"}, {"Behavior", "behaviour"}, {"Coherence", "coherence"}};
  const auto table = test::read_table(folder_ / "expected" / "pairwise_ttests_bonferroni.csv");
  EXPECT_EQ(table.size(), 36u);
  for (auto row : table) {
    const std::string pair = row["Comparison"];
    const auto cut = pair.find(" vs ");
    const std::string model = short_model(row["Model"]), metric = metrics.at(row["Metric"]);
    const Summary a = run.summary(model, arms.at(pair.substr(0, cut)), metric);
    const Summary b = run.summary(model, arms.at(pair.substr(cut + 4)), metric);
    const TTest t = t_test(a, b, Variances::pooled);
    const auto same = [&](const char* column, const std::string& ours) {
      counter.count(row[column] == ours);
      EXPECT_EQ(row[column], ours) << row["Model"] << " " << row["Metric"] << " " << pair << " " << column;
    };
    same("Mean 1", format_text("{:.4f}", a.mean));
    same("Mean 2", format_text("{:.4f}", b.mean));
    same("Diff", format_text("{:.4f}", a.mean - b.mean));
    same("t-statistic", format_text("{:.4f}", t.t));
    same("p-value", format_text("{:.6f}", t.p));
    same("Significant", t.p < kAlpha / 36 ? "***" : "");
    same("Cohen's d", format_text("{:.4f}", t.cohens_d));
    same("n1", std::to_string(a.n));
    same("n2", std::to_string(b.n));
  }
}

// Every value of the corrected results; STEER_PAPER_EXPECTED names another file of the same layout.
TEST_F(Paper, CorrectedResults) {
  CaseCounter counter("paper");
  const auto named = test::outside_data("STEER_PAPER_EXPECTED", "");
  const auto path = named.named ? named.path : folder_ / "expected" / "corrected_8b.json";
  const json expected = json::parse(test::read_file(path), nullptr, false);
  ASSERT_TRUE(expected.is_object()) << path << " is not a JSON object";
  const FinalRun final_run(folder_);
  const auto pilot = load_rows(folder_, "pilot"), open_ended = load_rows(folder_, "openended");
  Walker walker(counter);

  const std::map<std::string, json (*)(const FinalRun&, const json&)> final_lists = {
      {"arm_summary", arm_summary},
      {"ttests", ttest},
      {"accuracy_corrected", accuracy_corrected},
      {"accuracy_comparisons", accuracy_comparison}};
  const json final_expected = expected.value("final_run", json::object());
  for (auto& [name, list] : final_expected.items()) {
    const auto compute = final_lists.find(name);
    ASSERT_TRUE(compute != final_lists.end()) << "no definition of final_run/" << name;
    for (std::size_t i = 0; i < list.size(); ++i)
      walker.compare(list[i], compute->second(final_run, list[i]), format_text("final_run/{}/{}", name, i));
  }
  for (auto& [name, list] : expected.items()) {
    const bool is_pilot = name.starts_with("pilot_"), is_open = name.starts_with("openended_");
    if (!is_pilot && !is_open) continue;
    const std::string model = name.find("70b") != std::string::npos ? "70b" : "8b";
    for (std::size_t i = 0; i < list.size(); ++i) {
      const json& like = list[i];
      const json ours = like.contains("arm") ? row_summary(like["run"] == "pilot" ? pilot : open_ended, like)
                                             : paired_comparison(is_pilot ? pilot : open_ended, model, like);
      walker.compare(like, ours, format_text("{}/{}", name, i));
    }
  }
  EXPECT_GT(counter.passed(), 0);
}

// The study's questions and ours carry the same gold letters, in its order.
TEST_F(Paper, QuestionsMatchTheStudys) {
  const auto mmlu = test::outside_data("STEER_MMLU", "../shared/data/mmlu");
  if (!mmlu.present) GTEST_SKIP() << "no MMLU at " << mmlu.path;
  CaseCounter counter("paper");
  std::map<std::string, Question> by_id;
  for (auto& question : load_mmlu(mmlu.path, Mmlu::dev)) by_id[question.id] = question;
  const auto study = load_mmlu(mmlu.path);
  EXPECT_EQ(study.size(), 171u);
  for (auto& row : test::read_table(folder_ / "questions.csv")) {
    const std::string id = row["subject"] + ":dev:" + row["dev_row"];
    bool ok = by_id.contains(id) && by_id[id].gold() == row["gold"];
    // By text, not id: one dev file (college_physics) holds a question twice, and the list names its second place.
    if (const auto& place = row["final_run_position"]; !place.empty())
      ok &= study.at(std::stoul(place)).text == by_id[id].text;
    counter.count(ok);
    EXPECT_TRUE(ok) << id;
  }
}

}  // namespace
}  // namespace steer
