#include <steer/sae/trainer.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/io/safetensors_writer.hpp>
#include <steer/io/tensor_reader.hpp>

#include "core/format_text.hpp"
#include "sae/activation_buffer.hpp"
#include "sae/train_step.hpp"

namespace steer {
namespace {

constexpr std::string_view kTrainer = "SaeTrainer";
constexpr std::string_view kFormat = "steer sae checkpoint 1";

void check(const SaeTrainingOptions& o) {
  const auto at_least = [](std::string_view name, std::int64_t value, std::int64_t least) {
    require(value >= least, ErrorCode::argument, kTrainer, "expected {} of {} or more but got {}", name, least, value);
  };
  const auto positive = [](std::string_view name, double value) {
    require(value > 0 && std::isfinite(value), ErrorCode::argument, kTrainer, "expected {} above 0 but got {}", name,
            value);
  };
  at_least("d_in", o.d_in, 1);
  at_least("d_sae", o.d_sae, 1);
  at_least("steps", o.steps, 1);
  at_least("batch_tokens", o.batch_tokens, 1);
  at_least("buffer_tokens", o.buffer_tokens, o.batch_tokens);
  at_least("warmup_steps", o.warmup_steps, 0);
  at_least("decay_steps", o.decay_steps, 0);
  at_least("sparsity_warmup_steps", o.sparsity_warmup_steps, 0);
  at_least("dead_after_tokens", o.dead_after_tokens, 1);
  at_least("aux_k", o.aux_k, 0);
  at_least("checkpoint_every", o.checkpoint_every, 1);
  positive("learning_rate", o.learning_rate);
  for (const auto& [name, beta] : {std::pair{"beta1", o.beta1}, std::pair{"beta2", o.beta2}})
    require(beta >= 0 && beta < 1, ErrorCode::argument, kTrainer, "expected {} in [0, 1) but got {}", name, beta);
  switch (o.activation) {
    case SaeActivation::topk:
    case SaeActivation::batchtopk:
      require(o.k >= 1 && o.k <= o.d_sae, ErrorCode::argument, kTrainer, "expected k between 1 and d_sae {} but got {}",
              o.d_sae, o.k);
      break;
    case SaeActivation::relu:
      require(o.l1 >= 0 && std::isfinite(o.l1), ErrorCode::argument, kTrainer, "expected l1 of 0 or more but got {}",
              o.l1);
      break;
    case SaeActivation::jumprelu:
      require(o.l0 >= 0 && std::isfinite(o.l0), ErrorCode::argument, kTrainer, "expected l0 of 0 or more but got {}",
              o.l0);
      positive("bandwidth", o.bandwidth);
      positive("initial_threshold", o.initial_threshold);
      break;
    default:
      fail(ErrorCode::unsupported, kTrainer, "expected activation relu, topk, batchtopk or jumprelu but got {}",
           to_string(o.activation));
  }
  // Positions in a batch's pre-activations are 32-bit.
  require(o.batch_tokens < (std::int64_t{1} << 31) / o.d_sae || o.activation != SaeActivation::batchtopk,
          ErrorCode::argument, kTrainer, "expected batch_tokens * d_sae below 2^31 for batchtopk but got {} * {}",
          o.batch_tokens, o.d_sae);
}

/// Everything that decides the numbers. `steps` may grow between runs only where no decay hangs on it.
std::string fingerprint(const SaeTrainingOptions& o) {
  return content_hash(format_text("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", o.d_in, o.d_sae,
                                  to_string(o.activation), o.k, o.l1, o.l0, o.bandwidth, o.initial_threshold,
                                  o.sparsity_warmup_steps, o.decay_steps > 0 ? o.steps : 0, o.batch_tokens,
                                  o.buffer_tokens, o.learning_rate, o.beta1, o.beta2, o.warmup_steps, o.decay_steps,
                                  o.subtract_b_dec, o.dead_after_tokens, o.aux_k, o.seed) +
                      format_text(" {}", o.aux_weight));
}

}  // namespace

struct SaeTrainer::Impl {
  SaeTrainingOptions options;
  sae::detail::ActivationBuffer buffer;
  sae::detail::TrainState state;
  sae::detail::TrainScratch scratch;
  double scale = 0;  ///< of the inputs; 0 until the first buffer has been measured
  SaeTrainingMetrics last;

  Impl(const SaeTrainingOptions& o, ActivationSource source)
      : options(o), buffer(std::move(source), o.d_in, o.buffer_tokens, o.seed, o.progress) {}

  /// Everything a checkpoint holds, by name.
  std::vector<std::pair<std::string, at::Tensor*>> tensors() {
    std::vector<std::pair<std::string, at::Tensor*>> list;
    const auto add = [&](const std::string& name, sae::detail::Trained& p) {
      list.emplace_back(name, &p.value);
      list.emplace_back(name + ".m", &p.m);
      list.emplace_back(name + ".v", &p.v);
    };
    add("encoder", state.encoder);
    add("b_enc", state.b_enc);
    add("decoder", state.decoder);
    add("b_dec", state.b_dec);
    if (options.activation == SaeActivation::jumprelu) add("log_threshold", state.log_threshold);
    list.emplace_back("idle", &state.idle);
    return list;
  }

  void start() {
    if (scale > 0) return;
    buffer.prime();
    const auto sample = buffer.remaining();
    const double norm = sample.norm(2, {1}).mean(at::kDouble).item<double>();
    require(norm > 0, ErrorCode::argument, kTrainer, "expected activations that are not all zero");
    scale = std::sqrt(static_cast<double>(options.d_in)) / norm;
    state = sae::detail::initial_state(options, sample.mean(0).mul_(scale));
  }

  void save(const std::filesystem::path& path) {
    start();
    std::vector<std::pair<std::string, at::Tensor>> list;
    for (const auto& [name, tensor] : tensors()) list.emplace_back(name, *tensor);
    list.emplace_back("buffer", buffer.remaining());
    // Hexadecimal floating point: exact.
    save_safetensors(path, list,
                     {{"format", std::string(kFormat)},
                      {"options", fingerprint(options)},
                      {"steps", format_text("{}", state.steps)},
                      {"read", format_text("{}", buffer.read())},
                      {"refills", format_text("{}", buffer.refills())},
                      {"scale", format_text("{:a}", scale)},
                      {"batch_threshold", format_text("{:a}", state.batch_threshold)}});
  }

  void resume(const std::filesystem::path& path) {
    const auto file = open_tensors(path);
    const auto& metadata = file->metadata();
    const auto text = [&](const char* key) {
      const auto found = metadata.find(key);
      require(found != metadata.end() && found->is_string(), ErrorCode::format, kTrainer,
              "expected a checkpoint but {} has no metadata \"{}\"", path.string(), key);
      return found->get<std::string>();
    };
    const auto integer = [&](const char* key) {
      const auto value = text(key);
      std::int64_t number = -1;
      std::from_chars(value.data(), value.data() + value.size(), number);
      require(number >= 0, ErrorCode::format, kTrainer, "expected a count \"{}\" in {} but got {}", key, path.string(),
              value);
      return number;
    };
    require(text("format") == kFormat, ErrorCode::format, kTrainer,
            "expected a checkpoint of this version but {} says {}", path.string(), text("format"));
    require(text("options") == fingerprint(options), ErrorCode::config, kTrainer,
            "{} was made with other options; use the same ones, or another checkpoint file", path.string());
    state = sae::detail::initial_state(options, at::zeros({options.d_in}));
    for (const auto& [name, tensor] : tensors()) {
      const auto saved = file->read(name);
      require(saved.sizes() == tensor->sizes() && saved.scalar_type() == tensor->scalar_type(), ErrorCode::format,
              kTrainer, "tensor \"{}\" of {} has another shape or type than these options need", name, path.string());
      tensor->copy_(saved);
    }
    state.steps = integer("steps");
    scale = std::strtod(text("scale").c_str(), nullptr);
    state.batch_threshold = std::strtod(text("batch_threshold").c_str(), nullptr);
    require(scale > 0 && std::isfinite(scale), ErrorCode::format, kTrainer, "expected a positive scale in {}",
            path.string());
    const auto held = file->read("buffer");
    require(held.dim() == 2 && held.size(1) == options.d_in && held.scalar_type() == at::kFloat, ErrorCode::format,
            kTrainer, "expected a buffer of width {} in {}", options.d_in, path.string());
    buffer.restore(held.clone(), integer("read"), integer("refills"));
  }
};

SaeTrainer::SaeTrainer(const SaeTrainingOptions& options, ActivationSource source) {
  check(options);
  require(static_cast<bool>(source.read), ErrorCode::argument, kTrainer,
          "expected a source of activations but got none");
  impl_ = std::make_unique<Impl>(options, std::move(source));
  if (!options.checkpoint.empty() && std::filesystem::exists(options.checkpoint)) impl_->resume(options.checkpoint);
}

SaeTrainer::~SaeTrainer() = default;
SaeTrainer::SaeTrainer(SaeTrainer&&) noexcept = default;
SaeTrainer& SaeTrainer::operator=(SaeTrainer&&) noexcept = default;

std::int64_t SaeTrainer::steps_done() const { return impl_->state.steps; }

SaeTrainingMetrics SaeTrainer::step() {
  const at::NoGradGuard no_grad;
  impl_->start();
  const auto x = impl_->buffer.draw(impl_->options.batch_tokens).mul_(impl_->scale);
  impl_->last = sae::detail::train_step(impl_->options, impl_->state, x, impl_->scratch);
  if (impl_->options.on_step) impl_->options.on_step(impl_->last);
  return impl_->last;
}

Sae SaeTrainer::train() {
  const auto& o = impl_->options;
  auto progress = o.progress;
  progress.resume_at(steps_done());
  while (steps_done() < o.steps) {
    const auto m = step();
    progress.note(format_text("loss {:.4g}, explained {:.3f}, L0 {:.1f}, dead {:.1f}%", m.loss, m.explained_variance,
                              m.l0, 100 * m.dead_share));
    progress.advance();
    if (!o.checkpoint.empty() && (steps_done() % o.checkpoint_every == 0 || steps_done() == o.steps))
      save_checkpoint(o.checkpoint);
  }
  progress.finish();
  return sae();
}

Sae SaeTrainer::sae() const {
  impl_->start();
  const auto& o = impl_->options;
  const auto& s = impl_->state;
  SaeConfig config;
  config.activation = o.activation;
  config.k = o.activation == SaeActivation::topk ? o.k : 0;
  config.subtract_b_dec = o.subtract_b_dec;
  config.format = "steer";
  config.model_name = o.model_name;
  config.hook_in = config.hook_out = o.hook;
  if (o.hook) config.hook_name = o.hook->name();
  // Raw activations in: the scale moves into the weights, as SAELens folds it. Features keep the scaled units.
  SaeWeights w;
  w.W_enc = (s.encoder.value * impl_->scale).t();
  w.b_enc = s.b_enc.value.clone();
  w.W_dec = s.decoder.value / impl_->scale;
  w.b_dec = s.b_dec.value / impl_->scale;
  if (o.activation == SaeActivation::jumprelu) w.threshold = s.log_threshold.value.exp();
  // Never set means that nothing has been kept yet; plain ReLU then.
  if (o.activation == SaeActivation::batchtopk) w.threshold = at::full({o.d_sae}, s.batch_threshold);
  return Sae::from_weights(std::move(config), std::move(w));
}

void SaeTrainer::save_checkpoint(const std::filesystem::path& path) const { impl_->save(path); }

}  // namespace steer
