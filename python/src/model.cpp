// Models and their configuration.
#include <fmt/format.h>
#include <steer/core/error.hpp>
#include <steer/model/hooks.hpp>
#include <steer/model/model.hpp>

#include <nanobind/stl/map.h>

#include "bind.hpp"

namespace steer::python {
namespace {

LoadOptions load_options(const std::string& weights, const std::string& compute, const std::string& device,
                         std::int64_t max_memory, std::int64_t context,
                         const std::vector<std::string>& allow_unknown_config, const std::filesystem::path& adapter,
                         const std::optional<std::string>& chat_format) {
  constexpr auto kWhere = "Model.load";
  LoadOptions options{.weights = parse_enum<WeightFormat>(weights, kWhere),
                      .compute = parse_enum<ComputeFormat>(compute, kWhere),
                      .device = parse_device(device),
                      .max_memory = max_memory,
                      .context = context,
                      .allow_unknown_config = allow_unknown_config,
                      .adapter = adapter};
  if (chat_format) options.chat_format = parse_enum<ChatFormat>(*chat_format, kWhere);
  return options;
}

}  // namespace

void bind_model(nb::module_& m) {
  nb::class_<ModelConfig>(m, "ModelConfig", "What decides a model's numbers.")
      .def_ro("family", &ModelConfig::family, "\"llama\", \"qwen3\", \"gpt_oss\" and so on.")
      .def_ro("name", &ModelConfig::name, "What the file calls itself; may be empty.")
      .def_ro("d_vocab", &ModelConfig::vocab_size, "Rows of the embedding.")
      .def_ro("d_model", &ModelConfig::d_model, "Width of the residual stream.")
      .def_ro("n_layers", &ModelConfig::n_layers, "Blocks.")
      .def_ro("n_heads", &ModelConfig::n_heads, "Query heads a layer.")
      .def_ro("n_key_value_heads", &ModelConfig::n_kv_heads, "Key and value heads a layer.")
      .def_ro("d_head", &ModelConfig::d_head, "Width of a head.")
      .def_ro("d_mlp", &ModelConfig::d_mlp, "Neurons of an MLP (of an expert, where there are experts).")
      .def_ro("n_ctx", &ModelConfig::context, "Longest sequence.")
      .def_ro("bos_ids", &ModelConfig::bos_ids, "Begin of sequence.")
      .def_ro("eos_ids", &ModelConfig::eos_ids, "End of sequence, by the configuration; see Model.stop_ids.")
      .def_ro("tied_embeddings", &ModelConfig::tied_embeddings, "Embedding and unembedding are one matrix.")
      .def_ro("parallel_residual", &ModelConfig::parallel_residual, "Attention and MLP both read resid_pre.")
      .def_prop_ro(
          "normalization_type", [](const ModelConfig& c) { return c.norm == NormKind::rms ? "RMS" : "LN"; },
          nb::sig("def normalization_type(self) -> str"), "RMS or LN, of all norms.")
      .def_ro("eps", &ModelConfig::norm_eps, "What norms add to the mean square.")
      .def_ro("logit_scale", &ModelConfig::logit_scale, "Multiplies the logits, before their cap.")
      .def_ro("output_logits_soft_cap", &ModelConfig::logit_soft_cap, "c of c tanh(logits / c); 0: none.")
      .def_ro("warnings", &ModelConfig::warnings, "What was let through while reading, a sentence each.")
      .def("__repr__", [](const ModelConfig& c) {
        return fmt::format("ModelConfig(family='{}', n_layers={}, d_model={}, n_heads={}, d_vocab={}, n_ctx={})",
                           c.family, c.n_layers, c.d_model, c.n_heads, c.vocab_size, c.context);
      });

  nb::class_<Model>(m, "Model", "Weights, configuration and tokenizer. Immutable, shared by any number of sessions.")
      .def_static(
          "load",
          [](const std::filesystem::path& path, const std::string& weights, const std::string& compute,
             const std::string& device, std::int64_t max_memory, std::int64_t context,
             const std::vector<std::string>& allow_unknown_config, const std::filesystem::path& adapter,
             const std::optional<std::string>& chat_format) {
            const LoadOptions options =
                load_options(weights, compute, device, max_memory, context, allow_unknown_config, adapter, chat_format);
            return without_gil([&] { return Model::load(path, options); });
          },
          "path"_a, nb::kw_only(), "weights"_a = "stored", "compute"_a = "f32", "device"_a = "cpu", "max_memory"_a = 0,
          "context"_a = 0, "allow_unknown_config"_a = std::vector<std::string>(), "adapter"_a = std::filesystem::path(),
          "chat_format"_a = nb::none(),
          "From a Hugging Face folder, a weight file of one, or a GGUF file. weights: stored, f32, bf16 or int8. "
          "compute: what activations are rounded to before products, f32 (not), bf16 or int8; faster and less exact.")
      .def_prop_ro("config", &Model::config, nb::rv_policy::reference_internal, "What decides its numbers.")
      .def_prop_ro("has_tokenizer", &Model::has_tokenizer, "Whether its files had one.")
      .def_prop_ro("tokenizer", &Model::tokenizer, nb::rv_policy::copy, "Raises Error(config) without one.")
      .def_prop_ro("chat", &Model::chat, nb::rv_policy::copy, "The model's own chat format.")
      .def_prop_ro("stop_ids", &Model::stop_ids, "Ids that end a generation.")
      .def_prop_ro(
          "device", [](const Model& model) { return model.device().str(); }, "Where its weights are.")
      .def_prop_ro("weight_bytes", &Model::weight_bytes, "What the weights take.")
      .def_prop_ro("warnings", &Model::warnings, "What was let through while loading, a sentence each.")
      .def_prop_ro("hash", &Model::hash, "Identifies the weights.")
      .def(
          "unembed",
          [](const Model& model, const at::Tensor& h) { return without_gil([&] { return model.unembed(h); }); }, "h"_a,
          "Logits [tokens, d_vocab] of residuals [tokens, d_model], as behind the last layer.")
      .def_prop_ro("unembedding", &Model::unembedding, "[d_vocab, d_model], f32.")
      .def_prop_ro("final_norm_gain", &Model::final_norm_gain, "[d_model], f32.");

  m.def(
      "hook_point", [](std::string_view name) { return HookPoint::parse(name).name(); }, "name"_a,
      "The TransformerLens name of a hook point given by that or by a Hugging Face module name.");
}

}  // namespace steer::python
