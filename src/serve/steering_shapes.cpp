#include "serve/steering_shapes.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "serve/zstd.hpp"

namespace steer::serve::detail {

using nlohmann::json;

namespace {

constexpr std::size_t kMostTensor = 256 << 20;  ///< bytes of one that a request brings

/// JSON, or text that holds JSON (what vLLM's extra arguments can carry).
json unpacked(const json& value, const std::string& path) {
  if (!value.is_string()) return value;
  try {
    return parse_body(value.get_ref<const std::string&>());
  } catch (const ApiError& error) {
    throw ApiError(400, error.what(), path);
  }
}

HookPoint layer_output(std::int64_t layer, const Service& service, const std::string& path) {
  const std::int64_t layers = service.model.config().n_layers;
  if (layer < 0 || layer >= layers)
    throw ApiError(400, format_text("expected layers in [0, {}) in \"{}\" but got {}", layers, path, layer), path);
  return {Site::resid_post, layer};
}

/// The scopes that EasySteer's `apply` comes to.
std::vector<Scope> read_apply(Fields fields) {
  bool prompt = false, generation = false;
  if (fields.has("phases")) {
    for (const json& phase : fields.array("phases")) {
      if (phase != "prompt" && phase != "generation")
        fields.fail("phases", "expected phases of \"prompt\" and \"generation\"");
      (phase == "prompt" ? prompt : generation) = true;
    }
  } else {
    prompt = fields.text("prompt", "") == "all";
    generation = fields.text("generation", "") == "all";
  }
  std::optional<std::int64_t> onset;
  if (fields.has("generation_window")) {
    const auto window = fields.integers("generation_window", 0, INT32_MAX);
    if (window.size() != 2 || window[0] != 0)
      fields.fail("generation_window", "expected [0, K], the first K generated tokens");
    onset = window[1];
  }
  fields.refuse({"prompt_tokens", "prompt_positions", "prompt_window", "generation_tokens", "generation_positions",
                 "exclude_prompt_tokens", "exclude_prompt_positions", "exclude_prompt_window",
                 "exclude_generation_tokens", "exclude_generation_positions", "exclude_generation_window"},
                "say which tokens with a scope of steer's own (docs/steering-schema.md)");
  fields.done();
  std::vector<Scope> scopes;
  if (onset)  // a window selects its tokens, and no others
    scopes.push_back({.where = Where::onset, .count = *onset, .include_bos = true});
  else if (prompt && generation)
    scopes.push_back({.where = Where::all, .include_bos = true});
  else if (prompt)
    scopes.push_back({.where = Where::prompt, .include_bos = true});
  else if (generation)
    scopes.push_back({.where = Where::generated, .include_bos = true});
  if (scopes.empty()) fields.fail("phases", "expected at least one phase that the vector applies to");
  return scopes;
}

const VectorSet& registered(const Service& service, const std::string& name, const std::string& path) {
  const auto found = service.options.vectors.find(name);
  if (found != service.options.vectors.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [known, set] : service.options.vectors) names.push_back(known);
  throw ApiError(404, format_text("no vectors are called \"{}\"; registered here: {}", name, listed(names)), path);
}

/// A tensor of vllm-lens: base64 of its bytes, as they are or compressed, or the older form that says less.
at::Tensor read_tensor(Fields fields) {
  const std::string compression = fields.text("compression", "none");
  if (compression != "none" && compression != "zstd")
    fields.fail("compression", format_text("expected \"compression\" of zstd or none but got \"{}\"", compression));
  const std::string dtype = fields.text("dtype", "float32");
  const bool bf16 = dtype == "int16" && fields.text("original_dtype", "") == "torch.bfloat16";
  if (dtype != "float32" && dtype != "float16" && !bf16)
    fields.fail("dtype", "expected \"dtype\" float32, float16, or int16 of torch.bfloat16");
  fields.ignore({"original_dtype"});
  const auto shape = fields.integers("shape", 1, INT32_MAX);
  std::string bytes = decode_base64(fields.text("data"), fields.name("data"));
  fields.done();
  if (shape.size() != 2 && shape.size() != 3)
    fields.fail("shape", "expected [layers, width] or [layers, positions, width]");
  const std::size_t width = dtype == "float32" ? 4 : 2;
  std::size_t size = width;
  for (const auto extent : shape) size = size > kMostTensor ? size : size * static_cast<std::size_t>(extent);
  if (size > kMostTensor) fields.fail("shape", format_text("expected a tensor of at most {} bytes", kMostTensor));
  if (compression == "zstd") {
    try {
      bytes = decode_zstd(bytes, size);
    } catch (const Error& error) {
      fields.fail("data", error.what());
    }
  }
  if (bytes.size() != size)
    fields.fail("shape", format_text("expected {} numbers in \"data\", as \"shape\" says, but got {}", size / width,
                                     bytes.size() / width));
  at::Tensor tensor = at::empty(shape, at::dtype(dtype == "float32" ? at::kFloat : bf16 ? at::kBFloat16 : at::kHalf));
  std::memcpy(tensor.mutable_data_ptr(), bytes.data(), bytes.size());
  return tensor.to(at::kFloat);
}

void add_lens_vector(Steering& steering, const json& source, const std::string& path, const Service& service) {
  Fields fields(source, path);
  const at::Tensor values = read_tensor(fields.object("activations"));
  const auto layers = fields.integers("layer_indices", 0, INT32_MAX);
  const double scale = fields.number("scale", 1, -1e6, 1e6);
  // The vector at the residual's own norm: h + scale |h| v^.
  const StrengthUnit unit = fields.boolean("norm_match", false) ? StrengthUnit::residual_norm : StrengthUnit::raw;
  auto positions = fields.integers("position_indices", 0, INT32_MAX);
  fields.done();
  if (std::ssize(layers) != values.size(0))
    fields.fail("layer_indices", format_text("expected {} layers, as \"activations\" has", values.size(0)));
  if (values.dim() == 3 && positions.empty())
    for (std::int64_t i = 0; i < values.size(1); ++i) positions.push_back(i);
  if (values.dim() == 3 && std::ssize(positions) != values.size(1))
    fields.fail("position_indices", format_text("expected {} positions, as \"activations\" has", values.size(1)));
  if (values.dim() == 2 && !positions.empty())
    fields.fail("position_indices", "positions need \"activations\" of shape [layers, positions, width]");
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const HookPoint point = layer_output(layers[i], service, fields.name("layer_indices"));
    const at::Tensor layer = values[static_cast<std::int64_t>(i)];
    const auto add = [&](const at::Tensor& vector, const Scope& scope) {
      steering.add(vector, point, scale, {.scope = scope, .unit = unit});
    };
    if (values.dim() == 2) add(layer, {.include_bos = true});
    for (std::size_t p = 0; p < positions.size(); ++p)
      add(layer[static_cast<std::int64_t>(p)],
          {.where = Where::span, .begin = positions[p], .end = positions[p] + 1, .include_bos = true});
  }
}

}  // namespace

Steering easy_steer(const json& spec, const std::string& path, const Service& service) {
  Fields fields(spec, path);
  Steering steering;
  std::set<std::int64_t> taken;
  bool overlap = false;
  const json& vectors = fields.array("vectors");
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    Fields vector(vectors[i], format_text("{}[{}]", fields.name("vectors"), i));
    if (vector.text("algorithm", "direct") != "direct")
      vector.fail("algorithm", "expected the algorithm \"direct\": others are edits of steer's own");
    vector.refuse({"data", "params"}, "register vectors at start and name them as \"source\", or use steer's own form");
    const VectorSet& set = registered(service, vector.text("source"), vector.name("source"));
    const double scale = vector.number("scale", 1, -1e6, 1e6);
    const bool normalize = vector.boolean("normalize", false);
    std::set<std::int64_t> layers;
    for (const auto layer : vector.integers("layers", 0, INT32_MAX)) layers.insert(layer);
    const auto scopes = read_apply(vector.object("apply"));
    const std::string name = vector.text("name", "");
    vector.done();
    std::set<std::int64_t> here;
    for (const auto& [point, direction] : set) {
      if (!layers.empty() && !layers.contains(point.layer)) continue;
      here.insert(point.layer);
      for (const Scope& scope : scopes)
        steering.add(normalize ? direction / direction.norm() : direction, point, scale,
                     {.scope = scope, .name = name});
    }
    for (const auto layer : layers)
      if (!here.contains(layer))
        vector.fail("layers", format_text("\"{}\" has no vector for layer {}", vector.text("source"), layer));
    for (const auto layer : here) overlap |= !taken.insert(layer).second;
  }
  const std::string conflict = fields.text("conflict", "priority");
  if (overlap && conflict != "sequential")
    fields.fail("conflict",
                "several vectors for one layer are added one after another: say \"conflict\": \"sequential\"");
  fields.ignore({"debug"});
  fields.done();
  return steering;
}

LensRequest read_lens(const json& arguments, const std::string& path, const Service& service) {
  Fields fields(arguments, path);
  LensRequest request;
  if (const json* source = fields.find("apply_steering_vectors")) {
    const json vectors = unpacked(*source, fields.name("apply_steering_vectors"));
    if (!vectors.is_array()) fields.fail("apply_steering_vectors", "expected a list of steering vectors");
    for (std::size_t i = 0; i < vectors.size(); ++i)
      add_lens_vector(request.steering, vectors[i], format_text("{}[{}]", fields.name("apply_steering_vectors"), i),
                      service);
  }
  if (const json* source = fields.find("output_residual_stream")) {
    const json layers = unpacked(*source, fields.name("output_residual_stream"));
    if (layers == json(true))
      for (std::int64_t layer = 0; layer < service.model.config().n_layers; ++layer)
        request.residual_layers.push_back(layer);
    else if (layers.is_array()) {
      const json wrapped{{"layers", layers}};
      Fields list(wrapped, fields.name("output_residual_stream"));
      request.residual_layers = list.integers("layers", 0, service.model.config().n_layers - 1);
      std::ranges::sort(request.residual_layers);
      request.residual_layers.erase(std::ranges::unique(request.residual_layers).begin(),
                                    request.residual_layers.end());
    } else if (layers != json(false)) {
      fields.fail("output_residual_stream", "expected true or a list of layers");
    }
  }
  fields.refuse({"apply_hooks"}, "functions from outside are never run");
  fields.done();
  return request;
}

ResidualCapture::ResidualCapture(std::vector<std::int64_t> layers, std::int64_t width)
    : layers_(std::move(layers)),
      width_(width),
      values_(std::make_shared<std::vector<std::vector<float>>>(layers_.size())) {}

std::vector<Observer> ResidualCapture::observers() {
  std::vector<Observer> observers;
  for (std::size_t i = 0; i < layers_.size(); ++i)
    observers.push_back(
        {.point = {Site::resid_post, layers_[i]}, .on_tokens = [values = values_, i](const Observation& seen) {
           const at::Tensor flat = seen.value.to(at::kFloat).contiguous();
           const float* data = flat.const_data_ptr<float>();
           (*values)[i].insert((*values)[i].end(), data, data + flat.numel());
         }});
  return observers;
}

json ResidualCapture::to_json() const {
  std::string bytes;
  for (const auto& layer : *values_)
    bytes.append(reinterpret_cast<const char*>(layer.data()), layer.size() * sizeof(float));
  const auto tokens = values_->empty() ? 0 : std::ssize(values_->front()) / width_;
  return {{"residual_stream",
           {{"data", encode_base64(bytes)},
            {"dtype", "float32"},
            {"original_dtype", "torch.float32"},
            {"shape", {std::ssize(layers_), tokens, width_}}}}};
}

}  // namespace steer::serve::detail
