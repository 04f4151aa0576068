// From a behaviour in words to a steering: which features, how strong, and why.
//
//   auto_steer concise --out concise.json --plot concise.svg

#include <CLI/CLI.hpp>
#include <fstream>
#include <steer/core/error.hpp>
#include <steer/eval/auto_steer_arm.hpp>

int main(int argc, char** argv) {
  steer::LoadOptions load;
  CLI::App app("From a behaviour in words to a steering of one's own model");
  std::string behaviour = "concise", mode = "safe", model_path = "examples/data/demo", journal, out, plot,
              sae_path = "examples/data/demo/sae.safetensors", question_path = "examples/data/demo/questions_dev.jsonl";
  std::int64_t max_tokens = 96, certify = 0;
  std::vector<std::string> others;
  app.add_option("behaviour", behaviour, "completes \"please be more ...\"")->capture_default_str();
  app.add_option("--mode", mode, "published, or safe: within bounds on what steering may cost")->capture_default_str();
  app.add_option("--model", model_path, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("--allow-unknown-config", load.allow_unknown_config,
                 "a key of config.json to ignore; may be repeated");
  app.add_option("--sae", sae_path, "a file or folder of any layout in docs/sae-formats.md")->capture_default_str();
  app.add_option("--questions", question_path, "JSON lines, not used elsewhere")->capture_default_str();
  app.add_option("--max-tokens", max_tokens, "longest answer")->capture_default_str()->check(CLI::Range(1, 1'000'000));
  app.add_option("--others", others, "behaviours it is told apart from: better directions, more answers")
      ->delimiter(',');
  app.add_option("--certify", certify, "prove on so many questions, not searched on, that it costs at most 2 points")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--journal", journal, "keeps the search's answers: killed and started again, it goes on");
  app.add_option("--out", out, "write the steering here, for Steering::load");
  app.add_option("--plot", plot, "draw the strength curves here, SVG");
  CLI11_PARSE(app, argc, argv);
  try {
    const auto model = steer::Model::load(model_path, load);
    for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
    const auto sae = steer::Sae::load(sae_path);
    const auto questions = steer::load_questions(question_path);
    if (certify > 0) fmt::print("{}\n\n", steer::certificate_plan(certify, steer::CertificateSet().accuracy_loss));
    auto options = steer::search_options(model, questions, max_tokens, 42, {.certificate = certify});
    options.others = others;
    options.journal = journal;
    options.progress = steer::Progress("auto steer", 0);
    const auto how = steer::parse_enum<steer::AutoSteerMode>(mode, "auto_steer");
    const auto found = steer::AutoSteer(model, sae, options).find(behaviour, how);
    fmt::print("{}\n", found.explain());
    if (!plot.empty()) std::ofstream(plot) << found.to_svg();
    if (!out.empty()) found.steering.save(out);
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
