// What a steering costs on prose that has nothing to do with the behaviour: how much likelier or unlikelier the model
// finds the text, and how far its next-token distributions move, nats a token, with intervals over texts.
//
//   steering_cost --model qwen.gguf --text /usr/share/doc --steer safe=found/safe --steer diffmean=found/mean

#include <CLI/CLI.hpp>
#include <cmath>
#include <fstream>
#include <map>
#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/generate/score.hpp>
#include <steer/stats/statistics.hpp>

namespace {

namespace fs = std::filesystem;

struct Settings {
  std::string model = "examples/data/demo", text;
  std::vector<std::string> steer;
  std::int64_t texts = 40, tokens = 192;
  std::uint64_t seed = 42;
};

/// Pieces of text files, one a file, drawn by seed; each a beginning of `tokens` tokens.
std::vector<std::vector<std::int64_t>> pieces(const steer::Model& model, const Settings& s) {
  std::vector<fs::path> files;
  if (fs::is_regular_file(s.text)) files.push_back(s.text);
  for (const auto& entry :
       fs::is_directory(s.text) ? fs::recursive_directory_iterator(s.text) : fs::recursive_directory_iterator())
    if (entry.is_regular_file() && entry.file_size() > 2000) files.push_back(entry.path());
  std::ranges::sort(files, {}, [&](const auto& path) { return steer::derive_seed(s.seed, path.string()); });
  std::vector<std::vector<std::int64_t>> texts;
  for (const auto& path : files) {
    if (std::ssize(texts) == s.texts) break;
    std::string text(static_cast<std::size_t>(8 * s.tokens), '\0');
    std::ifstream file(path, std::ios::binary);
    file.read(text.data(), std::ssize(text));
    text.resize(static_cast<std::size_t>(file.gcount()));
    if (text.find('\0') != std::string::npos || text.starts_with("\x1f\x8b")) continue;  // no text
    auto ids = model.tokenizer().encode(text);
    if (std::ssize(ids) < 32) continue;
    ids.resize(std::min(ids.size(), static_cast<std::size_t>(s.tokens)));
    texts.push_back(std::move(ids));
  }
  steer::require(texts.size() >= 2, steer::ErrorCode::argument, "steering_cost",
                 "expected at least 2 text files of 2,000 bytes in \"{}\" but got {}", s.text, texts.size());
  return texts;
}

/// One for all, or a folder of one a behaviour.
std::map<std::string, steer::Steering> steerings(const fs::path& path) {
  std::map<std::string, steer::Steering> found;
  if (!fs::is_directory(path)) return {{path.stem().string(), steer::Steering::load(path)}};
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.path().extension() == ".json") found[entry.path().stem().string()] = steer::Steering::load(entry.path());
  return found;
}

void run(const Settings& s) {
  const auto model = steer::Model::load(s.model);
  const auto texts = pieces(model, s);
  // The first token stands for the prompt: all others count as generated.
  const auto requests = [&](const std::optional<steer::Steering>& steering) {
    std::vector<steer::ScoreRequest> made;
    for (const auto& ids : texts) made.push_back({.ids = ids, .begin = 1, .steering = steering});
    return made;
  };
  std::vector<double> plain;
  for (const auto& score : steer::score_texts(model, requests({}))) plain.push_back(score.nll());
  const auto shown = [](const std::vector<double>& values) {
    const auto mean = steer::summarize(values);
    const auto within = steer::mean_interval(mean);
    return fmt::format("{:.4f} [{:.4f}, {:.4f}]", mean.mean, within.low, within.high);
  };
  fmt::print("{} texts; unsteered NLL {} nats a token\n{:<24} {:<16} {:<28} {}\n", texts.size(), shown(plain),
             "steering", "behaviour", "NLL added", "KL from unsteered");
  for (const auto& text : s.steer) {
    const auto cut = text.find('=');
    steer::require(cut != std::string::npos, steer::ErrorCode::argument, "steering_cost",
                   "expected --steer NAME=PATH but got \"{}\"", text);
    for (const auto& [behaviour, steering] : steerings(text.substr(cut + 1))) {
      std::vector<double> added, kl;
      const auto scores = steer::score_texts(model, requests(steering));
      for (const auto& warning : scores.front().warnings) fmt::print(stderr, "mind: {}\n", warning);
      for (std::size_t i = 0; i < scores.size(); ++i) added.push_back(scores[i].nll() - plain[i]);
      for (const auto& moved : steer::divergence_from_unsteered(model, requests(steering))) kl.push_back(moved.mean);
      fmt::print("{:<24} {:<16} {:<28} {}\n", text.substr(0, cut), behaviour, shown(added), shown(kl));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("What a steering costs on prose");
  Settings s;
  app.add_option("--model", s.model, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("--text", s.text, "a text file or a folder of such, not used to find the steerings")
      ->required()
      ->check(CLI::ExistingPath);
  app.add_option("--steer", s.steer, "NAME=PATH: a steering file, or a folder of <behaviour>.json; may be repeated")
      ->required();
  app.add_option("--texts", s.texts, "so many files, by draw")->check(CLI::Range(2, 100000))->capture_default_str();
  app.add_option("--tokens", s.tokens, "of each, at most")->check(CLI::Range(32, 100000))->capture_default_str();
  app.add_option("--seed", s.seed, "of the draw")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    run(s);
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
