// From a behaviour in words to a steering: which features, how strong, and why. The result is a file for
// Steering::load.
//
//   auto_steer concise --out concise.json

#include <CLI/CLI.hpp>
#include <steer/core/error.hpp>
#include <steer/eval/answer.hpp>
#include <steer/eval/questions.hpp>
#include <steer/features/auto_steer.hpp>

int main(int argc, char** argv) {
  CLI::App app("From a behaviour in words to a steering of one's own model");
  std::string behaviour = "concise", mode = "safe", model_path = "examples/data/demo", out,
              sae_path = "examples/data/demo/sae.safetensors", question_path = "examples/data/demo/questions_dev.jsonl";
  steer::AutoSteerOptions options{.max_tokens = 96};
  app.add_option("behaviour", behaviour, "completes \"please be more ...\"")->capture_default_str();
  app.add_option("--mode", mode, "published, or safe: within bounds on what steering may cost")->capture_default_str();
  app.add_option("--model", model_path, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("--sae", sae_path, "a file or folder of any layout in docs/sae-formats.md")->capture_default_str();
  app.add_option("--questions", question_path, "JSON lines (id, question, choices, answer), not used elsewhere")
      ->capture_default_str();
  app.add_option("--max-tokens", options.max_tokens, "longest answer")->capture_default_str();
  app.add_option("--out", out, "write the steering here");
  CLI11_PARSE(app, argc, argv);
  try {
    const auto model = steer::Model::load(model_path);
    const auto sae = steer::Sae::load(sae_path);
    auto questions = steer::stratified_sample(steer::load_questions(question_path), 1, options.seed);
    for (std::size_t i = 0; i < questions.size() / 3; ++i) options.prompts.push_back(user_prompt(questions[i]));
    questions.erase(questions.begin(), questions.begin() + static_cast<std::ptrdiff_t>(questions.size() / 3));
    for (const auto& q : questions)
      options.capability.prompts.push_back(model.chat().render({{.content = user_prompt(q)}}).ids);
    options.capability.score = [&](std::size_t i, const steer::GenerateResult& result) {
      const auto letter = steer::parse_answer(result.text).strict;
      return steer::CapabilityScore{.correct = letter && *letter - 'A' == questions[i].answer,
                                    .formatted = letter.has_value()};
    };
    const auto found = steer::AutoSteer(model, sae, options)
                           .find(behaviour, steer::parse_enum<steer::AutoSteerMode>(mode, "auto_steer"));
    fmt::print("{}\n", found.explain());
    if (!out.empty()) found.steering.save(out, {.sae_paths = {{sae.hash(), sae_path}}});
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
