// One steering at several strengths on a few questions: what it gains, and where it breaks the answers.
//
//   sweep --steering found.json --behaviour concise --strengths 0.5,1,2,4   (auto_steer --out writes one)
//   sweep --feature 330 --value 6 --behaviour imaginative --strengths=-1,0.5,1,2

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <steer/eval/experiment.hpp>
#include <steer/eval/model_judge.hpp>

int main(int argc, char** argv) {
  steer::LoadOptions load;
  CLI::App app("One steering at several strengths on a few questions");
  std::string model_path = "examples/data/demo", sae_path = "examples/data/demo/sae.safetensors",
              behaviour = "technical", question_path = "examples/data/demo/questions.jsonl", steering_path;
  std::vector<double> strengths{0.25, 1, 2, 4};
  std::int64_t feature = 228, every = 8;
  std::int64_t first = 8;
  double value = 30;
  steer::Experiment study{.max_tokens = 96};
  app.add_option("--model", model_path, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("--allow-unknown-config", load.allow_unknown_config,
                 "a key of config.json to ignore; may be repeated");
  app.add_option("--sae", sae_path, "a file or folder of any layout in docs/sae-formats.md")->capture_default_str();
  app.add_option("--steering", steering_path, "a steering file; else --feature is nudged by --value");
  app.add_option("--feature", feature, "a feature of --sae")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--value", value, "what --feature is nudged by, in the activation's units")->capture_default_str();
  app.add_option("--first", first, "nudge only the first N generated tokens; 0: every token")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--behaviour", behaviour, "one of the study's 14: what is judged")->capture_default_str();
  app.add_option("--strengths", strengths, "factors of all edits")->delimiter(',')->capture_default_str();
  app.add_option("--questions", question_path, "JSON lines (id, question, choices, answer)")->capture_default_str();
  app.add_option("--every", every, "ask every n-th question")->capture_default_str()->check(CLI::Range(1, 1'000'000));
  app.add_option("--max-tokens", study.max_tokens, "longest answer")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  CLI11_PARSE(app, argc, argv);
  try {
    const auto model = steer::Model::load(model_path, load);
    for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
    const auto sae = steer::Sae::load(sae_path);
    const auto questions = steer::load_questions(question_path);
    for (std::size_t i = 0; i < questions.size(); i += static_cast<std::size_t>(every))
      study.questions.push_back(questions[i]);
    study.behaviours = steer::select_behaviours(study.behaviours, {behaviour});
    const steer::Scope scope = first == 0 ? steer::Scope{} : steer::Scope{.where = steer::Where::onset, .count = first};
    const auto steering = steering_path.empty() ? steer::Steering().nudge(sae, feature, value, {.scope = scope})
                                                : steer::Steering::load(steering_path, {.saes = {sae}});
    const auto arm = steer::Arm::steered("steering", {{"", steering}});
    study.arms = arm.strength_sweep(strengths);
    study.arms.insert(study.arms.begin(), {steer::Arm::control(), steer::Arm::prompt()});
    const auto report = steer::run_experiment(
        model, study, {.judge = steer::request_evidence(model, steer::study_behaviours(), {.trim = 0})});
    for (const auto& warning : report.warnings) fmt::print(stderr, "mind: {}\n", warning);

    fmt::print("{}\n{} questions; shares and means with 95% intervals\n\n{:16} {:22} {:22} {}\n", steering.describe(),
               study.questions.size(), "arm", "right answers", "request evidence, nats", "repetition");
    for (const auto& name : report.analysis.arms) {
      const auto& cell = report.analysis.cell(name, behaviour);
      const auto show = [](double at, const steer::Interval& within) {
        return fmt::format("{:.2f} [{:.2f}, {:.2f}]", at, within.low, within.high);
      };
      const auto &shown = cell.scores.at("request_evidence"), &coherent = cell.scores.at("repetition");
      fmt::print("{:16} {:22} {:22} {}\n", name, show(cell.accuracy.value, cell.accuracy.interval),
                 show(shown.summary.mean, shown.interval), show(coherent.summary.mean, coherent.interval));
    }
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
