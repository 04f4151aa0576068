// Scores answers that exist already with a local model as the judge: steer's results.jsonl, a CSV with the columns arm,
// behaviour, question and response, or a folder of text files that all answer one prompt.
//
//   judge_answers build/demo/results.jsonl --questions examples/data/demo/questions.jsonl --out judged.jsonl
//   judge_answers answers/ --prompt "What is a transistor?" --behaviour funny --judge model.gguf --kind logits

#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <steer/core/error.hpp>
#include <steer/eval/model_judge.hpp>
#include <steer/eval/questions.hpp>
#include <steer/eval/results.hpp>

int main(int argc, char** argv) {
  CLI::App app("Scores answers that exist already with a local model as the judge");
  std::string answers, judge_path = "examples/data/demo", kind = "likelihood", questions, prompt, behaviour, out;
  app.add_option("answers", answers, "results.jsonl, a CSV or a folder of .txt")->required()->check(CLI::ExistingPath);
  app.add_option("--judge", judge_path, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("--kind", kind, "logits: the judge is asked for a digit; likelihood: for small models")
      ->capture_default_str()
      ->check(CLI::IsMember({"logits", "likelihood"}));
  app.add_option("--questions", questions, "JSON lines with the questions that the answers name");
  app.add_option("--prompt", prompt, "what was asked, where it is not among --questions");
  app.add_option("--behaviour", behaviour, "of a folder's answers: one of the study's 14");
  app.add_option("--out", out, "results.jsonl with the scores");
  CLI11_PARSE(app, argc, argv);
  try {
    std::vector<steer::Result> results;
    if (!std::filesystem::is_directory(answers))
      results = answers.ends_with(".jsonl") ? steer::load_results(answers) : steer::load_results_csv(answers);
    else
      for (const auto& file : std::filesystem::directory_iterator(answers))
        if (std::ifstream text(file.path()); file.path().extension() == ".txt")
          results.push_back({.arm = "answers",
                             .behaviour = behaviour,
                             .question = file.path().stem(),
                             .response = {std::istreambuf_iterator<char>(text), {}}});
    std::map<std::string, std::string> asked;
    for (const auto& q : questions.empty() ? std::vector<steer::Question>{} : steer::load_questions(questions))
      asked[q.id] = steer::user_prompt(q);
    std::map<std::string, steer::Behaviour> behaviours;
    std::vector<steer::JudgeRequest> requests;
    for (const auto& result : results) {
      const auto known = asked.find(result.question);
      steer::require(known != asked.end() || !prompt.empty(), steer::ErrorCode::argument, "judge_answers",
                     "expected the text of the question \"{}\"; give --questions or --prompt", result.question);
      if (!behaviours.contains(result.behaviour))
        behaviours[result.behaviour] = select_behaviours(steer::study_behaviours(), {result.behaviour}).front();
      requests.push_back(
          {known != asked.end() ? known->second : prompt, result.response, &behaviours.at(result.behaviour)});
    }
    const auto model = steer::Model::load(judge_path);
    for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
    const auto judge = kind == "logits" ? steer::logit_judge(model) : steer::likelihood_judge(model);
    const auto behaviour_scores = judge->judge(steer::Rubric::behaviour, requests);
    const auto coherence = judge->judge(steer::Rubric::coherence, requests);
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (const auto score = behaviour_scores[i].score) results[i].scores["behaviour"] = *score;
      if (const auto score = coherence[i].score) results[i].scores["coherence"] = *score;
      fmt::print("{:40} behaviour {:.2f}  coherence {:.2f}\n", results[i].key(),
                 behaviour_scores[i].score.value_or(NAN), coherence[i].score.value_or(NAN));
    }
    if (!out.empty()) steer::save_results(results, out);
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
