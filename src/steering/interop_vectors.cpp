// Steerings as vectors that are added to every token: vLLM's JSON and GGUF control vectors.

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/steering/interop.hpp>

#include "steering/edits/operation.hpp"
#include "steering/interop.hpp"
#include "steering/json_object.hpp"

namespace steer {

using namespace steering::detail;

namespace {

using nlohmann::json;

/// What the edit adds, in f64, or nothing when that depends on the token.
std::optional<at::Tensor> constant_of(const Edit& edit) {
  if (edit.unit == StrengthUnit::residual_norm) return {};
  const Lowered e = edit.op->lower(edit);
  const double size = static_cast<double>(e.change.strength) * static_cast<double>(e.change.constant);
  if (const auto& f = e.feature) {
    if (f->read || f->sae.config().normalization != SaeNormalization::none) return {};
    return f->sae.decoder_rows(std::span(&f->index, 1)).to(at::kCPU).to(at::kDouble).reshape(-1) * size;
  }
  if (e.channels.size() != 1 || e.channels[0].reading != Reading::nothing) return {};
  return e.channels[0].write.to(at::kDouble) * size;
}

/// The layer whose output the point is, or nothing.
std::optional<std::int64_t> output_layer(const HookPoint& point) {
  if (point.site == Site::resid_post) return point.layer;
  if (point.site == Site::resid_pre && point.layer > 0) return point.layer - 1;
  return {};
}

/// Checks what both formats ask of an edit and gives the layer and the vector.
std::pair<std::int64_t, at::Tensor> constant_edit(const Edit& edit, std::size_t number, std::string_view target,
                                                  std::string_view where) {
  const auto refuse = [&](std::string_view why) {
    fail(ErrorCode::unsupported, where, "expected an edit that {} can express but edit {} ({}) {}", target, number,
         edit.describe(), why);
  };
  const auto layer = output_layer(edit.point);
  if (!layer) refuse("is not at the output of a layer");
  if (edit.when) refuse("has a condition");
  if (!edit.scope.include_bos) refuse("leaves BOS alone, and the format cannot; set Scope::include_bos");
  const auto vector = constant_of(edit);
  if (!vector) refuse("does not add the same vector to every token");
  return {*layer, *vector};
}

std::int64_t layer_number(const std::string& text, std::string_view where) {
  std::int64_t layer = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), layer);
  require(error == std::errc() && end == text.data() + text.size() && layer >= 0, ErrorCode::format, where,
          "expected a layer number but got \"{}\"", text);
  return layer;
}

at::Tensor number_list(const json& list, std::string_view where) {
  std::vector<float> values;
  require(list.is_array(), ErrorCode::format, where, "expected a list of numbers but got {}", list.type_name());
  for (const json& v : list) {
    require(v.is_number(), ErrorCode::format, where, "expected a list of numbers but it holds {}", v.type_name());
    values.push_back(v.get<float>());
  }
  return at::tensor(values, at::kFloat);
}

}  // namespace

Steering from_vllm_json(const json& source) {
  constexpr std::string_view where = "from_vllm_json";
  constexpr std::pair<const char*, Where> phases[] = {
      {"vectors", Where::all}, {"prefill_vectors", Where::prompt}, {"decode_vectors", Where::generated}};
  Steering result;
  JsonObject object(source, "the steering", where);
  for (const auto& [key, phase] : phases) {
    if (!object.has(key) || object.at(key).is_null()) continue;
    require(object.at(key).is_object(), ErrorCode::format, where, "expected \"{}\" to be an object but got {}", key,
            object.at(key).type_name());
    for (const auto& [hook, layers] : object.at(key).items()) {
      require(hook == "post_mlp", ErrorCode::unsupported, where, "expected hook post_mlp but got \"{}\"", hook);
      require(layers.is_object(), ErrorCode::format, where, "expected layers of \"{}\" but got {}", key,
              layers.type_name());
      for (const auto& [layer, value] : layers.items()) {
        const HookPoint point{Site::resid_post, layer_number(layer, where)};
        double scale = 1;
        at::Tensor vector;
        if (value.is_object()) {
          JsonObject entry(value, "layer " + layer, where);
          vector = number_list(entry.at("vector"), where);
          scale = entry.number_or("scale", 1);
          entry.done();
        } else {
          vector = number_list(value, where);
        }
        EditOptions options;
        options.scope.where = phase;
        options.scope.include_bos = true;
        result.add(vector, point, scale, options);
      }
    }
  }
  object.done();
  return result;
}

json to_vllm_json(const Steering& steering) {
  constexpr std::string_view where = "to_vllm_json", target = "vLLM's steering JSON";
  refuse_watches(steering, target, where);
  std::map<std::pair<std::string, std::int64_t>, at::Tensor> sums;
  for (std::size_t i = 0; i < steering.edits().size(); ++i) {
    const Edit& edit = steering.edits()[i];
    const Where w = edit.scope.where;
    require(w == Where::all || w == Where::prompt || w == Where::generated, ErrorCode::unsupported, where,
            "expected an edit that {} can express but edit {} ({}) has a scope of single positions", target, i,
            edit.describe());
    // Position 0 is never generated, so BOS matters to the other two only.
    Edit whole = edit;
    whole.scope.include_bos |= w == Where::generated;
    const auto [layer, vector] = constant_edit(whole, i, target, where);
    const char* key = w == Where::all ? "vectors" : w == Where::prompt ? "prefill_vectors" : "decode_vectors";
    at::Tensor& sum = sums[{key, layer}];
    require(!sum.defined() || sum.numel() == vector.numel(), ErrorCode::shape, where,
            "expected vectors of one width at layer {} but got {} and {}", layer, sum.defined() ? sum.numel() : 0,
            vector.numel());
    sum = sum.defined() ? sum + vector : vector;
  }
  json result = json::object();
  for (const auto& [key, vector] : sums) {
    const at::Tensor f = vector.to(at::kFloat).contiguous();
    result[key.first]["post_mlp"][std::to_string(key.second)] =
        std::vector<float>(f.const_data_ptr<float>(), f.const_data_ptr<float>() + f.numel());
  }
  return result;
}

Steering from_control_vector(const ControlVector& vector, double strength) {
  Steering result;
  EditOptions options;
  options.scope.include_bos = true;
  for (const auto& [layer, direction] : vector.directions)
    result.add(direction, HookPoint{Site::resid_post, layer}, strength, options);
  return result;
}

ControlVector to_control_vector(const Steering& steering, std::string model_hint) {
  constexpr std::string_view where = "to_control_vector", target = "a GGUF control vector";
  refuse_watches(steering, target, where);
  require(!steering.edits().empty(), ErrorCode::argument, where, "expected at least one edit but got none");
  ControlVector result{.model_hint = std::move(model_hint), .directions = {}};
  for (std::size_t i = 0; i < steering.edits().size(); ++i) {
    const Edit& edit = steering.edits()[i];
    require(edit.scope.where == Where::all, ErrorCode::unsupported, where,
            "expected an edit that {} can express but edit {} ({}) is not of all positions", target, i,
            edit.describe());
    const auto [layer, vector] = constant_edit(edit, i, target, where);
    require(layer >= 1, ErrorCode::unsupported, where,
            "expected an edit that {} can express but edit {} ({}) is at layer 0, which llama.cpp refuses", target, i,
            edit.describe());
    at::Tensor& sum = result.directions[layer];
    require(!sum.defined() || sum.numel() == vector.numel(), ErrorCode::shape, where,
            "expected vectors of one width at layer {} but got {} and {}", layer, sum.defined() ? sum.numel() : 0,
            vector.numel());
    sum = (sum.defined() ? sum.to(at::kDouble) + vector : vector).to(at::kFloat);
  }
  return result;
}

}  // namespace steer
