#include "serve/steering_request.hpp"

#include <fmt/ranges.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "serve/steering_shapes.hpp"

namespace steer::serve::detail {
namespace {

using nlohmann::json;

/// Turns what requests may say shortly into the steering files' own JSON, which is then read as strictly as a file.
class Reader {
 public:
  explicit Reader(const Service& service) : service_(service) {
    for (const auto& served : service.options.saes) load_.saes.push_back(served.sae);
  }

  Steering read(const json& source, const std::string& path, int depth = 0) {
    if (depth > 8) throw ApiError(400, "expected steerings nested less than 8 deep", path);
    if (source.is_string()) return named(source.get<std::string>(), path);
    if (source.is_array()) {
      Steering sum;
      for (std::size_t i = 0; i < source.size(); ++i) sum += read(source[i], format_text("{}[{}]", path, i), depth + 1);
      return sum;
    }
    Fields fields(source, path);
    if (source.contains("vectors") && source["vectors"].is_array()) return easy_steer(source, path, service_);
    if (source.contains("edits") || source.contains("watches")) return whole(source, path);
    if (!source.contains("kind") && source.contains("name") && !source.contains("feature") &&
        !source.contains("vector")) {
      const Steering found = named(fields.text("name"), path + ".name");
      const double strength = fields.number("strength", 1, -1e6, 1e6);
      fields.done();
      return found.scaled(strength);
    }
    return parsed({{"format", "steer.steering"}, {"version", 1}, {"edits", json::array({edit(source, path)})}}, path);
  }

 private:
  Steering named(const std::string& name, const std::string& path) const {
    const auto found = service_.options.steerings.find(name);
    if (found != service_.options.steerings.end()) return found->second;
    std::vector<std::string> names;
    for (const auto& [known, steering] : service_.options.steerings) names.push_back(known);
    throw ApiError(404, format_text("no steering is called \"{}\"; registered here: {}", name, listed(names)), path,
                   "steering_not_found");
  }

  Steering whole(json source, const std::string& path) {
    if (!source.contains("format")) source["format"] = "steer.steering";
    if (!source.contains("version")) source["version"] = 1;
    if (source.contains("vectors"))
      throw ApiError(400, "a request cannot name a file of vectors: give them inline, as \"values\" or \"base64\"",
                     path + ".vectors");
    if (source.contains("saes")) {
      Fields saes(source["saes"], path + ".saes");
      for (auto& [hash, reference] : source["saes"].items()) {
        Fields fields(reference, format_text("{}.saes.{}", path, hash));
        service_.sae(hash, format_text("{}.saes.{}", path, hash));
        reference = json::object();
      }
    }
    if (source.contains("edits") && source["edits"].is_array())
      for (std::size_t i = 0; i < source["edits"].size(); ++i)
        source["edits"][i] = edit(source["edits"][i], format_text("{}.edits[{}]", path, i));
    if (source.contains("watches") && source["watches"].is_array())
      for (std::size_t i = 0; i < source["watches"].size(); ++i)
        if (json& watch = source["watches"][i]; watch.is_object() && watch.contains("when"))
          condition(watch["when"], format_text("{}.watches[{}].when", path, i));
    return parsed(source, path);
  }

  Steering parsed(const json& source, const std::string& path) const {
    try {
      return Steering::from_json(source, load_);
    } catch (const Error& error) {
      throw ApiError(400, error.what(), path);
    }
  }

  /// An edit in the files' form.
  json edit(json source, const std::string& path) {
    if (!source.is_object()) throw ApiError(400, format_text("expected {} to be a JSON object", path), path);
    if (!source.contains("kind")) source["kind"] = source.contains("feature") ? "nudge" : "add";
    if (source.contains("feature")) feature_edit(source, path);
    if (source.contains("scope") && source["scope"].is_string()) source["scope"] = {{"where", source["scope"]}};
    if (source.contains("when")) condition(source["when"], path + ".when");
    if (source["kind"] == "splice") place_sae(source, path);
    for (const char* key : {"vector", "a", "b", "along", "gate"})
      if (source.contains(key) && !source[key].is_number()) vector(source, key, path);
    return source;
  }

  void place_sae(json& source, const std::string& path) {
    const std::string name =
        source.contains("sae") && source["sae"].is_string() ? source["sae"].get<std::string>() : "";
    if (source.contains("sae") && !source["sae"].is_string())
      throw ApiError(400, format_text("expected {}.sae to be a string", path), path + ".sae");
    const ServedSae& served = service_.sae(name, path + ".sae");
    source["sae"] = served.sae.hash();
    if (source.contains("point")) return;
    if (!served.sae.config().hook_in)
      throw ApiError(400, format_text("expected {}.point: the SAE does not say where it was trained", path), path);
    source["point"] = served.sae.config().hook_in->name();
  }

  void feature_edit(json& source, const std::string& path) {
    place_sae(source, path);
    // "strength" alone is how far the feature is moved, as people write it.
    if (!source.contains("value") && source.contains("strength") &&
        (source["kind"] == "nudge" || source["kind"] == "pin" || source["kind"] == "mul")) {
      source["value"] = source["strength"];
      source.erase("strength");
    }
    if (source.contains("unit") && source["unit"] == "max_activation" && !source.contains("max_activation") &&
        source["feature"].is_number_integer()) {
      const ServedSae& served = service_.sae(source["sae"].get<std::string>(), path + ".sae");
      const auto most =
          served.labels ? served.labels->max_activation(source["feature"].get<std::int64_t>()) : std::nullopt;
      if (!most)
        throw ApiError(400,
                       format_text("the labels know no maximum activation of feature {}; give \"max_activation\"",
                                   source["feature"].get<std::int64_t>()),
                       path + ".unit");
      source["max_activation"] = *most;
    }
  }

  void condition(json& source, const std::string& path) {
    if (!source.is_object()) return;
    if (source.value("source", json()) == "feature") place_sae(source, path);
    if (source.contains("vector")) vector(source, "vector", path);
    if (source.contains("parts") && source["parts"].is_array())
      for (auto& part : source["parts"]) condition(part, path + ".parts");
  }

  /// {"values"} stays; base64 of f32, alone or as {"base64"}, a list of numbers, and a registered name become it.
  void vector(json& source, const char* key, const std::string& path) {
    json& value = source[key];
    const std::string param = format_text("{}.{}", path, key);
    if (value.is_array()) {
      value = {{"values", value}};
    } else if (value.is_object() && value.contains("base64")) {
      if (!value["base64"].is_string() || value.size() != 1)
        throw ApiError(400, format_text("expected {} to be {{\"base64\": \"...\"}}", param), param);
      value = {{"values", floats(value["base64"].get<std::string>(), param)}};
    } else if (value.is_object() && value.contains("tensor")) {
      throw ApiError(400, "a request cannot name a file of vectors: give them as \"values\" or \"base64\"", param);
    } else if (value.is_string()) {
      const std::string text = value.get<std::string>();
      const auto registered = service_.options.vectors.find(text);
      value = {{"values", registered == service_.options.vectors.end() ? floats(text, param)
                                                                       : at_point(source, registered->second, param)}};
    }
  }

  static std::vector<float> floats(const std::string& text, const std::string& param) {
    const std::string bytes = decode_base64(text, param);
    if (bytes.empty() || bytes.size() % sizeof(float) != 0)
      throw ApiError(
          400, format_text("expected base64 of 32-bit floats in \"{}\" but got {} bytes", param, bytes.size()), param);
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    for (const float value : values)
      if (!std::isfinite(value)) throw ApiError(400, format_text("expected finite numbers in \"{}\"", param), param);
    return values;
  }

  static std::vector<float> at_point(json& source, const VectorSet& set, const std::string& param) {
    if (!source.contains("point") && set.size() == 1) source["point"] = set.begin()->first.name();
    if (!source.contains("point") || !source["point"].is_string())
      throw ApiError(400, format_text("expected a \"point\" beside \"{}\", which holds vectors of several", param),
                     param);
    const auto found = set.find(HookPoint::parse(source["point"].get<std::string>()));
    if (found == set.end())
      throw ApiError(400, format_text("\"{}\" holds no vector for {}", param, source["point"].get<std::string>()),
                     param);
    const float* data = found->second.const_data_ptr<float>();
    return {data, data + found->second.numel()};
  }

  const Service& service_;
  SteeringLoadOptions load_;
};

}  // namespace

SteeringRequest read_steering(Fields& fields, const Service& service) {
  SteeringRequest request;
  if (const Steering* named = service.check_model(fields)) {
    request.given = true;
    request.steering = *named;
  }
  request.require_fired = fields.boolean("require_fired", false);
  if (const json* source = fields.find("steering"); source && *source != json(false)) {
    request.given = true;
    request.steering += Reader(service).read(*source, fields.name("steering"));
  }
  if (const json* source = fields.find("vllm_xargs")) {
    LensRequest lens = read_lens(*source, fields.name("vllm_xargs"), service);
    request.given |= !lens.steering.empty();
    request.steering += lens.steering;
    request.residual_layers = std::move(lens.residual_layers);
  }
  return request;
}

json audit_json(const std::vector<SteeringAudit>& audits, const std::vector<std::string>& warnings) {
  json edits = json::array();
  bool fired = false;
  for (std::size_t i = 0; !audits.empty() && i < audits.front().edits.size(); ++i) {
    EditAudit sum = audits.front().edits[i];
    sum.seen = sum.in_scope = sum.edited = 0;
    double change = 0;
    for (const auto& audit : audits) {
      const EditAudit& one = audit.edits[i];
      sum.seen += one.seen, sum.in_scope += one.in_scope, sum.edited += one.edited;
      change += one.mean_change * static_cast<double>(one.edited);
      sum.max_change = std::max(sum.max_change, one.max_change);
    }
    fired |= sum.edited > 0;
    edits.push_back({{"edit", sum.edit},
                     {"point", sum.point.name()},
                     {"seen", sum.seen},
                     {"in_scope", sum.in_scope},
                     {"edited", sum.edited},
                     {"mean_change", sum.edited ? change / static_cast<double>(sum.edited) : 0.0},
                     {"max_change", sum.max_change}});
  }
  return {{"fired", fired}, {"edits", edits}, {"warnings", warnings}};
}

}  // namespace steer::serve::detail
