// Steerings as the hosted service's variants and controllers.

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/steering/interop.hpp>

#include "steering/interop.hpp"
#include "steering/json_object.hpp"

namespace steer {

using namespace steering::detail;

namespace {

using nlohmann::json;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

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

}  // namespace steer
