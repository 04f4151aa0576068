#include <steer/steering/condition.hpp>

#include <cmath>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "steering/checks.hpp"

namespace steer {

using namespace steering::detail;

namespace {

Condition with_options(ConditionSource source, const ConditionOptions& options) {
  Condition condition;
  condition.source = source;
  condition.release = options.release;
  condition.sticky = options.sticky;
  return condition;
}

Condition feature_condition(const Sae& sae, std::int64_t feature, const ConditionOptions& options,
                            std::string_view where) {
  require_feature(sae, feature, where);
  Condition condition = with_options(ConditionSource::feature, options);
  condition.point = place_of(sae, options.point, /*output=*/false, where);
  condition.sae = sae;
  condition.feature = feature;
  return condition;
}

Condition group(ConditionSource source, std::vector<Condition> parts, std::string_view where) {
  Condition condition;
  condition.source = source;
  condition.parts = std::move(parts);
  condition.validate(where);
  return condition;
}

std::string band(const Condition& c) {
  if (std::isinf(c.at_most)) return format_text("> {}", c.above);
  if (std::isinf(c.above)) return format_text("<= {}", c.at_most);
  return format_text("in ({}, {}]", c.above, c.at_most);
}

}  // namespace

Condition Condition::feature_above(const Sae& sae, std::int64_t feature, double threshold,
                                   const ConditionOptions& options) {
  constexpr std::string_view where = "Condition::feature_above";
  require_finite(threshold, "threshold", where);
  Condition condition = feature_condition(sae, feature, options, where);
  condition.above = threshold;
  condition.validate(where);
  return condition;
}

Condition Condition::feature_at_most(const Sae& sae, std::int64_t feature, double threshold,
                                     const ConditionOptions& options) {
  constexpr std::string_view where = "Condition::feature_at_most";
  require_finite(threshold, "threshold", where);
  Condition condition = feature_condition(sae, feature, options, where);
  condition.at_most = threshold;
  condition.validate(where);
  return condition;
}

Condition Condition::probe_above(const at::Tensor& w, double b, const ConditionOptions& options) {
  constexpr std::string_view where = "Condition::probe_above";
  require(options.point.has_value(), ErrorCode::argument, where,
          "expected a hook point to read the probe at but got none; set ConditionOptions::point");
  Condition condition = with_options(ConditionSource::probe, options);
  condition.point = *options.point;
  condition.probe = own_vector(w, "a probe", where);
  condition.bias = b;
  condition.above = 0;
  condition.validate(where);
  return condition;
}

Condition Condition::entropy_between(double low, double high, const ConditionOptions& options) {
  constexpr std::string_view where = "Condition::entropy_between";
  require(!std::isnan(low) && !std::isnan(high) && low <= high, ErrorCode::argument, where,
          "expected an entropy band with low <= high but got [{}, {}]", low, high);
  require(!options.point, ErrorCode::argument, where,
          "expected no hook point for the entropy, which is of the model's output, but got {}",
          options.point ? options.point->name() : "");
  Condition condition = with_options(ConditionSource::entropy, options);
  condition.above = std::nextafter(low, -std::numeric_limits<double>::infinity());
  condition.at_most = high;
  condition.validate(where);
  return condition;
}

Condition Condition::all_of(std::vector<Condition> parts) {
  return group(ConditionSource::all_of, std::move(parts), "Condition::all_of");
}

Condition Condition::any_of(std::vector<Condition> parts) {
  return group(ConditionSource::any_of, std::move(parts), "Condition::any_of");
}

void Condition::validate(std::string_view where) const {
  require(std::isfinite(release) && release >= 0, ErrorCode::argument, where,
          "expected a release width of 0 or more but got {}", release);
  if (source == ConditionSource::all_of || source == ConditionSource::any_of) {
    require(!parts.empty(), ErrorCode::argument, where, "expected at least one condition in {} but got none",
            to_string(source));
    for (const Condition& part : parts) part.validate(where);
    return;
  }
  require(!std::isnan(above) && !std::isnan(at_most) && above < at_most, ErrorCode::argument, where,
          "expected a band (above, at_most] that holds some value but got ({}, {}]", above, at_most);
  if (source == ConditionSource::feature) {
    require(sae.has_value(), ErrorCode::argument, where, "expected a feature condition with an SAE but got none");
    require_feature(*sae, feature, where);
  }
  if (source == ConditionSource::probe) {
    own_vector(probe, "a probe", where);
    require_finite(bias, "probe bias", where);
  }
}

std::string Condition::describe() const {
  std::string text;
  switch (source) {
    case ConditionSource::feature:
      text = format_text("feature {} {} at {}", feature, band(*this), point.name());
      break;
    case ConditionSource::probe:
      text = format_text("probe {} at {}", band(*this), point.name());
      break;
    case ConditionSource::entropy:
      text = format_text("entropy {}", band(*this));
      break;
    case ConditionSource::all_of:
    case ConditionSource::any_of:
      for (const Condition& part : parts)
        text += (text.empty() ? "" : source == ConditionSource::all_of ? " and " : " or ") + part.describe();
      text = "(" + text + ")";
      break;
  }
  if (release > 0) text += format_text(", release {}", release);
  if (sticky) text += ", sticky";
  return text;
}

bool operator==(const Condition& a, const Condition& b) {
  if (a.source != b.source || a.above != b.above || a.at_most != b.at_most || a.release != b.release ||
      a.sticky != b.sticky)
    return false;
  switch (a.source) {
    case ConditionSource::feature:
      return a.point == b.point && a.feature == b.feature && a.sae.has_value() == b.sae.has_value() &&
             (!a.sae || a.sae->hash() == b.sae->hash());
    case ConditionSource::probe:
      return a.point == b.point && a.bias == b.bias && same_tensor(a.probe, b.probe);
    case ConditionSource::entropy:
      return true;
    default:
      return a.parts == b.parts;
  }
}

}  // namespace steer
