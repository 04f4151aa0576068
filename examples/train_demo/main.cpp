// Makes the embedded demo: a world and its questions, a tokenizer, a language model, an SAE, feature labels, a model
// card.
//   train_demo --out examples/data/demo            about an hour on 2 cores; may be killed and started again
//   train_demo --out /tmp/demo --smoke             the same steps in under a minute, to no good quality
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/core/progress.hpp>
#include <steer/io/safetensors_writer.hpp>

#include "autoencoder.hpp"
#include "corpus.hpp"
#include "evaluate.hpp"
#include "tiny_llama.hpp"
#include "trainer.hpp"
#include "world.hpp"

namespace fs = std::filesystem;
using namespace steer::demo;
using steer::Rng;

namespace {

void write_text(const fs::path& file, const std::string& text) {
  std::ofstream stream(file, std::ios::binary);
  stream << text;
  stream.flush();
  steer::require(stream.good(), steer::ErrorCode::io, "train_demo", "expected to write {} but the write failed",
                 file.string());
}

void write_questions(const fs::path& file, const World& world, Split split) {
  std::vector<steer::Question> questions;
  for (const auto& question : world.held_out(split)) questions.push_back(world.published(question));
  steer::save_questions(questions, file);
}

// Llama 3's chat format, for which steer has code of its own.
constexpr const char* chat_template =
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\\n\\n' + "
    "message['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";

void write_tokenizer_config(const fs::path& file) {
  const nlohmann::json config = {{"tokenizer_class", "LlamaTokenizer"},
                                 {"bos_token", "<|begin_of_text|>"},
                                 {"eos_token", "<|eot_id|>"},
                                 {"add_bos_token", true},
                                 {"add_eos_token", false},
                                 {"legacy", false},
                                 {"chat_template", chat_template}};
  write_text(file, config.dump(1) + "\n");
}

void write_model(const fs::path& folder, TinyLlama& model, const Vocabulary& vocabulary) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [name, value] : model.parameters()) tensors.emplace_back(name, value.detach().to(at::kHalf));
  steer::save_safetensors(folder / "model.safetensors", tensors, {{"format", "pt"}});
  write_text(folder / "config.json", model.to_json(vocabulary).dump(1) + "\n");
}

// One line a feature, as Neuronpedia exports them.
void write_labels(const fs::path& file, const steer::Sae& sae, const std::vector<FeatureNote>& notes) {
  std::string lines;
  for (std::size_t f = 0; f < notes.size(); ++f) {
    const nlohmann::ordered_json line = {{"modelId", "steer-demo"},
                                         {"layer", fmt::format("{}-resid-post", sae.config().hook_in->layer)},
                                         {"index", std::to_string(f)},
                                         {"description", notes[f].description},
                                         {"maxActApprox", std::round(notes[f].max_activation * 1e4) / 1e4},
                                         {"frac_nonzero", std::round(notes[f].active * 1e6) / 1e6},
                                         {"pos_str", notes[f].tokens}};
    lines += line.dump() + "\n";
  }
  write_text(file, lines);
}

// The language model, from scratch or from where an interrupted run stopped.
void make_model(const fs::path& out, const World& world, const TrainOptions& options, const Corpus& corpus,
                const Vocabulary& vocabulary) {
  const fs::path checkpoint = out / "checkpoint.safetensors";
  if (fs::exists(out / "model.safetensors") && !fs::exists(checkpoint)) return;
  TinyLlama model({.vocab_size = vocabulary.size()}, options.seed);
  fmt::print("{} parameters, vocabulary {}, {} threads\n", model.parameter_count(), vocabulary.size(),
             at::get_num_threads());
  train(model, world, corpus, vocabulary, options, checkpoint,
        steer::Progress("training the language model", options.steps));
  write_model(out, model, vocabulary);
  fs::remove(checkpoint);
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app("Trains the demo that ships with steer: questions, tokenizer, language model, SAE, labels, model card.");
  fs::path out;
  TrainOptions options;
  AutoencoderOptions autoencoder;
  EvaluateOptions evaluation;
  bool smoke = false;
  int print = 0;
  app.add_option("--out", out, "folder to write to; holds the checkpoint while training")->required();
  app.add_option("--seed", options.seed, "everything follows from it")->capture_default_str();
  app.add_option("--steps", options.steps, "training steps of the language model")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--print", print, "print so many training texts and end")->check(CLI::NonNegativeNumber);
  app.add_flag("--smoke", smoke, "a few steps of everything, under a minute");
  CLI11_PARSE(app, argc, argv);
  if (smoke) {
    options.steps = 6;
    options.conversations = options.drills = 8;
    options.measure_every = 3;
    autoencoder.conversations = 40;
    autoencoder.steps = 20;
    evaluation.questions = evaluation.fit_questions = evaluation.probe_questions = 2;
    evaluation.features = 1;
    evaluation.strengths = {1};
  }
  autoencoder.seed = evaluation.seed = options.seed;
  fs::create_directories(out);

  const World world(options.seed);
  write_questions(out / "questions.jsonl", world, Split::test);
  write_questions(out / "questions_dev.jsonl", world, Split::dev);
  if (!fs::exists(out / "tokenizer.model")) Vocabulary::train(world, options.seed, out / "tokenizer.model");
  write_tokenizer_config(out / "tokenizer_config.json");
  const Vocabulary vocabulary(out / "tokenizer.model");
  const Corpus corpus(world, vocabulary);
  if (print > 0) {
    Rng rng(options.seed);
    for (int i = 0; i < print; ++i) {
      const auto sequence = i % 8 == 7 ? corpus.drill(rng) : corpus.conversation(rng);
      fmt::print("--- {} tokens\n{}\n", sequence.ids.size(), vocabulary.decode(sequence.ids));
    }
    return 0;
  }
  make_model(out, world, options, corpus, vocabulary);

  const auto model = steer::Model::load(out);
  const fs::path sae_file = out / "sae.safetensors";
  if (!fs::exists(sae_file)) {
    train_autoencoder(model, corpus, autoencoder, steer::Progress("training the SAE", autoencoder.steps))
        .save(sae_file);
  }
  const auto sae = steer::Sae::load(sae_file);
  const auto notes = describe_features(model, sae, world, corpus, vocabulary, options.seed);
  write_labels(out / "labels.jsonl", sae, notes);

  const auto report = evaluate(model, sae, world, corpus, notes, evaluation, steer::Progress("evaluating", 29));
  const auto provenance = fmt::format("This is seed {}: {} steps of the language model, {} of the SAE.", options.seed,
                                      options.steps, autoencoder.steps);
  write_text(out / "MODEL_CARD.md", model_card(report, model, sae, provenance));
} catch (const std::exception& error) {
  fmt::print(stderr, "{}\n", error.what());
  return 1;
}
