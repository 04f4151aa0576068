// Trains a sparse autoencoder on a model's residual stream over texts of one's own and says how good it is.
//   train_sae --model qwen.gguf --point blocks.12.hook_resid_post --mmlu data/mmlu --text /usr/share/doc --out
//   sae.safetensors
// Killed, it goes on from OUT.checkpoint when it is started again.

#include <ATen/ops/cat.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/core/threads.hpp>
#include <steer/eval/questions.hpp>
#include <steer/sae/quality.hpp>
#include <steer/sae/stream.hpp>

namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int64_t>;

/// Tokens of one sequence; what is longer is cut.
constexpr std::size_t kContext = 192;

/// MMLU's test questions as this model is asked them, without those the experiment asks.
std::vector<Ids> mmlu_texts(const steer::Model& model, const fs::path& folder) {
  std::set<std::string> asked;
  for (const auto& question : steer::load_mmlu(folder)) asked.insert(question.text);
  std::vector<Ids> texts;
  for (const auto& question : steer::load_mmlu(folder, steer::Mmlu::test))
    if (!asked.contains(question.text))
      texts.push_back(model.chat().render({{steer::Role::user, steer::user_prompt(question)}}).ids);
  return texts;
}

/// Computes `rows` activations once and gives them again and again, in the order they came; the trainer's buffer
/// shuffles.
steer::ActivationSource kept(const steer::ActivationSource& source, std::int64_t rows, steer::Progress progress) {
  std::vector<at::Tensor> parts;
  for (std::int64_t have = 0; have < rows; have += parts.back().size(0)) {
    parts.push_back(source.read(rows - have));
    progress.advance(parts.back().size(0));
  }
  progress.finish();
  const at::Tensor all = at::cat(parts);
  auto next = std::make_shared<std::int64_t>(0);
  return {.read =
              [=](std::int64_t tokens) {
                const at::Tensor rows = all.narrow(0, *next, std::min(tokens, all.size(0) - *next));
                *next = (*next + rows.size(0)) % all.size(0);
                return rows;
              },
          .skip = [=](std::int64_t tokens) { *next = (*next + tokens) % all.size(0); }};
}

/// The text files under `path`, in pieces of one sequence each.
std::vector<Ids> file_texts(const steer::Model& model, const fs::path& path) {
  std::vector<fs::path> files;
  if (fs::is_directory(path)) {
    for (const auto& entry : fs::recursive_directory_iterator(path, fs::directory_options::skip_permission_denied))
      if (entry.is_regular_file() && !entry.is_symlink()) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
  } else {
    files.push_back(path);
  }
  std::vector<Ids> texts;
  for (const auto& file : files) {
    std::ifstream stream(file, std::ios::binary);
    steer::require(stream.is_open(), steer::ErrorCode::io, "train_sae", "expected a readable file but got \"{}\"",
                   file.string());
    const std::string text(std::istreambuf_iterator<char>(stream), {});
    if (text.find('\0') != std::string::npos || text.starts_with("\x1f\x8b")) continue;  // binary or compressed
    const auto ids = model.tokenizer().encode(text, {.add_special = false, .parse_special = false});
    for (std::size_t begin = 0; begin + 32 <= ids.size(); begin += kContext)
      texts.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                         ids.begin() + static_cast<std::ptrdiff_t>(std::min(ids.size(), begin + kContext)));
  }
  return texts;
}

}  // namespace

int main(int argc, char** argv) {
  std::string model_path, point = "blocks.12.hook_resid_post", mmlu, out = "sae.safetensors";
  std::vector<std::string> text_paths;
  std::int64_t tokens = 1'000'000, keep = 0, limit = 0, threads = 0;
  steer::SaeTrainingOptions options{.d_sae = 4096,
                                    .batch_tokens = 2048,
                                    .buffer_tokens = 1 << 15,
                                    .learning_rate = 1e-3,
                                    .dead_after_tokens = 200'000};
  steer::LoadOptions load;
  CLI::App app(
      "Trains a sparse autoencoder on a model's residual stream over texts of one's own and says how good it is.");
  app.add_option("--model", model_path, "a Hugging Face folder or a GGUF file")->required();
  app.add_option("--allow-unknown-config", load.allow_unknown_config,
                 "a key of config.json to ignore; may be repeated");
  app.add_option("--point", point, "hook point, TransformerLens name")->capture_default_str();
  app.add_option("--mmlu", mmlu,
                 "MMLU folder: its test questions in the model's chat format; the study's 171 are left out");
  app.add_option("--text", text_paths, "text files and folders of them");
  app.add_option("--pieces", limit, "use at most so many sequences of each kind, drawn at random; 0: all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--features", options.d_sae, "features of the autoencoder")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--k", options.k, "active features a token (TopK)")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--tokens", tokens, "activations to train on; texts are read again when they end")
      ->capture_default_str()
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1'000'000'000'000}));
  app.add_option("--keep", keep, "compute so many activations once, hold them in memory and train on these; 0: stream")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--batch", options.batch_tokens, "activations a step")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--learning-rate", options.learning_rate, "of Adam, after a warm-up; falls to 0 over the last fifth")
      ->capture_default_str()
      ->check(CLI::Range(1e-9, 1.0));
  app.add_option("--seed", options.seed, "of the first weights and of the order of texts")->capture_default_str();
  app.add_option("--threads", threads, "0: one a core")->capture_default_str()->check(CLI::NonNegativeNumber);
  app.add_option("--out", out, "the autoencoder, SAELens layout")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    steer::set_threads(static_cast<int>(threads));
    const auto model = steer::Model::load(model_path, load);
    for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
    const auto hook = steer::HookPoint::parse(point);
    steer::Rng rng(options.seed);
    std::vector<Ids> texts, held_out;
    const auto add = [&](std::vector<Ids> more) {
      rng.shuffle(more);
      if (limit > 0 && more.size() > static_cast<std::size_t>(limit)) more.resize(static_cast<std::size_t>(limit));
      const std::size_t held = std::min<std::size_t>(more.size() / 10, 12);
      held_out.insert(held_out.end(), more.begin(), more.begin() + static_cast<std::ptrdiff_t>(held));
      texts.insert(texts.end(), more.begin() + static_cast<std::ptrdiff_t>(held), more.end());
    };
    if (!mmlu.empty()) add(mmlu_texts(model, mmlu));
    std::vector<Ids> read;
    for (const auto& path : text_paths)
      for (auto& text : file_texts(model, path)) read.push_back(std::move(text));
    add(std::move(read));
    steer::require(!held_out.empty(), steer::ErrorCode::argument, "train_sae",
                   "expected at least 10 texts but got {}; give --mmlu or --text", texts.size());

    options.d_in = model.config().d_model;
    options.steps = (tokens + options.batch_tokens - 1) / options.batch_tokens;
    options.warmup_steps = options.steps / 50;
    options.decay_steps = options.steps / 5;
    options.checkpoint = out + ".checkpoint";
    options.checkpoint_every = 100;
    options.progress = steer::Progress("train_sae", options.steps);
    options.hook = hook;
    options.model_name = model.config().name;
    options.on_step = [&](const steer::SaeTrainingMetrics& m) {
      options.progress.note(
          fmt::format("explained {:.3f}, L0 {:.1f}, dead {:.3f}", m.explained_variance, m.l0, m.dead_share));
    };
    auto source = steer::stream_activations(model, hook, texts, {.context = kContext, .seed = options.seed});
    if (keep > 0) source = kept(source, keep, steer::Progress("activations", keep));
    steer::SaeTrainer trainer(options, source);
    const steer::Sae sae = trainer.train();
    sae.save(out);

    for (auto& ids : held_out) ids.resize(std::min(ids.size(), kContext));
    const auto quality = steer::measure_quality(sae, steer::stream_activations(model, hook, held_out).read(8192));
    steer::Session session(model);
    const auto splice = steer::splice_quality(session, sae, held_out);
    fmt::print(
        "{}: {} features at {}, {} texts, {} activations\nheld-out text: explained variance {:.3f}, L0 {:.1f}, dead "
        "{:.3f} ({} tokens); "
        "loss {:.3f} clean, {:.3f} spliced, {:.3f} with zeros: {:.3f} recovered\n",
        out, options.d_sae, point, texts.size(), options.steps * options.batch_tokens, quality.explained_variance,
        quality.l0, quality.dead_share, quality.tokens, splice.clean_loss, splice.spliced_loss, splice.zero_loss,
        splice.loss_recovered);
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
