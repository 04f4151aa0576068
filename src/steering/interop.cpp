#include <steer/steering/interop.hpp>

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>

#include "steering/edits/operation.hpp"
#include "steering/json_object.hpp"

namespace steer {

using namespace steering::detail;

namespace {

using nlohmann::json;
using steering::detail::JsonObject;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// ---- edits that add one vector to every token

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

void refuse_watches(const Steering& steering, std::string_view target, std::string_view where) {
  require(steering.watches().empty(), ErrorCode::unsupported, where,
          "expected a steering that {} can express but it watches a condition ({})", target,
          steering.watches().empty() ? "" : steering.watches().front().reason);
}

// ---- the hosted service

class HostedReader {
 public:
  HostedReader(const Sae& sae, const HostedImportOptions& options) : sae_(sae), options_(options) {}

  Steering read(const json& source) {
    require(source.is_object(), ErrorCode::format, kWhere, "expected a JSON object but got {}", source.type_name());
    source.contains("interventions") ? controller(source, {}, 0) : variant(source, {}, 0);
    return std::move(result_);
  }

 private:
  static constexpr std::string_view kWhere = "from_hosted_variant";
  static constexpr int kDeepest = 32;

  static std::optional<Condition> both(const std::optional<Condition>& outer, Condition inner) {
    return outer ? Condition::all_of({*outer, std::move(inner)}) : std::move(inner);
  }

  void variant(const json& source, const std::optional<Condition>& when, int depth) {
    check_depth(depth);
    JsonObject object(source, "the variant", kWhere);
    object.ignore("base_model");
    for (const json& entry : object.array("edits")) {
      JsonObject edit(entry, "an edit", kWhere);
      edit.ignore("feature_id");
      edit.ignore("feature_label");
      const double most = edit.has("max_activation_strength") ? edit.number("max_activation_strength") : 0;
      add(edit.text("mode"), edit.integer("index_in_sae"), edit.number("value"), most, when);
      edit.done();
    }
    if (object.has("scopes"))
      for (const json& entry : object.array("scopes")) {
        JsonObject scope(entry, "a scope", kWhere);
        variant(scope.at("nested_variant"), both(when, group(scope.at("condition"))), depth + 1);
        scope.done();
      }
    object.done();
  }

  void controller(const json& source, const std::optional<Condition>& when, int depth) {
    check_depth(depth);
    JsonObject object(source, "the controller", kWhere);
    object.ignore("name");
    object.ignore("id");
    require(!given(object, "nonzero_strength_threshold"), ErrorCode::unsupported, kWhere,
            "expected no nonzero_strength_threshold but got one: what it does was never published");
    const bool low = given(object, "min_nudge_entropy"), high = given(object, "max_nudge_entropy");
    std::optional<Condition> nudges = when;
    if (low || high)
      nudges = both(when, Condition::entropy_between(low ? object.number("min_nudge_entropy") : 0,
                                                     high ? object.number("max_nudge_entropy") : kInfinity));
    for (const json& entry : object.array("interventions")) {
      JsonObject edit(entry, "an intervention", kWhere);
      const std::string mode = edit.text("mode");
      const double value = edit.number("value");
      for (const auto& [index, most] : features(edit.at("features")))
        add(mode, index, value, most, mode == "nudge" ? nudges : when);
      edit.done();
    }
    for (const json& entry : object.array("scopes")) {
      JsonObject scope(entry, "a scope", kWhere);
      scope.ignore("is_active");
      const std::optional<Condition> condition = both(when, group(scope.at("conditionals")));
      if (given(scope, "event_name")) result_.abort_when(*condition, scope.text("event_name"));
      controller(scope.at("controller"), condition, depth + 1);
      scope.done();
    }
    object.done();
  }

  static void check_depth(int depth) {
    require(depth < kDeepest, ErrorCode::format, kWhere, "expected scopes nested less than {} deep", kDeepest);
  }

  static bool given(JsonObject& object, std::string_view key) { return object.has(key) && !object.at(key).is_null(); }

  /// index and maximum activation of each feature of a group.
  static std::vector<std::pair<std::int64_t, double>> features(const json& source) {
    JsonObject object(source, "a feature group", kWhere);
    std::vector<std::pair<std::int64_t, double>> result;
    for (const json& entry : object.array("features")) {
      JsonObject feature(entry, "a feature", kWhere);
      feature.ignore("uuid");
      feature.ignore("label");
      const double most = feature.has("max_activation_strength") ? feature.number("max_activation_strength") : 0;
      result.emplace_back(feature.integer("index_in_sae"), most);
      feature.done();
    }
    object.done();
    return result;
  }

  Condition group(const json& source, int depth = 0) {
    require(depth < kDeepest, ErrorCode::format, kWhere, "expected conditions nested less than {} deep", kDeepest);
    JsonObject object(source, "a condition", kWhere);
    const std::string join = object.text("operator");
    require(join == "AND" || join == "OR", ErrorCode::format, kWhere, "expected operator AND or OR but got \"{}\"",
            join);
    std::vector<Condition> parts;
    for (const json& entry : object.array("conditionals"))
      parts.push_back(entry.is_object() && entry.contains("conditionals") ? group(entry, depth + 1)
                                                                          : conditional(entry));
    object.done();
    require(!parts.empty(), ErrorCode::format, kWhere, "expected a conditional in a condition but got none");
    if (parts.size() == 1) return parts.front();
    return join == "AND" ? Condition::all_of(std::move(parts)) : Condition::any_of(std::move(parts));
  }

  Condition conditional(const json& source) {
    JsonObject object(source, "a conditional", kWhere);
    const auto left = features(object.at("left_hand"));
    require(left.size() == 1, ErrorCode::unsupported, kWhere, "expected a conditional on one feature but got {}",
            left.size());
    require(object.at("right_hand").is_number(), ErrorCode::unsupported, kWhere,
            "expected a conditional between a feature and a number but got a {}", object.at("right_hand").type_name());
    const double value = object.number("right_hand");
    const std::string compare = object.text("operator");
    object.done();
    const double below = std::nextafter(value, -kInfinity);
    const auto above = [&](double v) { return Condition::feature_above(sae_, left[0].first, v); };
    const auto at_most = [&](double v) { return Condition::feature_at_most(sae_, left[0].first, v); };
    if (compare == ">") return above(value);
    if (compare == ">=") return above(below);
    if (compare == "<") return at_most(below);
    if (compare == "<=") return at_most(value);
    if (compare == "==") return Condition::all_of({above(below), at_most(value)});
    require(compare == "!=", ErrorCode::format, kWhere, "expected a comparison but got \"{}\"", compare);
    return Condition::any_of({at_most(below), above(value)});
  }

  void add(const std::string& mode, std::int64_t index, double value, double most,
           const std::optional<Condition>& when) {
    EditOptions options{.scope = options_.scope, .when = when};
    options.unit = mode == "mul" ? StrengthUnit::raw : options_.unit;
    options.max_activation = most;
    if (mode == "nudge")
      result_.nudge(sae_, index, value, options);
    else if (mode == "pin")
      result_.pin(sae_, index, value, options);
    else if (mode == "mul")
      result_.mul(sae_, index, value, options);
    else
      fail(ErrorCode::format, kWhere, "expected mode nudge, pin or mul but got \"{}\"", mode);
  }

  const Sae& sae_;
  const HostedImportOptions& options_;
  Steering result_;
};

json hosted_feature(std::int64_t index) { return {{"features", {{{"index_in_sae", index}}}}}; }

/// A condition as a flat group of thresholds, or nothing.
std::optional<json> hosted_group(const Condition& c) {
  if (c.release != 0 || c.sticky) return {};
  json conditionals = json::array();
  const auto threshold = [&](const Condition& part) {
    if (part.source != ConditionSource::feature || part.release != 0 || part.sticky) return false;
    const bool above = std::isfinite(part.above), at_most = std::isfinite(part.at_most);
    if (above == at_most) return false;
    conditionals.push_back({{"left_hand", hosted_feature(part.feature)},
                            {"right_hand", above ? part.above : part.at_most},
                            {"operator", above ? ">" : "<="}});
    return true;
  };
  bool all = true;
  if (c.parts.empty()) all = threshold(c);
  for (const Condition& part : c.parts) all &= threshold(part);
  if (!all) return {};
  return json{{"conditionals", conditionals}, {"operator", c.source == ConditionSource::any_of ? "OR" : "AND"}};
}

// ---- vLLM

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

Steering from_hosted_variant(const json& source, const Sae& sae, const HostedImportOptions& options) {
  return HostedReader(sae, options).read(source);
}

json to_hosted_variant(const Steering& steering, const std::string& base_model) {
  constexpr std::string_view where = "to_hosted_variant", target = "the hosted variant";
  refuse_watches(steering, target, where);
  json edits = json::array(), scopes = json::array();
  for (std::size_t i = 0; i < steering.edits().size(); ++i) {
    const Edit& e = steering.edits()[i];
    const auto refuse = [&](std::string_view why) {
      fail(ErrorCode::unsupported, where, "expected an edit that {} can express but edit {} ({}) {}", target, i,
           e.describe(), why);
    };
    const bool nudge = e.kind() == "nudge";  // the format's modes have our names
    if (!nudge && e.kind() != "pin" && e.kind() != "mul") refuse("is not a nudge, pin or mul");
    if (e.scope != Scope{}) refuse("has a scope");
    if (e.strength != 1 && !nudge) refuse("has a strength other than 1");
    if (e.unit == StrengthUnit::residual_norm) refuse("is measured by the residual norm");
    const json own = Steering().edit(e).to_json()["edits"][0];
    const double most = own.value("max_activation", 0.0);
    const double unit = e.unit == StrengthUnit::max_activation ? most : 1;
    const json edit{{"feature_id", ""},
                    {"feature_label", e.name},
                    {"index_in_sae", own["feature"]},
                    {"max_activation_strength", most},
                    {"mode", e.kind()},
                    {"value", own["value"].get<double>() * unit * (nudge ? e.strength : 1)}};
    if (!e.when) {
      edits.push_back(edit);
      continue;
    }
    const auto condition = hosted_group(*e.when);
    if (!condition) refuse("has a condition that is not a flat list of feature thresholds");
    scopes.push_back({{"condition", *condition},
                      {"nested_variant", {{"base_model", base_model}, {"edits", {edit}}, {"scopes", json::array()}}}});
  }
  return {{"base_model", base_model}, {"edits", edits}, {"scopes", scopes}};
}

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
