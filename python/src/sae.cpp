// Sparse autoencoders: loading, encoding, labels, training.
#include <steer/core/error.hpp>
#include <steer/sae/labels.hpp>
#include <steer/sae/sae.hpp>
#include <steer/sae/stream.hpp>
#include <steer/sae/trainer.hpp>

#include <nanobind/stl/map.h>

#include <functional>

#include "bind.hpp"

namespace steer::python {
namespace {

/// Where the SAEs of this process came from, by hash: what travels when one is pickled. Guarded by the GIL.
std::map<std::string, std::string>& sources() {
  static std::map<std::string, std::string> paths;
  return paths;
}

nb::dict config_of(const SaeConfig& c) {
  nb::dict out;
  out["d_in"] = c.d_in;
  out["d_out"] = c.d_out;
  out["d_sae"] = c.d_sae;
  out["architecture"] = std::string(to_string(c.activation));
  out["k"] = c.k;
  out["normalize_activations"] = std::string(to_string(c.normalization));
  out["apply_b_dec_to_input"] = c.subtract_b_dec;
  out["transcoder"] = c.transcoder;
  out["hook_name"] = c.hook_in ? nb::cast(c.hook_in->name()) : nb::cast(c.hook_name);
  out["format"] = c.format;
  out["model_name"] = c.model_name;
  return out;
}

/// Tensors of an SAE are views of mapped memory that the tensor itself keeps.
template <class F>
auto tensor(F member) {
  return [member](const Sae& sae) { return at::Tensor((sae.*member)()); };
}

Sae from_weights(const nb::dict& config, const std::map<std::string, at::Tensor>& tensors) {
  constexpr auto kWhere = "SAE.from_weights";
  SaeConfig c;
  c.format = "python";
  for (const auto& [key, value] : config) {
    const auto name = nb::cast<std::string>(key);
    if (name == "d_in")
      c.d_in = nb::cast<std::int64_t>(value);
    else if (name == "d_out")
      c.d_out = nb::cast<std::int64_t>(value);
    else if (name == "d_sae")
      c.d_sae = nb::cast<std::int64_t>(value);
    else if (name == "architecture")
      c.activation = parse_enum<SaeActivation>(nb::cast<std::string>(value), kWhere);
    else if (name == "k")
      c.k = nb::cast<std::int64_t>(value);
    else if (name == "normalize_activations")
      c.normalization = parse_enum<SaeNormalization>(nb::cast<std::string>(value), kWhere);
    else if (name == "apply_b_dec_to_input")
      c.subtract_b_dec = nb::cast<bool>(value);
    else if (name == "transcoder")
      c.transcoder = nb::cast<bool>(value);
    else if (name == "hook_name") {
      c.hook_name = nb::cast<std::string>(value);
      if (!c.hook_name.empty()) c.hook_in = c.hook_out = HookPoint::parse(c.hook_name);
    } else if (name == "model_name")
      c.model_name = nb::cast<std::string>(value);
    else
      require(name == "format", ErrorCode::argument, kWhere,
              "expected keys of SAE.cfg (d_in, d_out, d_sae, architecture, k, normalize_activations, "
              "apply_b_dec_to_input, transcoder, hook_name, model_name) but got \"{}\"",
              name);
  }
  SaeWeights w;
  const std::pair<const char*, at::Tensor*> known[] = {
      {"W_enc", &w.W_enc},         {"b_enc", &w.b_enc},
      {"W_dec", &w.W_dec},         {"b_dec", &w.b_dec},
      {"threshold", &w.threshold}, {"b_gate", &w.b_gate},
      {"r_mag", &w.r_mag},         {"b_mag", &w.b_mag},
      {"W_skip", &w.W_skip},       {"selection_scale", &w.selection_scale}};
  for (const auto& [name, value] : tensors) {
    const auto found = std::ranges::find_if(known, [&](const auto& entry) { return name == entry.first; });
    require(found != std::end(known), ErrorCode::argument, kWhere, "expected names of an SAE's tensors but got \"{}\"",
            name);
    *found->second = value;
  }
  return Sae::from_weights(c, w);
}

nb::dict metrics_of(const SaeTrainingMetrics& m) {
  nb::dict out;
  out["step"] = m.step;
  out["tokens"] = m.tokens;
  out["loss"] = m.loss;
  out["squared_error"] = m.squared_error;
  out["explained_variance"] = m.explained_variance;
  out["l0"] = m.l0;
  out["dead_share"] = m.dead_share;
  out["learning_rate"] = m.learning_rate;
  return out;
}

/// Options by the names of SaeTrainingOptions.
SaeTrainingOptions training_options(const nb::dict& given) {
  constexpr auto kWhere = "SAETrainer";
  SaeTrainingOptions o;
  const std::map<std::string, std::function<void(nb::handle)>> known = {
      {"d_sae", [&](nb::handle v) { o.d_sae = nb::cast<std::int64_t>(v); }},
      {"activation", [&](nb::handle v) { o.activation = parse_enum<SaeActivation>(nb::cast<std::string>(v), kWhere); }},
      {"k", [&](nb::handle v) { o.k = nb::cast<std::int64_t>(v); }},
      {"l1", [&](nb::handle v) { o.l1 = nb::cast<double>(v); }},
      {"l0", [&](nb::handle v) { o.l0 = nb::cast<double>(v); }},
      {"bandwidth", [&](nb::handle v) { o.bandwidth = nb::cast<double>(v); }},
      {"initial_threshold", [&](nb::handle v) { o.initial_threshold = nb::cast<double>(v); }},
      {"sparsity_warmup_steps", [&](nb::handle v) { o.sparsity_warmup_steps = nb::cast<std::int64_t>(v); }},
      {"steps", [&](nb::handle v) { o.steps = nb::cast<std::int64_t>(v); }},
      {"batch_tokens", [&](nb::handle v) { o.batch_tokens = nb::cast<std::int64_t>(v); }},
      {"buffer_tokens", [&](nb::handle v) { o.buffer_tokens = nb::cast<std::int64_t>(v); }},
      {"learning_rate", [&](nb::handle v) { o.learning_rate = nb::cast<double>(v); }},
      {"warmup_steps", [&](nb::handle v) { o.warmup_steps = nb::cast<std::int64_t>(v); }},
      {"decay_steps", [&](nb::handle v) { o.decay_steps = nb::cast<std::int64_t>(v); }},
      {"subtract_b_dec", [&](nb::handle v) { o.subtract_b_dec = nb::cast<bool>(v); }},
      {"dead_after_tokens", [&](nb::handle v) { o.dead_after_tokens = nb::cast<std::int64_t>(v); }},
      {"aux_k", [&](nb::handle v) { o.aux_k = nb::cast<std::int64_t>(v); }},
      {"aux_weight", [&](nb::handle v) { o.aux_weight = nb::cast<double>(v); }},
      {"seed", [&](nb::handle v) { o.seed = nb::cast<std::uint64_t>(v); }},
      {"checkpoint", [&](nb::handle v) { o.checkpoint = nb::cast<std::filesystem::path>(v); }},
      {"checkpoint_every", [&](nb::handle v) { o.checkpoint_every = nb::cast<std::int64_t>(v); }}};
  for (const auto& [key, value] : given) {
    const auto name = nb::cast<std::string>(key);
    const auto found = known.find(name);
    if (found == known.end()) {
      std::string names;
      for (const auto& entry : known) names += (names.empty() ? "" : ", ") + entry.first;
      fail(ErrorCode::argument, kWhere, "expected options ({}) but got \"{}\"", names, name);
    }
    found->second(value);
  }
  return o;
}

}  // namespace

void bind_sae(nb::module_& m) {
  m.def(
      "sae_sources", [] { return sources(); }, "Absolute paths of the SAEs that were loaded in this process, by hash.");
  nb::class_<Sae>(
      m, "SAE",
      "A sparse autoencoder or transcoder, of any published layout: f = act(x W_enc + b_enc), x^ = f W_dec + "
      "b_dec. Immutable, cheap to copy. Arithmetic is f32; gradients flow to an x that asks for them.")
      .def_static(
          "load",
          [](const std::filesystem::path& path, const std::string& device, std::optional<double> norm_scaling_factor,
             std::optional<std::int64_t> k, bool saelens_llama_scope) {
            Sae sae = without_gil([&] {
              return Sae::load(path, {.device = parse_device(device),
                                      .norm_scaling_factor = norm_scaling_factor,
                                      .k = k,
                                      .saelens_llama_scope = saelens_llama_scope});
            });
            sources()[sae.hash()] = std::filesystem::absolute(path).string();
            return sae;
          },
          "path"_a, nb::kw_only(), "device"_a = "cpu", "norm_scaling_factor"_a = nb::none(), "k"_a = nb::none(),
          "saelens_llama_scope"_a = false, "From a file or folder of any layout that docs/sae-formats.md lists.")
      .def_static(
          "from_weights", &from_weights, "cfg"_a, "tensors"_a,
          nb::sig("def from_weights(cfg: Mapping[str, object], tensors: Mapping[str, torch.Tensor]) -> SAE"),
          "From tensors in memory: W_enc [d_in, d_sae], W_dec [d_sae, d_in], b_enc, b_dec; threshold for jumprelu.")
      .def("save", &Sae::save, "path"_a, "Writes SAELens' layout: a folder, or one file for a name in .safetensors.")
      .def_prop_ro(
          "cfg", [](const Sae& sae) { return config_of(sae.config()); }, nb::sig("def cfg(self) -> dict[str, object]"),
          "What the file says besides the weights.")
      .def_prop_ro("d_in", &Sae::d_in, "Width of what it reads.")
      .def_prop_ro("d_out", &Sae::d_out, "Width of what it writes.")
      .def_prop_ro("d_sae", &Sae::d_sae, "How many features it has.")
      .def_prop_ro(
          "device", [](const Sae& sae) { return sae.device().str(); }, "Where its weights are.")
      .def_prop_ro("hash", &Sae::hash, "Identifies weights and configuration.")
      .def_prop_ro(
          "hook_name",
          [](const Sae& sae) { return sae.config().hook_in ? sae.config().hook_in->name() : sae.config().hook_name; },
          "Where it was trained; may be empty.")
      .def(
          "encode", [](const Sae& sae, const at::Tensor& x) { return without_gil([&] { return sae.encode(x); }); },
          "x"_a, "Feature activations [.., d_sae] of x [.., d_in].")
      .def(
          "encode_subset",
          [](const Sae& sae, const at::Tensor& x, const Ids& features) {
            return without_gil([&] { return sae.encode_subset(x, features); });
          },
          "x"_a, "features"_a, "Activations of the named features only, [.., len(features)].")
      .def(
          "encode_sparse",
          [](const Sae& sae, const at::Tensor& x, std::int64_t limit) {
            SparseActivations s = without_gil([&] { return sae.encode_sparse(x, limit); });
            return nb::make_tuple(s.offsets, s.index, s.value);
          },
          "x"_a, "limit"_a = 0,
          nb::sig("def encode_sparse(self, x: torch.Tensor, limit: int = 0) -> tuple[torch.Tensor, torch.Tensor, "
                  "torch.Tensor]"),
          "Non-zero activations only, as (offsets [tokens + 1], index, value): token r holds [offsets[r], "
          "offsets[r+1]).")
      .def(
          "decode",
          [](const Sae& sae, const at::Tensor& f, const std::optional<at::Tensor>& x) {
            return without_gil([&] { return sae.decode(f, x.value_or(at::Tensor())); });
          },
          "features"_a, "x"_a = nb::none(), "Reconstruction [.., d_out]; SAEs that normalise their input need that x.")
      .def(
          "reconstruct",
          [](const Sae& sae, const at::Tensor& x) { return without_gil([&] { return sae.reconstruct(x); }); }, "x"_a,
          "decode(encode(x)).")
      .def(
          "__call__",
          [](const Sae& sae, const at::Tensor& x) { return without_gil([&] { return sae.reconstruct(x); }); }, "x"_a,
          "decode(encode(x)), as SAELens' SAEs do when called.")
      .def(
          "error", [](const Sae& sae, const at::Tensor& x) { return without_gil([&] { return sae.error(x); }); }, "x"_a,
          "x - decode(encode(x)).")
      .def("fold_W_dec_norm", &Sae::fold_W_dec_norm, "The same function with decoder rows of unit norm.")
      .def(
          "select", [](const Sae& sae, const Ids& features) { return sae.select(features); }, "features"_a,
          "An SAE of the named features only, in that order.")
      .def_prop_ro("W_enc", tensor(&Sae::W_enc), "[d_in, d_sae], f32.")
      .def_prop_ro("b_enc", tensor(&Sae::b_enc), "[d_sae].")
      .def_prop_ro("W_dec", tensor(&Sae::W_dec), "[d_sae, d_out], f32.")
      .def_prop_ro("b_dec", tensor(&Sae::b_dec), "[d_out].")
      .def_prop_ro("threshold", tensor(&Sae::threshold), nb::sig("def threshold(self) -> torch.Tensor | None"),
                   "[d_sae], or None.")
      .def("__repr__",
           [](const Sae& sae) {
             const SaeConfig& c = sae.config();
             return fmt::format("SAE({}, d_in={}, d_sae={}, at '{}')", to_string(c.activation), c.d_in, c.d_sae,
                                c.hook_in ? c.hook_in->name() : c.hook_name);
           })
      .def(
          "__eq__", [](const Sae& a, const Sae& b) { return a.hash() == b.hash(); }, nb::is_operator(),
          nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def(
          "feature", in_python("steer.feature", "Feature"),
          nb::sig("def feature(self, index: int) -> steer.feature.Feature"),
          "The feature of that index, to steer with: {sae.feature(330): +0.6}. Raises Error(argument) outside the SAE.")
      .def("__reduce__", in_python("steer._pickle", "reduce_sae"),
           nb::sig("def __reduce__(self) -> tuple[object, ...]"))
      .def("__hash__",
           [](const Sae& sae) { return static_cast<std::int64_t>(std::hash<std::string>()(sae.hash()) >> 1); });

  nb::class_<FeatureLabels>(m, "FeatureLabels",
                            "What is known of an SAE's features besides weights. Immutable, mapped.")
      .def_static("open", &FeatureLabels::open, "path"_a,
                  "Opens a store that `import_neuronpedia` wrote: no parsing, whatever its size.")
      .def_static("import_neuronpedia", &FeatureLabels::import_neuronpedia, "folder"_a, "store"_a,
                  "Reads a Neuronpedia export, its folder or one file (explanations, .jsonl or .jsonl.gz), writes it "
                  "to `store` and "
                  "opens that. Raises Error(io | format) naming file and line.")
      .def("__len__", &FeatureLabels::size, "One past the largest feature known.")
      .def(
          "label", [](const FeatureLabels& l, std::int64_t f) { return std::string(l.label(f)); }, "feature"_a,
          "The first explanation; empty without one.")
      .def("max_activation", &FeatureLabels::max_activation, "feature"_a, "The largest that was seen, or None.");

  nb::class_<SaeTrainer>(m, "SAETrainer",
                         "Trains a sparse autoencoder on a model's activations while they are computed.")
      .def(
          "__init__",
          [](SaeTrainer* self, const Model& model, std::string_view hook_point, const std::vector<std::string>& texts,
             const nb::dict& options, std::int64_t context) {
            SaeTrainingOptions o = training_options(options);
            const HookPoint point = HookPoint::parse(hook_point);
            o.d_in = model.config().d_model;
            o.hook = point;
            o.model_name = model.config().name;
            new (self) SaeTrainer(o, stream_activations(model, point, texts, {.context = context, .seed = o.seed}));
          },
          "model"_a, "hook_point"_a, "texts"_a, "options"_a, "context"_a = 128,
          nb::sig("def __init__(self, model: Model, hook_point: str, texts: Sequence[str], options: Mapping[str, "
                  "object], context: int = 128) -> None"))
      .def(
          "step", [](SaeTrainer& t) { return metrics_of(without_gil([&] { return t.step(); })); },
          nb::sig("def step(self) -> dict[str, float]"), "Runs one step; what it saw.")
      .def_prop_ro("steps_done", &SaeTrainer::steps_done, "Those of a checkpoint included.")
      .def("sae", &SaeTrainer::sae, "The autoencoder as it is now.")
      .def("save_checkpoint", &SaeTrainer::save_checkpoint, "path"_a,
           "Everything a later trainer with this file as its option `checkpoint` goes on from.");
}

}  // namespace steer::python
