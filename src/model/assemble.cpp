#include "model/assemble.hpp"

#include <algorithm>
#include <tuple>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "model/kernels/table.hpp"
#include "model/split.hpp"
#include "model/stored_weights.hpp"
#include "model/tensor_view.hpp"

namespace steer::model::detail {
namespace {

constexpr auto kAssemble = "Model::load";
/// Heads that training leaves beside the language model's own: they compute something else from the same stream.
constexpr std::string_view kOtherHeads[] = {"v_head.", "value_head.", "reward_head.", "score."};

struct Naming {
  void (*assemble)(Transformer&, WeightSource&);
  bool (*ignored)(const ModelConfig&, std::string_view);
};

Naming naming_of(const TensorReader& reader) {
  if (reader.format() == "gguf") return {assemble_gguf, ignored_gguf};
  return {assemble_hugging_face, ignored_hugging_face};
}

/// A layer takes several tensors, so their number bounds that of layers, before anything is made for them.
void require_layers_fit(const ModelConfig& config, const TensorReader& reader) {
  const auto tensors = static_cast<std::int64_t>(reader.tensors().size());
  require(
      config.n_layers <= tensors, ErrorCode::format, kAssemble,
      "expected the tensors of num_hidden_layers = {} layers but got {} tensors ({}); the file is incomplete or the "
      "configuration damaged",
      config.n_layers, tensors, reader.path().string());
}

/// The tensors by the names of a plain language model.
std::shared_ptr<const TensorReader> plain_names(const TensorReader& reader, std::vector<std::string>& warnings) {
  if (reader.format() == "gguf") return {};
  const std::string wrapping = wrapping_prefix(reader), tower = tower_prefix(reader, wrapping);
  if (wrapping.empty() && tower.empty()) return {};
  if (!wrapping.empty())
    warnings.push_back(
        format_text("every tensor is named {}*, as a training framework wraps it: read without", wrapping));
  return renamed_tensors(reader, [&](const std::string& name) {
    std::string plain = name.substr(wrapping.size());
    if (!tower.empty() && plain.starts_with(tower)) return "model." + plain.substr(tower.size());
    constexpr std::string_view kHead = "language_model.lm_head.";
    if (!tower.empty() && plain.starts_with(kHead)) return "lm_head." + plain.substr(kHead.size());
    return plain;
  });
}

/// The tensors of a plain language model, whatever a file wraps them in. Each view stands on the one before.
struct PlainModel {
  PlainModel(const ModelConfig& config, const TensorReader& reader, std::vector<std::string>& warnings)
      : named(plain_names(reader, warnings)),
        decoded(reader.format() == "gguf" ? nullptr : plain_tensors(named ? *named : reader, config.stored)),
        tensors(decoded ? *decoded
                : named ? *named
                        : reader) {}
  std::shared_ptr<const TensorReader> named, decoded;
  const TensorReader& tensors;
};

/// Everything that can be said about a model's tensors from their names, shapes and types.
void check(Transformer& model, WeightSource& source, const Naming& naming) {
  naming.assemble(model, source);
  std::vector<std::string> heads;
  source.finish_check([&](std::string_view name) {
    const bool head = std::any_of(std::begin(kOtherHeads), std::end(kOtherHeads),
                                  [&](auto prefix) { return name.starts_with(prefix); });
    if (head) heads.emplace_back(name);
    return head || naming.ignored(model.config, name);
  });
  if (!heads.empty())
    source.warn(format_text("ignored {}: another head than the language model's", fmt::join(heads, ", ")));
}

/// What is asked for, where this processor has it; else a warning.
Rounding rounding_of(const LoadOptions& options, std::vector<std::string>& warnings) {
  const auto [rounding, type, wanted] =
      options.compute == ComputeFormat::bf16   ? std::tuple(Rounding::bf16, WeightType::bf16, "AVX-512 BF16")
      : options.compute == ComputeFormat::int8 ? std::tuple(Rounding::int8, WeightType::int8, "AVX2 or AVX-512 VNNI")
                                               : std::tuple(Rounding::none, WeightType::f32, "");
  if (rounding == Rounding::none || (options.device.is_cpu() && kernels().rounds(type, rounding))) return rounding;
  warnings.push_back(
      format_text("computes in f32, not in {}: that wants a CPU with {}", to_string(options.compute), wanted));
  return Rounding::none;
}

/// Numbers the distinct ropes and computes their frequencies.
void add_ropes(Transformer& model) {
  const ModelConfig& config = model.config;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const RopeConfig& rope = config.layers[i].rope;
    if (rope.kind == RopeKind::none) continue;
    const auto found = std::find(model.ropes.begin(), model.ropes.end(), rope);
    model.layers[i].rope = static_cast<int>(found - model.ropes.begin());
    if (found != model.ropes.end()) continue;
    model.ropes.push_back(rope);
    at::Tensor frequencies = rope_frequencies(rope, config.rotary_dims);
    if (model.rope_divisors.defined()) frequencies.div_(model.rope_divisors.cpu());
    model.inv_freq.push_back(std::move(frequencies));
  }
}

}  // namespace

std::shared_ptr<Transformer> build(const ModelConfig& config, const TensorReader& reader, const LoadOptions& options) {
  require_layers_fit(config, reader);
  auto model = std::make_shared<Transformer>();
  model->config = config;
  model->warnings = config.warnings;
  model->rounding = rounding_of(options, model->warnings);
  model->device = options.device.is_cuda() ? at::Device(at::kCUDA, std::max<at::DeviceIndex>(options.device.index(), 0))
                                           : options.device;
  model->layers.resize(static_cast<std::size_t>(config.n_layers));
  const PlainModel plain(config, reader, model->warnings);
  WeightSource source(plain.tensors, options, model->device);
  const Naming naming = naming_of(reader);
  check(*model, source, naming);
  Split::Report parted;
  if (options.parallel && options.parallel->size() > 1) {
    model->split = std::make_shared<const Split>(config, options.parallel);
    source.finish_layer = [&](LayerWeights& layer) { model->split->cut(layer, model->device, parted); };
  }
  naming.assemble(*model, source);
  model->embed = model->embed.to(model->device);
  model->unembed = model->config.tied_embeddings ? model->embed : model->unembed.to(model->device);
  model->part = model->split ? model->split->part_of(model->config) : model->config;
  model->weight_bytes = source.bytes() - parted.bytes;
  model->warnings.insert(model->warnings.end(), source.warnings().begin(), source.warnings().end());
  if (parted.widened > 0)
    model->warnings.push_back(
        format_text("{} matrices are kept in f32, since {} processes cut the blocks of their rows: another number of "
                    "processes may not",
                    parted.widened, model->split->processes()));
  add_ropes(*model);
  model->hash = hash_weights(reader);
  // Answers of such a model are not to be mixed with those of the weights as they are.
  if (options.weights != WeightFormat::stored) model->hash += format_text("-weights-{}", to_string(options.weights));
  if (model->rounding != Rounding::none) model->hash += format_text("-compute-{}", to_string(options.compute));
  if (model->split) model->hash += format_text("-processes-{}", model->split->processes());
  return model;
}

WeightCheck check_weights(const ModelConfig& config, const TensorReader& reader, const LoadOptions& options) {
  require_layers_fit(config, reader);
  WeightCheck out;
  out.warnings = config.warnings;
  Transformer model;
  model.config = config;
  model.layers.resize(static_cast<std::size_t>(config.n_layers));
  const PlainModel plain(config, reader, out.warnings);
  WeightSource source(plain.tensors, options, at::kCPU);
  check(model, source, naming_of(reader));
  out.bytes = source.bytes();
  out.warnings.insert(out.warnings.end(), source.warnings().begin(), source.warnings().end());
  return out;
}

}  // namespace steer::model::detail
