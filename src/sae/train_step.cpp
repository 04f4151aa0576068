#include "sae/train_step.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "core/crew.hpp"

namespace steer::sae::detail {
namespace {

/// Above this share of active entries the products of dense matrices are faster than sums over the active ones.
constexpr double kDense = 0.08;
/// Dead features that one step's auxiliary loss looks at.
constexpr std::int64_t kMostDead = 2048;

float* data(const at::Tensor& t) { return t.data_ptr<float>(); }

/// Linear growth to 1 over `steps`.
double ramp(std::int64_t step, std::int64_t steps) {
  return steps <= 0 ? 1.0 : std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(steps));
}

double learning_rate(const SaeTrainingOptions& o, std::int64_t step) {
  return o.learning_rate * ramp(step, o.warmup_steps) *
         (o.decay_steps > 0 ? ramp(o.steps - step - 1, o.decay_steps) : 1.0);
}

/// Gradients of the loss by the parameters of the dead features an auxiliary loss has revived.
struct Auxiliary {
  std::vector<std::int32_t> slot;  ///< [d_sae]: row in the tensors below, or -1; empty without dead features
  at::Tensor encoder, decoder, b_enc;
  double loss = 0;
};

class Step {
 public:
  Step(const SaeTrainingOptions& options, TrainState& state, const at::Tensor& x, TrainScratch& scratch)
      : o_(options),
        s_(state),
        x_(x),
        w_(scratch),
        tokens_(x.size(0)),
        d_(x.size(1)),
        features_(options.d_sae),
        sparsity_(ramp(state.steps, options.sparsity_warmup_steps)) {}

  SaeTrainingMetrics run() {
    input_ = o_.subtract_b_dec ? x_ - s_.b_dec.value : x_;
    if (!w_.z.defined() || w_.z.size(0) != tokens_) w_.z = at::empty({tokens_, features_});
    at::addmm_out(w_.z, s_.b_enc.value, input_, s_.encoder.value.t());
    if (o_.activation == SaeActivation::jumprelu) threshold_ = s_.log_threshold.value.exp();
    select();
    const double density = static_cast<double>(entries_) / static_cast<double>(tokens_ * features_);
    reconstruct(density > kDense);
    auto metrics = measure();
    revive_by_auxiliary_loss();
    // Through the subtraction b_dec also moves the encoder's input.
    const auto g_b_dec =
        o_.subtract_b_dec ? gradient_out_.sum(0) - at::mv(s_.encoder.value.t(), g_b_enc_) : gradient_out_.sum(0);
    update(g_b_dec);
    metrics.loss += auxiliary_.loss;
    metrics.step = ++s_.steps;
    revive_by_resampling();
    count_dead(metrics);
    return metrics;
  }

 private:
  const float* z_row(std::int64_t t) const { return w_.z.const_data_ptr<float>() + t * features_; }

  /// What a pre-activation becomes.
  float activate(std::int32_t feature, float z) const {
    if (o_.activation == SaeActivation::jumprelu) return z > data(threshold_)[feature] ? z : 0.0f;
    return z;
  }

  /// Fills the rows with the features that take part in the gradient: the active ones, and for jumprelu those within
  /// half a window below their threshold.
  void select() {
    w_.rows.resize(static_cast<std::size_t>(tokens_));
    float cut = 0;
    if (o_.activation == SaeActivation::batchtopk) cut = batch_cut();
    core::detail::run_shares(tokens_, 1, [&](std::int64_t begin, std::int64_t end) {
      TopKScratch scratch;
      std::vector<std::int32_t> kept(static_cast<std::size_t>(o_.activation == SaeActivation::topk ? o_.k : features_));
      for (auto t = begin; t < end; ++t) {
        const float* z = z_row(t);
        std::int64_t count = 0;
        switch (o_.activation) {
          case SaeActivation::topk:
            count = top_k(z, features_, o_.k, kept.data(), scratch);
            count =
                std::find_if(kept.begin(), kept.begin() + count, [z](auto i) { return !(z[i] > 0); }) - kept.begin();
            break;
          case SaeActivation::jumprelu:
            count = kernels().above(z, data(threshold_), static_cast<float>(-o_.bandwidth / 2), features_, kept.data());
            break;
          default:
            count = kernels().above(z, nullptr, cut, features_, kept.data());
        }
        auto& row = w_.rows[t];
        row.clear();
        for (std::int64_t j = 0; j < count; ++j) row.push_back({kept[j], z[kept[j]]});
      }
    });
    entries_ = 0;
    for (const auto& row : w_.rows) entries_ += static_cast<std::int64_t>(row.size());
  }

  /// The largest value that fewer than batch * k pre-activations exceed; never below 0.
  float batch_cut() {
    const auto keep = std::min(tokens_ * o_.k, tokens_ * features_);
    TopKScratch scratch;
    std::vector<std::int32_t> kept(static_cast<std::size_t>(keep));
    const auto* z = z_row(0);
    const auto count = top_k(z, tokens_ * features_, keep, kept.data(), scratch);
    const float smallest = count > 0 ? z[kept[count - 1]] : 0.0f;
    return smallest > 0 ? std::nextafter(smallest, 0.0f) : 0.0f;
  }

  void reconstruct(bool dense) {
    dense_ = dense;
    if (dense) {
      f_ = at::zeros({tokens_, features_});
      core::detail::run_shares(tokens_, 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto t = begin; t < end; ++t)
          for (const auto& e : w_.rows[t]) data(f_)[t * features_ + e.feature] = activate(e.feature, e.z);
      });
      error_ = at::addmm(s_.b_dec.value, f_, s_.decoder.value).sub_(x_);
    } else {
      error_ = s_.b_dec.value - x_;
      core::detail::run_shares(tokens_, 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto t = begin; t < end; ++t)
          for (const auto& e : w_.rows[t])
            if (const float f = activate(e.feature, e.z); f != 0)
              kernels().add_scaled(data(error_) + t * d_, data(s_.decoder.value) + e.feature * d_, f, d_);
      });
    }
    gradient_out_ = error_ * (2.0 / static_cast<double>(tokens_));
    by_feature();
  }

  /// Gathers, a feature at a time, the tokens it takes part in, with its activation and the gradient by z, and adds up
  /// the gradients of biases and thresholds.
  void by_feature() {
    w_.begin.assign(static_cast<std::size_t>(features_ + 1), 0);
    for (const auto& row : w_.rows)
      for (const auto& e : row) ++w_.begin[e.feature + 1];
    for (std::int64_t i = 0; i < features_; ++i) w_.begin[i + 1] += w_.begin[i];
    auto next = w_.begin;
    w_.token.resize(static_cast<std::size_t>(entries_));
    w_.activation.resize(w_.token.size());
    w_.gradient.resize(w_.token.size());
    for (std::int64_t t = 0; t < tokens_; ++t)
      for (const auto& e : w_.rows[t]) {
        const auto at = next[e.feature]++;
        w_.token[at] = static_cast<std::int32_t>(t);
        w_.activation[at] = e.z;
      }
    const at::Tensor by_f = dense_ ? at::mm(gradient_out_, s_.decoder.value.t()) : at::Tensor();
    const bool jump = o_.activation == SaeActivation::jumprelu;
    const auto n = static_cast<float>(tokens_), width = static_cast<float>(o_.bandwidth);
    const float l1 = o_.activation == SaeActivation::relu ? static_cast<float>(o_.l1 * sparsity_) / n : 0.0f;
    const float l0 = jump ? static_cast<float>(o_.l0 * sparsity_) / n : 0.0f;
    g_b_enc_ = at::zeros({features_});
    if (jump) g_log_threshold_ = at::zeros({features_});
    core::detail::run_shares(features_, 16, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = begin; i < end; ++i) {
        const float* row = data(s_.decoder.value) + i * d_;
        const float theta = jump ? data(threshold_)[i] : 0.0f;
        double sum = 0, by_theta = 0;
        for (auto e = w_.begin[i]; e < w_.begin[i + 1]; ++e) {
          const auto t = w_.token[e];
          const float z = w_.activation[e];
          const float by_activation =
              dense_ ? data(by_f)[t * features_ + i] : kernels().dot(row, data(gradient_out_) + t * d_, d_);
          const bool active = !jump || z > theta;
          // The straight-through estimator of Rajamanoharan et al. 2024 with a rectangle of the bandwidth's width.
          if (jump && std::abs(z - theta) < width / 2) by_theta -= (theta * by_activation + l0) / width;
          w_.activation[e] = active ? z : 0.0f;
          w_.gradient[e] = active ? by_activation + l1 : 0.0f;
          sum += w_.gradient[e];
        }
        data(g_b_enc_)[i] = static_cast<float>(sum);
        if (jump) data(g_log_threshold_)[i] = static_cast<float>(by_theta * theta);
      }
    });
    if (dense_) {
      gradient_z_ = at::zeros({tokens_, features_});
      core::detail::run_shares(features_, 16, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = begin; i < end; ++i)
          for (auto e = w_.begin[i]; e < w_.begin[i + 1]; ++e)
            data(gradient_z_)[w_.token[e] * features_ + i] = w_.gradient[e];
      });
    }
  }

  SaeTrainingMetrics measure() {
    SaeTrainingMetrics m;
    const double error = error_.square().sum(at::kDouble).item<double>();
    const double spread = (x_ - x_.mean(0)).square().sum(at::kDouble).item<double>();
    double total = 0, active = 0, smallest = std::numeric_limits<double>::infinity();
    for (const float f : w_.activation)
      if (f != 0) total += f, active += 1, smallest = std::min<double>(smallest, f);
    m.squared_error = error / static_cast<double>(tokens_);
    m.explained_variance = spread > 0 ? 1 - error / spread : 0;
    m.l0 = active / static_cast<double>(tokens_);
    m.loss = m.squared_error;
    if (o_.activation == SaeActivation::relu) m.loss += o_.l1 * sparsity_ * total / static_cast<double>(tokens_);
    if (o_.activation == SaeActivation::jumprelu) m.loss += o_.l0 * sparsity_ * m.l0;
    m.learning_rate = learning_rate(o_, s_.steps);
    require(std::isfinite(m.loss), ErrorCode::argument, "SaeTrainer",
            "the loss is not finite at step {}; lower the learning rate", s_.steps + 1);
    if (o_.activation == SaeActivation::batchtopk && active > 0)
      s_.batch_threshold = s_.batch_threshold < 0 ? smallest : 0.99 * s_.batch_threshold + 0.01 * smallest;
    auto* idle = s_.idle.data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < features_; ++i) {
      bool fired = false;
      for (auto e = w_.begin[i]; e < w_.begin[i + 1] && !fired; ++e) fired = w_.activation[e] != 0;
      idle[i] = fired ? 0 : idle[i] + tokens_;
    }
    return m;
  }

  bool ranked() const { return o_.activation == SaeActivation::topk || o_.activation == SaeActivation::batchtopk; }

  /// Dead features try to explain what the live ones leave over (Gao et al. 2024, appendix A.2): their own top k of the
  /// pre-activations reconstruct the error, and only they learn from it.
  void revive_by_auxiliary_loss() {
    if (!ranked() || o_.aux_weight <= 0) return;
    const auto* idle = s_.idle.const_data_ptr<std::int64_t>();
    std::vector<std::int64_t> dead;
    // Another stretch of them at each step, should there be too many.
    const auto start = (s_.steps * kMostDead) % features_;
    for (std::int64_t j = 0; j < features_ && static_cast<std::int64_t>(dead.size()) < kMostDead; ++j)
      if (const auto i = (start + j) % features_; idle[i] > o_.dead_after_tokens) dead.push_back(i);
    if (dead.empty()) return;
    const auto count = static_cast<std::int64_t>(dead.size());
    const auto which = at::tensor(at::ArrayRef<std::int64_t>(dead), at::kLong);
    const auto decoder = s_.decoder.value.index_select(0, which);
    auto f = w_.z.index_select(1, which).relu_();
    const auto k = o_.aux_k > 0 ? o_.aux_k : std::max<std::int64_t>(1, d_ / 2);
    if (count > k) {
      const auto smallest = std::get<0>(f.topk(k, 1)).select(1, k - 1).unsqueeze(1);
      f.mul_(f >= smallest);
    }
    const auto miss = at::addmm(error_, f, decoder);  // e^ - e, as error_ is x^ - x
    // Few dead features cannot be asked to explain all of the error.
    const double weight = o_.aux_weight * std::min(1.0, static_cast<double>(count) / static_cast<double>(k));
    const auto g = miss * (2.0 * weight / static_cast<double>(tokens_));
    const auto g_z = at::mm(g, decoder.t()).mul_(f > 0);
    auxiliary_.encoder = at::mm(g_z.t(), input_);
    auxiliary_.decoder = at::mm(f.t(), g);
    auxiliary_.b_enc = g_z.sum(0);
    auxiliary_.loss = weight * miss.square().sum().item<double>() / static_cast<double>(tokens_);
    auxiliary_.slot.assign(static_cast<std::size_t>(features_), -1);
    for (std::int64_t j = 0; j < count; ++j) auxiliary_.slot[dead[j]] = static_cast<std::int32_t>(j);
  }

  void update(const at::Tensor& g_b_dec) {
    const auto t = static_cast<double>(s_.steps + 1);
    AdamStep adam_step;
    adam_step.beta1 = static_cast<float>(o_.beta1);
    adam_step.beta2 = static_cast<float>(o_.beta2);
    adam_step.rate = static_cast<float>(learning_rate(o_, s_.steps) / (1 - std::pow(o_.beta1, t)));
    adam_step.correction2 = static_cast<float>(1 / std::sqrt(1 - std::pow(o_.beta2, t)));
    const auto move = [&](Trained& p, std::int64_t at, const float* g, std::int64_t n) {
      kernels().adam(data(p.value) + at, data(p.m) + at, data(p.v) + at, g, n, adam_step);
    };
    at::Tensor dense_encoder, dense_decoder;
    if (dense_) {
      dense_encoder = at::mm(gradient_z_.t(), input_);
      dense_decoder = at::mm(f_.t(), gradient_out_);
    }
    core::detail::run_shares(features_, 16, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> g_encoder(static_cast<std::size_t>(d_)), g_decoder(static_cast<std::size_t>(d_));
      for (auto i = begin; i < end; ++i) {
        if (dense_) {
          std::copy_n(data(dense_encoder) + i * d_, d_, g_encoder.begin());
          std::copy_n(data(dense_decoder) + i * d_, d_, g_decoder.begin());
        } else {
          std::fill(g_encoder.begin(), g_encoder.end(), 0.0f);
          std::fill(g_decoder.begin(), g_decoder.end(), 0.0f);
          for (auto e = w_.begin[i]; e < w_.begin[i + 1]; ++e) {
            const auto at = static_cast<std::int64_t>(w_.token[e]) * d_;
            if (w_.activation[e] == 0) continue;
            kernels().add_scaled(g_encoder.data(), data(input_) + at, w_.gradient[e], d_);
            kernels().add_scaled(g_decoder.data(), data(gradient_out_) + at, w_.activation[e], d_);
          }
        }
        float g_bias = data(g_b_enc_)[i];
        if (!auxiliary_.slot.empty() && auxiliary_.slot[i] >= 0) {
          const auto at = static_cast<std::int64_t>(auxiliary_.slot[i]);
          kernels().add_scaled(g_encoder.data(), data(auxiliary_.encoder) + at * d_, 1.0f, d_);
          kernels().add_scaled(g_decoder.data(), data(auxiliary_.decoder) + at * d_, 1.0f, d_);
          g_bias += data(auxiliary_.b_enc)[at];
        }
        float* row = data(s_.decoder.value) + i * d_;
        kernels().add_scaled(g_decoder.data(), row, -kernels().dot(g_decoder.data(), row, d_),
                             d_);  // the row only turns
        move(s_.decoder, i * d_, g_decoder.data(), d_);
        normalize(row);
        move(s_.encoder, i * d_, g_encoder.data(), d_);
        move(s_.b_enc, i, &g_bias, 1);
        if (o_.activation == SaeActivation::jumprelu) move(s_.log_threshold, i, data(g_log_threshold_) + i, 1);
      }
    });
    move(s_.b_dec, 0, data(g_b_dec.contiguous()), d_);
  }

  void normalize(float* row) const {
    const float norm = std::sqrt(kernels().dot(row, row, d_));
    if (norm > 0)
      for (std::int64_t j = 0; j < d_; ++j) row[j] /= norm;
  }

  /// Every so often dead features start anew at tokens that are reconstructed badly, chosen with probability
  /// proportional to the squared loss (Bricken et al. 2023, "neuron resampling").
  void revive_by_resampling() {
    const auto every = std::max<std::int64_t>(1, o_.dead_after_tokens / tokens_);
    if (ranked() || s_.steps % every != 0) return;
    auto* idle = s_.idle.data_ptr<std::int64_t>();
    const auto loss = error_.square().sum(1);
    const auto weight = loss.square().cumsum(0, at::kDouble).contiguous();
    const auto* upto = weight.const_data_ptr<double>();
    if (!(upto[tokens_ - 1] > 0)) return;
    double live_norm = 0, live = 0;
    for (std::int64_t i = 0; i < features_; ++i)
      if (idle[i] <= o_.dead_after_tokens) {
        const float* row = data(s_.encoder.value) + i * d_;
        live_norm += std::sqrt(kernels().dot(row, row, d_)), live += 1;
      }
    const double scale = 0.2 * (live > 0 ? live_norm / live : 1.0);
    Rng rng(derive_seed(o_.seed, "resample", static_cast<std::uint64_t>(s_.steps)));
    for (std::int64_t i = 0; i < features_; ++i) {
      if (idle[i] <= o_.dead_after_tokens) continue;
      const auto t = std::lower_bound(upto, upto + tokens_ - 1, rng.uniform() * upto[tokens_ - 1]) - upto;
      const auto at = i * d_;
      for (std::int64_t j = 0; j < d_; ++j) data(s_.decoder.value)[at + j] = -data(error_)[t * d_ + j];
      normalize(data(s_.decoder.value) + at);
      for (std::int64_t j = 0; j < d_; ++j)
        data(s_.encoder.value)[at + j] = static_cast<float>(scale) * data(s_.decoder.value)[at + j];
      data(s_.b_enc.value)[i] = 0;
      if (o_.activation == SaeActivation::jumprelu)
        data(s_.log_threshold.value)[i] = static_cast<float>(std::log(o_.initial_threshold));
      for (auto* p : {&s_.encoder, &s_.decoder})
        for (auto* moment : {&p->m, &p->v}) std::fill_n(data(*moment) + at, d_, 0.0f);
      for (auto* moment : {&s_.b_enc.m, &s_.b_enc.v}) data(*moment)[i] = 0;
      idle[i] = 0;
    }
  }

  void count_dead(SaeTrainingMetrics& metrics) const {
    const auto* idle = s_.idle.const_data_ptr<std::int64_t>();
    const auto dead = std::count_if(idle, idle + features_, [&](auto n) { return n > o_.dead_after_tokens; });
    metrics.dead_share = static_cast<double>(dead) / static_cast<double>(features_);
    metrics.tokens = s_.steps * tokens_;
  }

  const SaeTrainingOptions& o_;
  TrainState& s_;
  const at::Tensor& x_;
  TrainScratch& w_;
  const std::int64_t tokens_, d_, features_;
  const double sparsity_;  // share of the penalty's weight in force
  std::int64_t entries_ = 0;
  bool dense_ = false;
  at::Tensor input_, threshold_, error_, gradient_out_, f_, gradient_z_, g_b_enc_, g_log_threshold_;
  Auxiliary auxiliary_;
};

}  // namespace

Trained::Trained(at::Tensor initial) : value(std::move(initial)), m(at::zeros_like(value)), v(at::zeros_like(value)) {}

TrainState initial_state(const SaeTrainingOptions& o, const at::Tensor& mean) {
  TrainState s;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(derive_seed(o.seed, "sae initial weights"));
  auto rows = at::randn({o.d_sae, o.d_in}, generator, at::TensorOptions());
  rows.div_(rows.norm(2, {1}, true).clamp_min(1e-8));
  s.decoder = Trained(rows);
  s.encoder = Trained(rows.clone());
  s.b_enc = Trained(at::zeros({o.d_sae}));
  s.b_dec = Trained(mean.clone());
  if (o.activation == SaeActivation::jumprelu)
    s.log_threshold = Trained(at::full({o.d_sae}, std::log(o.initial_threshold)));
  s.idle = at::zeros({o.d_sae}, at::kLong);
  return s;
}

SaeTrainingMetrics train_step(const SaeTrainingOptions& options, TrainState& state, const at::Tensor& x,
                              TrainScratch& scratch) {
  return Step(options, state, x, scratch).run();
}

}  // namespace steer::sae::detail
