// How far a judge can be trusted: its scores of texts that have reference scores, beside them. By default on the stored
// pilot rows of arXiv 2602.04903 (1,738 answers to MMLU questions, scored by gpt-4o-mini), which are not part of this
// repository: STEER_PAPER_RESULTS or --paper names their folder, STEER_MMLU or --mmlu that of the questions.
//
//   calibrate_judge --judge logits --model qwen-32b.gguf --out calibration.json
//   calibrate_judge --judge http --model gpt-4o-mini --limit 300
//   calibrate_judge --results run/results.csv.gz --labels labels.csv --judge logits --model qwen-32b.gguf
//   calibrate_judge --results run/results.csv.gz --labels labels.csv --judge stored     the scores the rows have
//
// Labels are a reader's: a CSV with arm, behaviour, question, label_behaviour, label_coherence.
//
// mmlu_tradeoff --calibration calibration.json then gives no verdict on what this judge does not measure well.

#include <zlib.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <steer/core/error.hpp>
#include <steer/core/progress.hpp>
#include <steer/eval/http_judge.hpp>
#include <steer/eval/judge_calibration.hpp>
#include <steer/eval/model_judge.hpp>
#include <steer/eval/questions.hpp>

namespace {

struct Settings {
  std::string paper, mmlu, results, labels, judge = "logits", model, compute = "f32", url = "https://api.openai.com/v1",
                                            out;
  std::int64_t limit = 0;
};

std::string from_environment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

/// A packed table, unpacked for as long as this lives: tables are read plain.
class Unpacked {
 public:
  explicit Unpacked(const std::filesystem::path& packed)
      : path_(std::filesystem::temp_directory_path() /
              fmt::format("steer-calibrate-{:08x}.csv", std::random_device()())) {
    const std::unique_ptr<gzFile_s, decltype(&gzclose)> file(gzopen(packed.c_str(), "rb"), &gzclose);
    steer::require(file != nullptr, steer::ErrorCode::io, "calibrate_judge", "expected a readable file but got \"{}\"",
                   packed.string());
    std::ofstream out(path_, std::ios::binary);
    char buffer[1 << 16];
    int n = 0;
    while ((n = gzread(file.get(), buffer, sizeof buffer)) > 0) out.write(buffer, n);
    int error = 0;  // also where the file ends too soon, which gzread lets pass
    const std::string what = gzerror(file.get(), &error);
    if (n == 0 && error == Z_OK && out.flush()) return;
    std::filesystem::remove(path_);
    steer::fail(steer::ErrorCode::io, "calibrate_judge", "expected all of \"{}\" but got: {}; fetch it again",
                packed.string(), error == Z_OK ? "no room for it in " + path_.parent_path().string() : what);
  }
  ~Unpacked() { std::filesystem::remove(path_); }
  Unpacked(const Unpacked&) = delete;
  Unpacked& operator=(const Unpacked&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::vector<steer::ResultRow> pilot_rows(const Settings& s) {
  std::vector<steer::ResultRow> rows;
  for (const char* name : {"mmlu_pilot_8b.csv.gz", "mmlu_pilot_70b.csv.gz"}) {
    const auto some = steer::load_results_csv(
        Unpacked(std::filesystem::path(s.paper) / name).path(),
        {{"qid", "question"}, {"behaviour_score", "score_behaviour"}, {"coherence", "score_coherence"}});
    rows.insert(rows.end(), some.begin(), some.end());
  }
  if (s.limit <= 0 || s.limit >= std::ssize(rows)) return rows;
  // Whole cells, so that arms stay comparable: every n-th question.
  std::map<std::string, std::int64_t> questions;
  for (const auto& row : rows) questions.try_emplace(row.behaviour + "|" + row.question, std::ssize(questions));
  const auto every = (std::ssize(rows) + s.limit - 1) / s.limit;
  std::erase_if(rows, [&](const auto& row) { return questions.at(row.behaviour + "|" + row.question) % every != 0; });
  return rows;
}

/// The study's own criteria.
std::vector<steer::Behaviour> rubrics(const Settings& s) {
  std::ifstream file(std::filesystem::path(s.paper) / "rubrics.json");
  const auto json = nlohmann::json::parse(file, nullptr, false);
  steer::require(json.is_object() && json.contains("behaviour"), steer::ErrorCode::format, "calibrate_judge",
                 "expected rubrics.json in \"{}\"", s.paper);
  std::vector<steer::Behaviour> behaviours;
  for (const auto& [name, rubric] : json["behaviour"].items()) {
    steer::Behaviour behaviour{.name = name, .instruction = rubric.at("query")};
    for (const auto& c : rubric.at("criteria"))
      behaviour.criteria.push_back({c.at("name"), c.at("name"), c.at("points")});
    behaviours.push_back(std::move(behaviour));
  }
  return behaviours;
}

/// What somebody else said of the answers, by behaviour and answer.
class StoredJudge : public steer::Judge {
 public:
  explicit StoredJudge(const std::vector<steer::ResultRow>& rows) {
    for (const auto& row : rows) scores_[{row.behaviour, row.response}] = row.scores;
  }
  std::string identity() const override { return "the scores stored with the answers"; }
  std::vector<steer::Judgement> judge(steer::Rubric rubric, std::span<const steer::JudgeRequest> requests) override {
    std::vector<steer::Judgement> judgements;
    for (const auto& request : requests) {
      const auto& scores = scores_.at({request.behaviour->name, request.response});
      const auto found = scores.find(measure(rubric));
      judgements.push_back(found == scores.end() ? steer::Judgement{.failure = "not judged"}
                                                 : steer::Judgement{.score = found->second});
    }
    return judgements;
  }

 private:
  std::map<std::pair<std::string, std::string>, std::map<std::string, double>> scores_;
};

/// A judge in portions, with how far it is on stderr.
class Shown : public steer::Judge {
 public:
  explicit Shown(std::shared_ptr<steer::Judge> judge) : judge_(std::move(judge)) {}
  std::string identity() const override { return judge_->identity(); }
  std::string caveat() const override { return judge_->caveat(); }
  std::string unfit(steer::Rubric rubric) const override { return judge_->unfit(rubric); }
  std::string measure(steer::Rubric rubric) const override { return judge_->measure(rubric); }
  std::vector<steer::Judgement> judge(steer::Rubric rubric, std::span<const steer::JudgeRequest> requests) override {
    constexpr std::size_t portion = 32;
    steer::Progress progress("judging " + measure(rubric), std::ssize(requests));
    std::vector<steer::Judgement> all;
    for (; !requests.empty(); requests = requests.subspan(std::min(portion, requests.size()))) {
      const auto some = judge_->judge(rubric, requests.first(std::min(portion, requests.size())));
      all.insert(all.end(), some.begin(), some.end());
      progress.advance(std::ssize(some));
    }
    return all;
  }

 private:
  std::shared_ptr<steer::Judge> judge_;
};

std::vector<steer::ResultRow> results_of(const Settings& s) {
  if (!s.results.ends_with(".gz")) return steer::load_results_csv(s.results);
  return steer::load_results_csv(Unpacked(s.results).path());
}

/// The labelled ones among some results, with the labels as their scores.
std::vector<steer::ResultRow> labelled_rows(const Settings& s, const std::vector<steer::ResultRow>& results) {
  std::map<std::string, std::map<std::string, double>> labels;
  for (const auto& row : steer::load_results_csv(
           s.labels, {{"label_behaviour", "score_behaviour"}, {"label_coherence", "score_coherence"}}))
    labels[row.key()] = row.scores;
  std::vector<steer::ResultRow> rows;
  for (const auto& row : results)
    if (const auto label = labels.find(row.key()); label != labels.end()) {
      rows.push_back(row);
      rows.back().scores = label->second;
    }
  steer::require(rows.size() == labels.size(), steer::ErrorCode::format, "calibrate_judge",
                 "expected an answer for each of {} labels but found {} in {}", labels.size(), rows.size(), s.results);
  return rows;
}

std::shared_ptr<steer::Judge> judge_of(const Settings& s, const std::vector<steer::ResultRow>& results) {
  if (s.judge == "stored") return std::make_shared<StoredJudge>(results);
  steer::require(!s.model.empty(), steer::ErrorCode::argument, "calibrate_judge", "expected a judge: --model");
  if (s.judge == "logits")
    return steer::logit_judge(steer::Model::load(
        s.model, {.compute = steer::parse_enum<steer::ComputeFormat>(s.compute, "calibrate_judge")}));
  steer::HttpJudgeOptions options;
  options.url = s.url;
  options.model = s.model;
  return std::make_shared<steer::HttpJudge>(options);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("How far a judge can be trusted: its scores of texts that have reference scores");
  Settings s{.paper = from_environment("STEER_PAPER_RESULTS", "../shared/data/paper_results"),
             .mmlu = from_environment("STEER_MMLU", "../shared/data/mmlu")};
  app.add_option("--judge", s.judge,
                 "logits: a local model is asked for a digit; http: an OpenAI-compatible API; stored: the scores that "
                 "--results has")
      ->capture_default_str()
      ->check(CLI::IsMember({"logits", "http", "stored"}));
  app.add_option("--model", s.model, "logits: a Hugging Face folder or a GGUF file; http: the name of the model");
  app.add_option("--compute", s.compute, "logits: what activations are rounded to: f32 (not), bf16 or int8")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16", "int8"}));
  app.add_option("--results", s.results, "answers of one's own, in place of the study's: results.csv, or .csv.gz")
      ->check(CLI::ExistingFile);
  app.add_option("--labels", s.labels, "of --results: arm, behaviour, question, label_behaviour, label_coherence")
      ->check(CLI::ExistingFile);
  app.add_option("--url", s.url, "of the API; the key comes from OPENAI_API_KEY")->capture_default_str();
  app.add_option("--limit", s.limit, "about so many rows, evenly spread; 0: all 1,738")->check(CLI::NonNegativeNumber);
  app.add_option("--paper", s.paper, "folder of the study's stored rows")->capture_default_str();
  app.add_option("--mmlu", s.mmlu, "MMLU folder in its original layout")->capture_default_str();
  app.add_option("--out", s.out, "calibration.json, for mmlu_tradeoff --calibration");
  CLI11_PARSE(app, argc, argv);
  try {
    steer::require(s.results.empty() == s.labels.empty() && (s.judge != "stored" || !s.results.empty()),
                   steer::ErrorCode::argument, "calibrate_judge", "expected --results and --labels together");
    const bool own = !s.results.empty();
    const auto results = own ? results_of(s) : std::vector<steer::ResultRow>{};
    std::map<std::string, std::string> prompts;
    if (s.judge != "stored")
      for (const auto& question : steer::load_mmlu(s.mmlu, steer::Mmlu::dev)) {
        const auto split = question.id.find(":dev:");  // the study's rows name them subject:row
        prompts[question.id.substr(0, split) + question.id.substr(split + 4)] = steer::user_prompt(question);
        prompts[question.id] = steer::user_prompt(question);
      }
    if (s.judge == "stored")
      for (const auto& row : results) prompts.try_emplace(row.question);  // of stored scores nothing is asked
    const auto judge = std::make_shared<Shown>(judge_of(s, results));
    const auto calibration = own ? steer::calibrate_judge(labelled_rows(s, results), prompts, steer::study_behaviours(),
                                                          *judge, "the labels of " + s.labels)
                                 : steer::calibrate_judge(pilot_rows(s), prompts, rubrics(s), *judge,
                                                          "gpt-4o-mini on the study's pilot rows");
    fmt::print("{}", calibration.describe());
    if (!s.out.empty()) calibration.save(s.out);
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
