// What a judge makes of answers that exist already: steer's results.jsonl, a CSV with the columns arm, behaviour,
// question and response, or a folder of text files that all answer one prompt.
//
//   judge_answers build/demo/results.jsonl --questions examples/data/demo/questions.jsonl --out judged.jsonl
//   judge_answers answers/ --prompt "What is a transistor?" --behaviour funny --judge model.gguf --kind logits
//   judge_answers results.jsonl --questions q.jsonl --judge model.gguf --kind pairs
//   judge_answers results.jsonl --questions q.jsonl --judge model.gguf --kind logits --off-target 20
//   judge_answers results.jsonl --questions q.jsonl --label 60 --out label      a blind page for a person to score
//   judge_answers results.jsonl --labels labels.csv --label-key label/label-key.csv --out labelled.jsonl

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <steer/core/error.hpp>
#include <steer/eval/labels.hpp>
#include <steer/eval/model_judge.hpp>
#include <steer/eval/off_target.hpp>
#include <steer/eval/pairwise.hpp>
#include <steer/eval/questions.hpp>
#include <steer/eval/results.hpp>
#include <steer/eval/rules.hpp>

namespace {

struct Settings {
  std::string answers, judge = "examples/data/demo", kind = "evidence", questions, prompt, behaviour, out, labels,
                       label_key, baseline = "control";
  std::int64_t off_target = 0, label = 0;
};

std::vector<steer::ResultRow> answers_of(const Settings& s) {
  if (!std::filesystem::is_directory(s.answers))
    return s.answers.ends_with(".jsonl") ? steer::load_results(s.answers) : steer::load_results_csv(s.answers);
  std::vector<steer::ResultRow> results;
  for (const auto& file : std::filesystem::directory_iterator(s.answers))
    if (std::ifstream text(file.path()); file.path().extension() == ".txt")
      results.push_back({.arm = "answers",
                         .behaviour = s.behaviour,
                         .question = file.path().stem(),
                         .response = {std::istreambuf_iterator<char>(text), {}}});
  return results;
}

std::map<std::string, std::string> prompts_of(const Settings& s, const std::vector<steer::ResultRow>& results) {
  std::map<std::string, std::string> asked;
  for (const auto& q : s.questions.empty() ? std::vector<steer::Question>{} : steer::load_questions(s.questions))
    asked[q.id] = steer::user_prompt(q);
  for (const auto& result : results) {
    if (asked.contains(result.question)) continue;
    steer::require(!s.prompt.empty(), steer::ErrorCode::argument, "judge_answers",
                   "expected the text of the question \"{}\"; give --questions or --prompt", result.question);
    asked[result.question] = s.prompt;
  }
  return asked;
}

void print_pairs(const char* title, const std::vector<steer::PairTable::Row>& rows) {
  fmt::print("\n{}: share of comparisons won, 0.5 is even; strength in logits\n", title);
  for (const auto& row : rows)
    fmt::print("{:24} {:.3f} [{:.3f}, {:.3f}]   {:+.2f} [{:+.2f}, {:+.2f}]\n", row.arm, row.win.mean,
               row.win.interval.low, row.win.interval.high, row.strength.log, row.strength.interval.low,
               row.strength.interval.high);
}

void score(const Settings& s, std::vector<steer::ResultRow>& results, const std::map<std::string, std::string>& prompts,
           const std::vector<steer::Behaviour>& behaviours) {
  const auto model = steer::Model::load(s.judge);
  for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
  if (s.kind == "pairs") {
    const auto table =
        steer::compare_pairs(results, prompts, behaviours, *steer::pair_judge(model), {.baseline = s.baseline});
    print_pairs("behaviour", table.behaviour);
    print_pairs("better answer", table.quality);
    fmt::print("\nthe judge prefers what is shown first by {:+.2f}; {} comparisons failed\n", table.position,
               table.failed);
    return;
  }
  const auto judge = s.kind == "logits" ? steer::logit_judge(model) : steer::request_evidence(model, behaviours);
  if (s.off_target > 0) {
    for (const auto& table :
         steer::off_target(results, prompts, behaviours, *judge, {.baseline = s.baseline, .questions = s.off_target}))
      fmt::print("{}\n", table.markdown());
    return;
  }
  std::map<std::string, const steer::Behaviour*> known;
  for (const auto& behaviour : behaviours) known[behaviour.name] = &behaviour;
  std::vector<steer::JudgeRequest> requests;
  for (const auto& result : results)
    requests.push_back({prompts.at(result.question), result.response, known.at(result.behaviour)});
  for (const auto rubric : {steer::Rubric::behaviour, steer::Rubric::coherence}) {
    const std::string measure = judge->measure(rubric);
    if (measure.empty()) continue;
    const auto judgements = judge->judge(rubric, requests);
    for (std::size_t i = 0; i < results.size(); ++i)
      if (judgements[i].score) results[i].scores[measure] = *judgements[i].score;
    for (std::size_t i = 0; i < results.size(); ++i)
      fmt::print("{:40} {} {:.2f}\n", results[i].key(), measure, judgements[i].score.value_or(NAN));
  }
}

int run(const Settings& s) {
  auto results = answers_of(s);
  if (!s.labels.empty()) {
    fmt::print("{} labels\n", steer::import_labels(results, s.labels, s.label_key));
    for (const char* measure : {"behaviour", "coherence"}) {
      const bool judged =
          std::any_of(results.begin(), results.end(), [&](const auto& r) { return r.scores.contains(measure); });
      if (!judged) continue;
      fmt::print("\n{} as people would score it: {}, then each arm's difference from it\n", measure, s.baseline);
      for (const auto& estimate : steer::label_estimates(results, measure, s.baseline))
        fmt::print("{:24} {:+.2f} [{:+.2f}, {:+.2f}]  ({} of {} rows labelled; judge trusted {:.2f})\n", estimate.arm,
                   estimate.value.mean, estimate.value.interval.low, estimate.value.interval.high,
                   estimate.value.labelled, estimate.value.rows, estimate.value.lambda);
    }
    if (!s.out.empty()) steer::save_results(results, s.out);
    return 0;
  }
  const auto prompts = prompts_of(s, results);
  std::set<std::string> names;
  for (const auto& result : results) names.insert(result.behaviour);
  auto all = steer::study_behaviours();
  all.insert(all.end(), steer::rule_behaviours().begin(), steer::rule_behaviours().end());
  const auto behaviours = steer::select_behaviours(all, {names.begin(), names.end()});
  if (s.label > 0) {
    steer::require(!s.out.empty(), steer::ErrorCode::argument, "judge_answers",
                   "expected a folder for the page: --out");
    const auto shown = steer::write_label_page(results, prompts, behaviours, s.out, {.answers = s.label});
    fmt::print("{} answers in {}; the key beside it is not for who scores them\n", shown,
               (std::filesystem::path(s.out) / "label.html").string());
    return 0;
  }
  score(s, results, prompts, behaviours);
  if (!s.out.empty()) steer::save_results(results, s.out);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("What a judge makes of answers that exist already");
  Settings s;
  app.add_option("answers", s.answers, "results.jsonl, a CSV or a folder of .txt")
      ->required()
      ->check(CLI::ExistingPath);
  app.add_option("--judge", s.judge, "a Hugging Face folder or a GGUF file: any model")->capture_default_str();
  app.add_option(
         "--kind", s.kind,
         "logits: the judge is asked for a digit; pairs: which of two answers is more so; evidence: how much likelier "
         "it finds an answer under the request, no score")
      ->capture_default_str()
      ->check(CLI::IsMember({"logits", "pairs", "evidence"}));
  app.add_option("--questions", s.questions, "JSON lines with the questions that the answers name");
  app.add_option("--prompt", s.prompt, "what was asked, where it is not among --questions");
  app.add_option("--behaviour", s.behaviour, "of a folder's answers: one of the study's 14");
  app.add_option("--baseline", s.baseline, "the arm that others are compared with")->capture_default_str();
  app.add_option("--off-target", s.off_target, "which other behaviours rose: so many questions of each behaviour")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--label", s.label, "write a blind page with about so many answers into the folder --out")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--labels", s.labels, "labels.csv that such a page saved: estimates of what people would say")
      ->check(CLI::ExistingFile);
  app.add_option("--label-key", s.label_key, "its label-key.csv")->check(CLI::ExistingFile);
  app.add_option("--out", s.out, "results.jsonl with the scores; with --label: a folder");
  CLI11_PARSE(app, argc, argv);
  try {
    return run(s);
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
