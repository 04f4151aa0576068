#include "trainer.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <numeric>

#include <steer/core/error.hpp>
#include <steer/io/safetensors_writer.hpp>
#include <steer/io/tensor_reader.hpp>

namespace steer::demo {
namespace {

constexpr double beta1 = 0.9, beta2 = 0.98, epsilon = 1e-8, weight_decay = 0.05, clip_norm = 1.0;
constexpr std::size_t part_rows = 28;  // sequences that go through the model together

struct State {
  std::int64_t step = 0;
  bool letters_learned = false;
  std::map<std::string, at::Tensor> mean, square;
};

void save(const std::filesystem::path& file, TinyLlama& model, const State& state) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [name, value] : model.parameters()) {
    tensors.emplace_back(name, value.detach());
    tensors.emplace_back("mean." + name, state.mean.at(name));
    tensors.emplace_back("square." + name, state.square.at(name));
  }
  save_safetensors(file, tensors,
                   {{"step", std::to_string(state.step)}, {"letters_learned", state.letters_learned ? "1" : "0"}});
}

void restore(const std::filesystem::path& file, TinyLlama& model, State& state) {
  const auto reader = open_tensors(file);
  at::NoGradGuard no_grad;
  for (auto& [name, value] : model.parameters()) {
    require(reader->contains(name) && reader->info(name).shape == value.sizes().vec(), ErrorCode::format, "demo::train",
            "expected a checkpoint of this configuration but got another's ({}); delete it to start again",
            file.string());
    value.copy_(reader->read(name));
    state.mean[name].copy_(reader->read("mean." + name));
    state.square[name].copy_(reader->read("square." + name));
  }
  state.step = std::stoll(reader->metadata().at("step").get<std::string>());
  state.letters_learned = reader->metadata().at("letters_learned").get<std::string>() == "1";
}

double rate(const TrainOptions& options, std::int64_t step) {
  const double warm = std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(options.warmup));
  const double left = static_cast<double>(options.steps - step) / static_cast<double>(options.steps);
  return options.learning_rate * warm * std::min(1.0, left / 0.3);
}

bool drills_now(const TrainOptions& options, const State& state) {
  Rng rng(derive_seed(options.seed, "kind", static_cast<std::uint64_t>(state.step)));
  return rng.uniform() < (state.letters_learned ? options.drills_later : options.drills_first);
}

std::vector<Sequence> draw(const Corpus& corpus, const TrainOptions& options, const State& state, bool drill) {
  Rng rng(derive_seed(options.seed, "batch", static_cast<std::uint64_t>(state.step)));
  std::vector<Sequence> sequences;
  const auto count = drill ? options.drills : options.conversations;
  for (std::int64_t i = 0; i < count; ++i) sequences.push_back(drill ? corpus.drill(rng) : corpus.conversation(rng));
  return sequences;
}

// Mean loss over all that counts, in parts of similar length: little padding, and activations that stay in cache.
double accumulate_gradients(const TinyLlama& model, std::vector<Sequence> sequences) {
  std::stable_sort(sequences.begin(), sequences.end(),
                   [](const Sequence& a, const Sequence& b) { return a.ids.size() < b.ids.size(); });
  double total_weight = 0, total_loss = 0;
  for (const auto& sequence : sequences)
    total_weight += std::accumulate(sequence.weights.begin(), sequence.weights.end(), 0.0);
  for (std::size_t begin = 0; begin < sequences.size(); begin += part_rows) {
    const auto end = std::min(sequences.size(), begin + part_rows);
    const auto loss = model.loss(collate({sequences.begin() + static_cast<std::ptrdiff_t>(begin),
                                          sequences.begin() + static_cast<std::ptrdiff_t>(end)})) /
                      total_weight;
    loss.backward();
    total_loss += loss.item<double>();
  }
  return total_loss;
}

}  // namespace

Skill measure(const TinyLlama& model, const World& world, const Corpus& corpus, const Vocabulary& vocabulary) {
  at::NoGradGuard no_grad;
  std::vector<Sequence> recalls, matches, answers;
  Rng rng(1);
  const auto questions = world.held_out(Split::dev);
  for (const auto& question : questions) {
    const auto user = world.prompt(question, Layout::experiment);
    Sequence recall;
    recall.ids = corpus.prompt("", user);
    const auto begun = vocabulary.encode(fmt::format(
        "<thinking> The {} of {} is", world.attributes()[question.attribute].noun, world.lands()[question.land]));
    recall.ids.insert(recall.ids.end(), begun.begin(), begun.end());
    recall.ids.push_back(
        vocabulary.encode(" " + world.name_of(question.attribute, question.choices[question.answer]))[0]);
    recall.weights.assign(recall.ids.size(), 0);
    recall.weights.back() = 1;
    const auto bare = world.prompt(question, Layout::bare);
    Sequence match;
    match.ids = corpus.prompt("", bare.substr(bare.find('\n') + 1));
    match.ids.push_back(recall.ids.back());
    match.ids.push_back(vocabulary.encode(std::string(1, letters[question.answer]))[0]);
    match.weights.assign(match.ids.size(), 0);
    match.weights.back() = 1;
    recalls.push_back(std::move(recall));
    matches.push_back(std::move(match));
    auto answer = corpus.answered(question, Layout::experiment, "", plain_style(), rng);
    std::fill(answer.weights.begin(), answer.weights.end(), 0.0F);
    answer.weights[answer.weights.size() - 3] = 1;  // letter, </answer>, <|eot_id|>
    answers.push_back(std::move(answer));
  }
  const auto share = [&](const std::vector<Sequence>& sequences) {
    const auto batch = collate(sequences);
    return model.logits(batch.ids, batch.places).argmax(-1).eq(batch.targets).to(at::kFloat).mean().item<double>();
  };
  std::vector<std::int64_t> letter_ids;
  for (const char letter : letters) letter_ids.push_back(vocabulary.encode(std::string(1, letter))[0]);
  const auto batch = collate(matches);
  const auto of_letters =
      model.logits(batch.ids, batch.places).index_select(1, at::tensor(letter_ids, at::kLong)).argmax(-1);
  const auto match = at::tensor(letter_ids, at::kLong)
                         .index_select(0, of_letters)
                         .eq(batch.targets)
                         .to(at::kFloat)
                         .mean()
                         .item<double>();
  return {share(recalls), match, share(answers)};
}

void train(TinyLlama& model, const World& world, const Corpus& corpus, const Vocabulary& vocabulary,
           const TrainOptions& options, const std::filesystem::path& checkpoint, Progress progress) {
  State state;
  std::vector<at::Tensor> parameters, means, squares, steps;
  for (const auto& [name, value] : model.parameters()) {
    state.mean[name] = at::zeros_like(value);
    state.square[name] = at::zeros_like(value);
    parameters.push_back(value);
    means.push_back(state.mean[name]);
    squares.push_back(state.square[name]);
    steps.push_back(at::zeros({}, at::kFloat));
  }
  if (std::filesystem::exists(checkpoint)) restore(checkpoint, model, state);
  progress.resume_at(state.step);
  for (auto& step : steps) step.fill_(state.step);

  using Clock = std::chrono::steady_clock;
  auto saved = Clock::now();
  double conversation_loss = 0;
  for (; state.step < options.steps;) {
    const bool drill = drills_now(options, state);
    const double loss = accumulate_gradients(model, draw(corpus, options, state, drill));
    if (!drill) conversation_loss = loss;
    {
      at::NoGradGuard no_grad;
      std::vector<at::Tensor> gradients;
      double square = 0;
      for (const auto& value : parameters) {
        gradients.push_back(value.grad());
        square += value.grad().square().sum().item<double>();
      }
      const double scale = std::min(1.0, clip_norm / (std::sqrt(square) + 1e-6));
      for (auto& gradient : gradients) gradient.mul_(scale);
      for (auto& step : steps) step.add_(1);
      at::_fused_adamw_(parameters, gradients, means, squares, {}, steps, rate(options, state.step), beta1, beta2,
                        weight_decay, epsilon, /*amsgrad=*/false, /*maximize=*/false);
      for (auto& value : parameters) value.mutable_grad().reset();
    }
    ++state.step;
    if (state.step % options.measure_every == 0 || state.step == options.steps) {
      const auto skill = measure(model, world, corpus, vocabulary);
      state.letters_learned = state.letters_learned || skill.letter > 0.95;
      progress.note(fmt::format("loss {:.3f}, recall {:.2f}, match {:.2f}, letter {:.2f}", conversation_loss,
                                skill.recall, skill.match, skill.letter));
    }
    progress.advance();
    const bool due = std::chrono::duration<double>(Clock::now() - saved).count() > options.checkpoint_seconds;
    if (due || state.step == options.steps) {
      save(checkpoint, model, state);
      saved = Clock::now();
    }
  }
  progress.finish();
}

}  // namespace steer::demo
