#include "autoencoder.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include <steer/model/session.hpp>
#include <steer/sae/trainer.hpp>

namespace steer::demo {
namespace {

// Residuals of one text, its first token (an attention sink) left out.
at::Tensor residuals(Session& session, const HookPoint& point, const std::vector<std::int64_t>& ids) {
  const std::string name = point.name();
  const auto cache = session.run_with_cache(ids, {name}, point.layer);
  return cache[name].slice(0, 1).to(at::kFloat).clone();
}

double cross_entropy(Session& session, const std::vector<std::int64_t>& ids) {
  const auto logits = session.forward(ids).slice(0, 1, -1);
  const auto targets = at::tensor(std::vector<std::int64_t>(ids.begin() + 2, ids.end()), at::kLong);
  return at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum).item<double>();
}

std::string shown(const Vocabulary& vocabulary, std::int64_t id) {
  std::string text = vocabulary.decode({id});
  if (text.empty()) text = vocabulary.piece(id);  // a control token
  for (std::size_t at; (at = text.find('\n')) != std::string::npos;) text.replace(at, 1, "\\n");
  if (text.size() > 1 && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

}  // namespace

Sae train_autoencoder(const Model& model, const Corpus& corpus, const AutoencoderOptions& options, Progress progress) {
  at::NoGradGuard no_grad;
  const HookPoint point{Site::resid_post, options.layer};
  Session session(model);
  Rng rng(derive_seed(options.seed, "autoencoder"));
  std::vector<at::Tensor> parts;
  for (std::int64_t i = 0; i < options.conversations; ++i) {
    const auto sequence = corpus.conversation(rng);
    // What the model writes, and a fifth of what it reads: prompts are half of all tokens and much alike.
    std::vector<std::int64_t> kept;
    for (std::size_t t = 1; t < sequence.ids.size(); ++t) {
      if (sequence.weights[t] >= 1 || rng.uniform() < 0.2) kept.push_back(static_cast<std::int64_t>(t) - 1);
    }
    parts.push_back(residuals(session, point, sequence.ids).index_select(0, at::tensor(kept, at::kLong)));
  }
  Rng order(derive_seed(options.seed, "autoencoder-order"));
  std::int64_t next = std::ssize(parts);
  ActivationSource source;
  // Texts in a new random order each time round; the trainer mixes tokens of different texts itself.
  source.read = [&](std::int64_t tokens) {
    std::vector<at::Tensor> batch;
    for (std::int64_t rows = 0; rows < tokens; rows += batch.back().size(0)) {
      if (next == std::ssize(parts)) {
        order.shuffle(parts);
        next = 0;
      }
      batch.push_back(parts[next++]);
    }
    return at::cat(batch);
  };
  SaeTrainingOptions training{.d_in = model.config().d_model, .d_sae = options.d_sae};
  training.activation = SaeActivation::batchtopk;
  training.k = options.k;
  training.steps = options.steps;
  training.batch_tokens = options.batch_tokens;
  training.buffer_tokens = 1 << 15;
  training.learning_rate = 1e-3;
  training.warmup_steps = options.steps / 20;
  training.decay_steps = options.steps / 3;
  training.dead_after_tokens = 300'000;
  training.seed = options.seed;
  training.hook = point;
  training.model_name = "steer-demo";
  training.progress = progress;
  training.on_step = [&](const SaeTrainingMetrics& metrics) {
    if (metrics.step % 50 == 0)
      progress.note(fmt::format("explained variance {:.3f}, L0 {:.1f}", metrics.explained_variance, metrics.l0));
  };
  return SaeTrainer(training, std::move(source)).train();
}

AutoencoderQuality measure(const Model& model, const Sae& sae, const Corpus& corpus, std::uint64_t seed) {
  at::NoGradGuard no_grad;
  const HookPoint point = sae.config().hook_in.value();
  Session session(model);
  Rng rng(derive_seed(seed, "autoencoder-quality"));
  AutoencoderQuality quality;
  std::vector<at::Tensor> parts;
  std::int64_t predictions = 0;
  for (int i = 0; i < 200; ++i) {
    const auto ids = corpus.conversation(rng).ids;
    parts.push_back(residuals(session, point, ids));
    predictions += std::ssize(ids) - 2;
    quality.loss_clean += cross_entropy(session, ids);
    const auto replaced = [&](auto&& replacement) {
      const auto hook =
          session.hook(point, [&](HookContext& at) { at.value.slice(0, 1).copy_(replacement(at.value.slice(0, 1))); });
      return cross_entropy(session, ids);
    };
    quality.loss_spliced += replaced([&](const at::Tensor& x) { return sae.reconstruct(x.to(at::kFloat)); });
    quality.loss_zero += replaced([](const at::Tensor& x) { return at::zeros_like(x); });
  }
  for (double* loss : {&quality.loss_clean, &quality.loss_spliced, &quality.loss_zero})
    *loss /= static_cast<double>(predictions);
  const auto x = at::cat(parts);
  const auto features = sae.encode(x);
  const auto error = x - sae.decode(features);
  quality.explained_variance = 1 - error.square().sum().item<double>() / (x - x.mean(0)).square().sum().item<double>();
  quality.l0 = features.ne(0).sum(-1).to(at::kFloat).mean().item<double>();
  quality.alive = features.ne(0).any(0).to(at::kFloat).mean().item<double>();
  return quality;
}

std::vector<FeatureNote> describe_features(const Model& model, const Sae& sae, const World& world, const Corpus& corpus,
                                           const Vocabulary& vocabulary, std::uint64_t seed) {
  at::NoGradGuard no_grad;
  constexpr int texts = 60;  // of each behaviour
  const HookPoint point = sae.config().hook_in.value();
  Session session(model);
  Rng rng(derive_seed(seed, "labels"));
  const auto styles = static_cast<std::int64_t>(behaviours().size());
  auto by_token = at::zeros({vocabulary.size(), sae.d_sae()});
  auto most = at::zeros({sae.d_sae()});
  auto active = at::zeros({sae.d_sae()});
  double tokens = 0;
  std::vector<at::Tensor> answers;  // [texts, d_sae] a behaviour: means over the tokens of each answer
  for (std::int64_t s = 0; s < styles; ++s) {
    std::vector<at::Tensor> means;
    for (int i = 0; i < texts; ++i) {
      const auto question = world.sample(rng);
      const auto sequence = corpus.answered(question, Layout::experiment, "", behaviours()[s], rng);
      const auto features = sae.encode(residuals(session, point, sequence.ids));
      const auto ids = at::tensor(std::vector<std::int64_t>(sequence.ids.begin() + 1, sequence.ids.end()), at::kLong);
      const auto reply = std::ssize(corpus.prompt("", world.prompt(question, Layout::experiment))) - 1;
      by_token.index_add_(0, ids.slice(0, reply), features.slice(0, reply));
      means.push_back(features.slice(0, reply).mean(0));
      most = at::maximum(most, std::get<0>(features.max(0)));
      active += features.ne(0).sum(0);
      tokens += static_cast<double>(features.size(0));
    }
    answers.push_back(at::stack(means));
  }
  const auto all = at::stack(answers);  // [styles, texts, d_sae]
  const auto mean = all.mean(1);        // [styles, d_sae]
  const auto others = (mean.sum(0, true) - mean) / static_cast<double>(styles - 1);
  const auto spread = (all - mean.unsqueeze(1)).square().mean({0, 1}).sqrt().clamp_min(1e-6);
  const auto [separation, best] = ((mean - others) / spread).max(0);
  const auto top = (by_token / by_token.sum(0).clamp_min(1e-9)).topk(4, 0);
  std::vector<FeatureNote> notes(static_cast<std::size_t>(sae.d_sae()));
  for (std::int64_t f = 0; f < sae.d_sae(); ++f) {
    auto& note = notes[f];
    note.max_activation = most[f].item<double>();
    note.active = active[f].item<double>() / tokens;
    std::string words;
    for (int i = 0; i < 4 && note.max_activation > 0; ++i) {
      if (std::get<0>(top)[i][f].item<double>() < 0.03) break;
      note.tokens.push_back(shown(vocabulary, std::get<1>(top)[i][f].item<std::int64_t>()));
      words += fmt::format("{}\"{}\"", words.empty() ? "" : ", ", note.tokens.back());
    }
    note.separation = separation[f].item<double>();
    const double single = words.empty() ? 0 : std::get<0>(top)[0][f].item<double>();
    if (note.separation > 2) {
      note.behaviour = behaviours()[best[f].item<std::int64_t>()].name;
      note.description = note.behaviour + " writing" + (words.empty() ? "" : ": " + words);
    } else if (single > 0.5) {
      note.description = fmt::format("the token \"{}\"", note.tokens[0]);
    } else if (!words.empty()) {
      note.description = "tokens " + words;
    } else {
      note.description = note.max_activation > 0 ? "many tokens of every kind" : "never active in answers";
    }
  }
  return notes;
}

}  // namespace steer::demo
