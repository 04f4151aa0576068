// The rope of a config.json, in all layouts that transformers 5.23 reads (its modeling_rope_utils.py).
#include "model/config_rope.hpp"

#include <cmath>

#include "core/format_text.hpp"

namespace steer::model::detail {
namespace {

/// Checkpoints carry these without effect: sections of a multimodal rope fall together for text.
constexpr std::string_view kNoEffect[] = {"mrope_section", "mrope_interleaved", "max_position_embeddings"};
/// What other kinds need; files that once had one leave them behind.
constexpr std::string_view kOfOtherKinds[] = {"factor", "original_max_position_embeddings", "attention_factor"};

std::vector<double> factors(ConfigReader& in, const char* key, std::int64_t count) {
  const auto& value = in.at(key);
  std::vector<double> out;
  if (value.is_array())
    for (const auto& f : value)
      if (f.is_number() && f.get<double>() > 0) out.push_back(f.get<double>());
  if (!value.is_array() || out.size() != value.size() || std::ssize(out) != count)
    in.contradiction(format_text("{} = {} where {} positive numbers, one for each rotated pair, belong", key,
                                 value.dump().substr(0, 80), count));
  return out;
}

double yarn_scale(double factor, double weight) { return factor <= 1 ? 1 : 0.1 * weight * std::log(factor) + 1; }

void read_yarn(ConfigReader& in, const RopeDefaults& d, RopeConfig& out) {
  out.factor = in.number(
      "factor", static_cast<double>(d.context) / static_cast<double>(std::max<std::int64_t>(out.original_context, 1)));
  const double fast = in.number("beta_fast", 32), slow = in.number("beta_slow", 1);
  out.beta_fast = fast == 0 ? 32 : fast;
  out.beta_slow = slow == 0 ? 1 : slow;
  out.truncate = in.boolean("truncate", true);
  const double mscale = in.number("mscale", 0), all_dim = in.number("mscale_all_dim", 0);
  const double natural = mscale != 0 && all_dim != 0 ? yarn_scale(out.factor, mscale) / yarn_scale(out.factor, all_dim)
                                                     : yarn_scale(out.factor, 1);
  out.scale = in.number("attention_factor", natural);
}

void read_longrope(ConfigReader& in, const RopeDefaults& d, std::int64_t pairs, RopeConfig& out) {
  out.short_factor = factors(in, "short_factor", pairs);
  out.long_factor = factors(in, "long_factor", pairs);
  const auto original = static_cast<double>(out.original_context);
  const double factor = in.number("factor", static_cast<double>(d.context) / original);
  const double natural = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original));
  out.scale = in.number("attention_factor", natural);
  in.skip({"short_mscale", "long_mscale"});  // read by the first Phi-3 files' own code, by nobody since
}

/// One rope object: `rope_scaling`, `rope_parameters` or an entry of the latter.
RopeConfig read_object(const nlohmann::json& object, const std::string& key, double theta, const RopeDefaults& d,
                       Ropes& shared) {
  constexpr auto kWhere = "ModelConfig::from_hugging_face";
  require(object.is_object(), ErrorCode::config, kWhere, "expected {} to be an object but got {}; correct the file",
          key, object.dump().substr(0, 80));
  ConfigReader in(object, kWhere, key + ".");
  RopeConfig out{.kind = RopeKind::plain};
  out.theta = in.number("rope_theta", theta);
  std::string kind = in.has("rope_type") ? in.text("rope_type") : in.text("type", "default");
  if (in.has("type") && in.text("type") != kind)
    in.contradiction(format_text("{}.rope_type = {} and {}.type = {}", key, kind, key, in.text("type")));
  if (kind == "su" || (d.yarn_is_longrope && kind == "yarn")) kind = "longrope";
  const auto found = find_enum<RopeKind>(kind);
  require(found && *found != RopeKind::none, ErrorCode::unsupported, kWhere,
          "expected {}.rope_type default, linear, dynamic, yarn, longrope or llama3 but got \"{}\"; steer does not "
          "have it",
          key, kind);
  out.kind = *found;
  shared.rotary_share = in.number("partial_rotary_factor", shared.rotary_share);
  shared.query_growth = in.number("llama_4_scaling_beta", shared.query_growth);
  if (!(shared.rotary_share > 0 && shared.rotary_share <= 1))
    in.contradiction(format_text("a rotary share of {}", shared.rotary_share));
  const auto pairs = static_cast<std::int64_t>(static_cast<double>(d.head) * shared.rotary_share) / 2;
  const bool trained = out.kind == RopeKind::llama3 || out.kind == RopeKind::yarn || out.kind == RopeKind::longrope;
  if (trained) {
    out.original_context = in.size("original_max_position_embeddings", d.original > 0 ? d.original : d.context);
    if (d.original > 0) out.original_context = d.original;  // the key at the top level counts where it is written
  }
  switch (out.kind) {
    case RopeKind::llama3:
      out.low_freq_factor = in.number("low_freq_factor");
      out.high_freq_factor = in.number("high_freq_factor");
      out.factor = in.number("factor");
      break;
    case RopeKind::linear:
      out.factor = in.number("factor");
      break;
    case RopeKind::dynamic:
      out.factor = in.number("factor");
      out.original_context = d.context;
      break;
    case RopeKind::yarn:
      read_yarn(in, d, out);
      break;
    case RopeKind::longrope:
      read_longrope(in, d, pairs, out);
      break;
    case RopeKind::plain:
    case RopeKind::none:
      break;
  }
  std::vector<std::string_view> ignored(std::begin(kNoEffect), std::end(kNoEffect));
  if (!trained) ignored.insert(ignored.end(), std::begin(kOfOtherKinds), std::end(kOfOtherKinds));
  in.finish(ignored);
  require(out.theta > 0 && out.factor > 0 && out.scale > 0 && out.high_freq_factor > out.low_freq_factor &&
              out.beta_fast >= out.beta_slow && std::isfinite(out.theta) && std::isfinite(out.scale),
          ErrorCode::config, kWhere, "expected positive rotary constants in {} but got {}; correct the file", key,
          object.dump().substr(0, 200));
  return out;
}

/// The object to read where both may stand. transformers takes `rope_scaling`; two that disagree are an error here.
[[noreturn]] void disagree(ConfigReader& in, const nlohmann::json& scaling, const nlohmann::json& parameters) {
  in.contradiction(format_text("rope_scaling = {} and rope_parameters = {}, which disagree",
                               scaling.dump().substr(0, 200), parameters.dump().substr(0, 200)));
}

bool per_kind(const nlohmann::json& parameters) {
  return parameters.is_object() && (parameters.contains("full_attention") || parameters.contains("sliding_attention"));
}

void require_one_theta(ConfigReader& in, const char* theta_key, const RopeConfig& rope, const char* object) {
  if (in.has(theta_key) && rope.theta != in.number(theta_key))
    in.contradiction(
        format_text("{} = {} and {}.rope_theta = {}", theta_key, in.number(theta_key), object, rope.theta));
}

RopeDefaults at_top_level(ConfigReader& in, RopeDefaults d) {
  if (in.has("original_max_position_embeddings")) d.original = in.size("original_max_position_embeddings");
  return d;
}

/// Entries of rope_parameters by kind of layer.
Ropes read_entries(ConfigReader& in, const RopeDefaults& d, double full_theta, double sliding_theta) {
  Ropes out{.rotary_share = d.rotary_share};
  const auto& parameters = in.at("rope_parameters");
  ConfigReader both(parameters, in.where(), "rope_parameters.");
  const auto entry = [&](const char* kind, double theta) {
    if (!both.has(kind)) return RopeConfig{.kind = RopeKind::plain, .theta = theta};
    return read_object(both.at(kind), std::string("rope_parameters.") + kind, theta, d, out);
  };
  out.full = entry("full_attention", full_theta);
  out.sliding = entry("sliding_attention", sliding_theta);
  both.finish({});
  return out;
}

}  // namespace

Ropes read_ropes(ConfigReader& in, const RopeDefaults& defaults, const char* theta_key) {
  const RopeDefaults d = at_top_level(in, defaults);
  Ropes out{.rotary_share = in.number("partial_rotary_factor", d.rotary_share)};
  const double theta = in.number(theta_key, d.theta);
  const bool parameters = in.has("rope_parameters") && !in.at("rope_parameters").empty();
  const bool scaling = in.has("rope_scaling") && !in.at("rope_scaling").empty();
  if (parameters && per_kind(in.at("rope_parameters"))) {
    if (scaling) disagree(in, in.at("rope_scaling"), in.at("rope_parameters"));
    return read_entries(in, d, theta, theta);
  }
  if (parameters) {
    out.full = read_object(in.at("rope_parameters"), "rope_parameters", theta, d, out);
    require_one_theta(in, theta_key, out.full, "rope_parameters");
  }
  if (scaling) {
    Ropes other{.rotary_share = in.number("partial_rotary_factor", d.rotary_share)};
    other.full = read_object(in.at("rope_scaling"), "rope_scaling", theta, d, other);
    require_one_theta(in, theta_key, other.full, "rope_scaling");
    if (parameters && other.full != out.full) disagree(in, in.at("rope_scaling"), in.at("rope_parameters"));
    if (!parameters) out = other;
  }
  if (!parameters && !scaling)
    out.full = d.rope.is_null() ? RopeConfig{.kind = RopeKind::plain, .theta = theta}
                                : read_object(d.rope, "the family's rope", theta, d, out);
  out.sliding = out.full;
  return out;
}

Ropes read_layered_ropes(ConfigReader& in, const RopeDefaults& defaults, const char* local_theta_key) {
  const RopeDefaults d = at_top_level(in, defaults);
  const double full_theta = in.number("rope_theta", d.theta);
  const double sliding_theta = local_theta_key ? in.number(local_theta_key, d.local_theta) : d.local_theta;
  const bool parameters = in.has("rope_parameters"), scaling = in.has("rope_scaling");
  if (parameters) {
    const auto& object = in.at("rope_parameters");
    if (!per_kind(object))
      in.contradiction(
          format_text("rope_parameters = {} where full_attention and sliding_attention belong, one rope each",
                      object.dump().substr(0, 120)));
    Ropes out = read_entries(in, d, full_theta, sliding_theta);
    if (scaling) {
      Ropes other;
      if (read_object(in.at("rope_scaling"), "rope_scaling", out.full.theta, d, other) != out.full)
        disagree(in, in.at("rope_scaling"), object);
    }
    require_one_theta(in, "rope_theta", out.full, "rope_parameters.full_attention");
    if (local_theta_key) require_one_theta(in, local_theta_key, out.sliding, "rope_parameters.sliding_attention");
    return out;
  }
  Ropes out{.rotary_share = d.rotary_share};
  out.full = scaling ? read_object(in.at("rope_scaling"), "rope_scaling", full_theta, d, out)
                     : RopeConfig{.kind = RopeKind::plain, .theta = full_theta};
  out.sliding = {.kind = RopeKind::plain, .theta = sliding_theta};
  return out;
}

}  // namespace steer::model::detail
