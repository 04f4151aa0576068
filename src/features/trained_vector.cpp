#include <steer/features/trained_vector.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

namespace steer {
namespace {

constexpr auto where = "train_vector";

struct Text {
  std::span<const std::int64_t> ids;  ///< up to the end of the range
  std::int64_t begin = 0;
  std::int64_t tokens() const { return std::ssize(ids) - begin; }
};

std::vector<Text> checked(std::span<const TokenizedText> texts, std::string_view what) {
  require(!texts.empty(), ErrorCode::argument, where, "expected at least one of the {} but got none", what);
  std::vector<Text> result;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const auto size = std::ssize(texts[i].ids), end = texts[i].end < 0 ? size : texts[i].end;
    require(texts[i].begin >= 1 && texts[i].begin < end && end <= size, ErrorCode::argument, where,
            "expected a range within [1, {}) of text {} of the {} but got [{}, {})", size + 1, i, what, texts[i].begin,
            end);
    result.push_back({std::span(texts[i].ids).first(static_cast<std::size_t>(end)), texts[i].begin});
  }
  return result;
}

/// Runs texts with a vector added to the tokens of their range.
class Runner {
 public:
  Runner(Session& session, const HookPoint& point) : session_(session), point_(point) {}

  /// log p of the next token at [begin - 1, end - 1): [tokens of the range, vocab].
  at::Tensor log_probabilities(const Text& text, const at::Tensor& vector) {
    std::optional<HookHandle> hook;
    std::int64_t done = 0;
    if (vector.defined())
      hook = session_.hook(point_, [&](HookContext& at) {
        const auto tokens = at.value.size(0), first = std::clamp<std::int64_t>(text.begin - done, 0, tokens);
        done += tokens;
        if (first == tokens) return;
        const at::Tensor steered = at.value.slice(0, first) + vector.to(at.value.options());
        at.value = first == 0 ? steered : at::cat({at.value.slice(0, 0, first), steered});
      });
    return at::log_softmax(session_.forward(text.ids).slice(0, text.begin - 1, text.begin - 1 + text.tokens()), -1);
  }

  /// -log p of the answer, nats a token.
  at::Tensor nll(const Text& text, const at::Tensor& vector) {
    const auto answer = text.ids.subspan(static_cast<std::size_t>(text.begin));
    const at::Tensor logp = log_probabilities(text, vector);
    const at::Tensor targets = at::tensor(std::vector<std::int64_t>(answer.begin(), answer.end())).to(logp.device());
    return -logp.gather(1, targets.unsqueeze(1)).mean();
  }

  /// Mean KL of the range's tokens from the unsteered model.
  at::Tensor kl(const Text& text, const at::Tensor& vector) {
    const at::Tensor base = unsteered(text);
    return (base.exp() * (base - log_probabilities(text, vector))).sum(-1).mean();
  }

  /// Mean norm of the activations that are to be changed, and their width.
  std::pair<double, std::int64_t> scale(std::span<const Text> texts) {
    const c10::NoGradGuard no_grad;
    double sum = 0;
    std::int64_t tokens = 0, width = 0, done = 0, begin = 0;
    const auto hook = session_.hook(point_,
                                    [&](HookContext& at) {
                                      const auto first = std::clamp<std::int64_t>(begin - done, 0, at.value.size(0));
                                      done += at.value.size(0);
                                      sum += at.value.slice(0, first).to(at::kFloat).norm(2, -1).sum().item<double>();
                                      tokens += at.value.size(0) - first;
                                      width = at.value.size(1);
                                    },
                                    {.read_only = true});
    for (const Text& text : texts) {
      begin = text.begin, done = 0;
      session_.forward(text.ids);
    }
    return {sum / static_cast<double>(tokens), width};
  }

  /// Token-weighted mean over texts.
  double mean(std::span<const Text> texts, const at::Tensor& vector,
              at::Tensor (Runner::*what)(const Text&, const at::Tensor&)) {
    const c10::NoGradGuard no_grad;
    double sum = 0, tokens = 0;
    for (const Text& text : texts) {
      sum += (this->*what)(text, vector).item<double>() * static_cast<double>(text.tokens());
      tokens += static_cast<double>(text.tokens());
    }
    return sum / tokens;
  }

 private:
  /// Kept, for as many texts as fit into a quarter of a gigabyte: they are needed at every step.
  at::Tensor unsteered(const Text& text) {
    constexpr std::int64_t most_kept = std::int64_t{1} << 26;
    const auto known = kept_.find(text.ids.data());
    if (known != kept_.end()) return known->second;
    const c10::NoGradGuard no_grad;
    const at::Tensor base = log_probabilities(text, {});
    if (kept_numbers_ + base.numel() > most_kept) return base;
    kept_numbers_ += base.numel();
    return kept_.emplace(text.ids.data(), base.clone()).first->second;
  }

  Session& session_;
  HookPoint point_;
  std::map<const std::int64_t*, at::Tensor> kept_;
  std::int64_t kept_numbers_ = 0;
};

/// Adam (Kingma and Ba 2015) on one tensor.
class Adam {
 public:
  explicit Adam(const at::Tensor& like) : first_(at::zeros_like(like)), second_(at::zeros_like(like)) {}
  at::Tensor step(const at::Tensor& gradient, double rate) {
    ++steps_;
    first_ = 0.9 * first_ + 0.1 * gradient;
    second_ = 0.99 * second_ + 0.01 * gradient.square();
    const at::Tensor mean = first_ / (1 - std::pow(0.9, steps_)), square = second_ / (1 - std::pow(0.99, steps_));
    return rate * mean / (square.sqrt() + 1e-12);
  }

 private:
  at::Tensor first_, second_;
  int steps_ = 0;
};

/// Draws texts without repeating one before all had their turn.
class Deck {
 public:
  Deck(std::size_t size, std::uint64_t seed) : order_(size), rng_(seed) {
    std::iota(order_.begin(), order_.end(), std::size_t{0});
  }
  std::size_t draw() {
    if (next_ == 0) rng_.shuffle(order_);
    const auto drawn = order_[next_];
    next_ = (next_ + 1) % order_.size();
    return drawn;
  }

 private:
  std::vector<std::size_t> order_;
  std::size_t next_ = 0;
  Rng rng_;
};

/// The longest multiple of v, at most v itself, within the bound.
at::Tensor shortened(Runner& runner, std::span<const Text> neutral, const at::Tensor& v, double max_kl) {
  double low = 0, high = 1;
  if (runner.mean(neutral, v, &Runner::kl) <= max_kl) return v;
  for (int i = 0; i < 12; ++i) {
    const double middle = (low + high) / 2;
    (runner.mean(neutral, middle * v, &Runner::kl) <= max_kl ? low : high) = middle;
  }
  return low * v;
}

}  // namespace

TrainedVector train_vector(Session& session, const HookPoint& point, std::span<const TokenizedText> answers,
                           std::span<const TokenizedText> neutral, const VectorTraining& options) {
  const auto wanted = checked(answers, "answers"), kept = checked(neutral, "neutral texts");
  require(options.max_kl > 0 && options.steps > 0 && options.texts_a_step > 0 && options.learning_rate > 0 &&
              options.multiplier_rate > 0,
          ErrorCode::argument, where, "expected a bound, steps, texts a step and rates above 0");
  Runner runner(session, point);
  const auto [norm, width] = runner.scale(wanted);
  require(!options.start.defined() || (options.start.dim() == 1 && options.start.size(0) == width), ErrorCode::shape,
          where, "expected a start of [{}] for {}", width, point.name());
  const double rate = options.learning_rate * norm / std::sqrt(static_cast<double>(width));
  at::Tensor v = options.start.defined() ? options.start.detach().to(at::kCPU, at::kFloat).clone()
                                         : at::zeros({width}, at::kFloat);
  Adam adam(v);
  Deck next_wanted(wanted.size(), derive_seed(options.seed, "answers")),
      next_kept(kept.size(), derive_seed(options.seed, "neutral"));
  double multiplier = 0;
  Progress progress = options.progress;
  for (std::int64_t step = 0; step < options.steps; ++step) {
    const at::AutoGradMode with_grad(true);
    const at::Tensor leaf = v.detach().clone().requires_grad_(true);
    const double share = 1 / static_cast<double>(options.texts_a_step);
    double broken = 0;
    // One text's graph at a time: gradients add up in the leaf.
    for (std::int64_t i = 0; i < options.texts_a_step; ++i) {
      // The first token of an answer is predicted before any token is steered: an answer of one has no gradient.
      if (const at::Tensor loss = runner.nll(wanted[next_wanted.draw()], leaf); loss.requires_grad())
        (share * loss).backward();
      const at::AutoGradMode only_if_it_counts(multiplier > 0);
      const at::Tensor kl = runner.kl(kept[next_kept.draw()], leaf);
      broken += share * (kl.item<double>() / options.max_kl - 1);
      if (kl.requires_grad()) (multiplier * share / options.max_kl * kl).backward();
    }
    const c10::NoGradGuard no_grad;
    multiplier = std::max(0.0, multiplier + options.multiplier_rate * std::clamp(broken, -1.0, 1.0));
    // The rate falls to a tenth: what is left of noise in the last steps is small.
    const double left = 1 - 0.9 * static_cast<double>(step) / static_cast<double>(options.steps);
    if (leaf.grad().defined()) v = v - adam.step(leaf.grad(), rate * left);
    progress.advance();
  }
  const c10::NoGradGuard no_grad;
  TrainedVector result{.vector = shortened(runner, kept, v, options.max_kl), .multiplier = multiplier};
  result.nll_before = runner.mean(wanted, {}, &Runner::nll);
  result.nll_after = runner.mean(wanted, result.vector, &Runner::nll);
  result.kl = runner.mean(kept, result.vector, &Runner::kl);
  return result;
}

}  // namespace steer
