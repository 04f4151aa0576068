// Whether a steering fits a model: all that can be wrong is found before the first token.
#include <algorithm>

#include <steer/core/error.hpp>

#include "core/ascii.hpp"
#include "core/format_text.hpp"
#include "model/hook_table.hpp"
#include "steering/edits/operation.hpp"
#include "steering/program.hpp"

namespace steer::steering::detail {
namespace {

constexpr std::string_view kFit = "Steering";

std::string lower_stem(std::string text) {
  while (!text.empty() && text.back() == '/') text.pop_back();
  if (const auto slash = text.rfind('/'); slash != std::string::npos) text.erase(0, slash + 1);
  for (char& c : text) c = c == '_' ? '-' : ascii_lower(c);
  return text;
}

class Fit {
 public:
  Fit(const ModelConfig& config, bool has_tokenizer) : config_(config), has_tokenizer_(has_tokenizer) {}

  std::vector<std::string> run(const Steering& steering) {
    for (std::size_t i = 0; i < steering.edits().size(); ++i) {
      const Edit& edit = steering.edits()[i];
      const std::string what = format_text("edit {} ({})", i, edit.name.empty() ? edit.describe() : edit.name);
      edit.validate(kFit);
      check_scope(edit.scope, what);
      check_op(edit, edit.op->lower(edit), what);
      if (!edit.when) continue;
      check_condition(*edit.when, what);
      check_order(*edit.when, edit.point, what);
    }
    for (std::size_t i = 0; i < steering.watches().size(); ++i) {
      const Watch& watch = steering.watches()[i];
      watch.when.validate(kFit);
      check_condition(watch.when, format_text("watch {} ({})", i, watch.reason));
    }
    return std::move(warnings_);
  }

 private:
  void check_scope(const Scope& scope, const std::string& what) {
    const bool tagged = scope.where == Where::inside_tag || scope.where == Where::outside_tag;
    require(!tagged || has_tokenizer_, ErrorCode::config, kFit,
            "expected a model with a tokenizer for the tag scope of {} but got one without", what);
    require(scope.where != Where::span || config_.context == 0 || scope.begin < config_.context, ErrorCode::argument,
            kFit, "expected a span within the model's context of {} but got [{}, {}) in {}: it can match nothing",
            config_.context, scope.begin, scope.end, what);
    for (std::int64_t id : scope.tokens)
      require(config_.vocab_size == 0 || id < config_.vocab_size, ErrorCode::argument, kFit,
              "expected token ids in [0, {}) but got {} in the scope of {}", config_.vocab_size, id, what);
    for (const Scope& except : scope.except) check_scope(except, what);
  }

  void check_width(std::int64_t got, const HookPoint& point, std::string_view of, const std::string& what) {
    const std::int64_t width = point_width(config_, point, kFit);
    require(got == width, ErrorCode::shape, kFit, "expected {} of width {} ({}) but got {} in {}", of, width,
            point.name(), got, what);
  }

  void check_model_name(const Sae& sae, const std::string& what) {
    const std::string theirs = lower_stem(sae.config().model_name), ours = lower_stem(config_.name);
    if (theirs.empty() || ours.empty()) return;
    if (theirs.find(ours) != std::string::npos || ours.find(theirs) != std::string::npos) return;
    warn(format_text("an SAE made for \"{}\" is used on \"{}\" in {}", sae.config().model_name, config_.name, what));
  }

  void check_place(const std::optional<HookPoint>& trained, const HookPoint& used, const std::string& what) {
    if (!trained || *trained == used) return;
    const auto same = [](const HookPoint& a, const HookPoint& b) {
      return a.site == Site::resid_post && b.site == Site::resid_pre && a.layer + 1 == b.layer;
    };
    if (same(*trained, used) || same(used, *trained)) return;
    warn(format_text("an SAE trained at {} is used at {} in {}", trained->name(), used.name(), what));
  }

  void warn(const std::string& message) {
    if (std::find(warnings_.begin(), warnings_.end(), message) == warnings_.end()) warnings_.push_back(message);
  }

  void check_op(const Edit& edit, const Lowered& lowered, const std::string& what) {
    if (edit.point.site == Site::attn_pattern) {
      require(lowered.function && !lowered.sae, ErrorCode::unsupported, kFit,
              "expected a function (Steering::custom) at {}, which has no rows of one width, but got {}",
              edit.point.name(), what);
      require(edit.point.layer >= 0 && edit.point.layer < config_.n_layers, ErrorCode::argument, kFit,
              "expected a layer in [0, {}) but got {}", config_.n_layers, edit.point.name());
      return;
    }
    point_width(config_, edit.point, kFit);
    for (const Field& field : edit.op->fields())
      if (const auto* vector = std::get_if<at::Tensor>(&field.value))
        check_width(vector->numel(), edit.point, "a vector", what);
    if (const auto& f = lowered.feature) {
      require(!f->read || !f->sae.config().transcoder, ErrorCode::unsupported, kFit,
              "expected an edit that does not read a transcoder's feature but got {}: it reads one place and writes "
              "another",
              what);
      check_sae(f->sae, edit.point, f->read, what);
      const SaeConfig& c = f->sae.config();
      check_place(c.hook_out ? c.hook_out : c.hook_in, edit.point, what);
    }
    if (lowered.sae) {
      check_sae(*lowered.sae, edit.point, /*read=*/true, what);
      check_place(lowered.sae->config().hook_in, edit.point, what);
    }
  }

  void check_sae(const Sae& sae, const HookPoint& point, bool read, const std::string& what) {
    check_width(sae.config().d_out, point, "an SAE output", what);
    if (read) check_width(sae.config().d_in, point, "an SAE input", what);
    check_model_name(sae, what);
  }

  void check_condition(const Condition& condition, const std::string& what) {
    for (const Condition& part : condition.parts) check_condition(part, what);
    if (condition.source == ConditionSource::feature) {
      check_width(condition.sae->config().d_in, condition.point, "an SAE input", what);
      check_model_name(*condition.sae, what);
    }
    if (condition.source == ConditionSource::probe)
      check_width(condition.probe.numel(), condition.point, "a probe", what);
  }

  void check_order(const Condition& condition, const HookPoint& edit, const std::string& what) {
    for (const Condition& part : condition.parts) check_order(part, edit, what);
    const bool reads = condition.source == ConditionSource::feature || condition.source == ConditionSource::probe;
    require(!reads || order_of(condition.point) <= order_of(edit), ErrorCode::argument, kFit,
            "expected a condition that is known when the edit acts but got one at {} behind the edit at {} in {}",
            condition.point.name(), edit.name(), what);
  }

  const ModelConfig& config_;
  bool has_tokenizer_;
  std::vector<std::string> warnings_;
};

}  // namespace

PointOrder order_of(const HookPoint& point) {
  if (point.site == Site::embed) return {-1, point.site};
  if (point.site == Site::ln_final) return {std::numeric_limits<std::int64_t>::max(), point.site};
  return {point.layer, point.site};
}

std::int64_t point_width(const ModelConfig& config, const HookPoint& point, std::string_view where) {
  const std::string why_not = model::detail::why_not_computed(config, point);
  require(why_not.empty(), ErrorCode::argument, where, "expected a hook point this model computes but got {}: {}",
          point.name(), why_not);
  require(point.site != Site::attn_pattern, ErrorCode::unsupported, where,
          "expected a point with one row a token but got {}; use Session::hook or Steering::custom", point.name());
  return model::detail::hook_width(config, point);
}

std::vector<std::string> check_fit(const ModelConfig& config, bool has_tokenizer, const Steering& steering) {
  return Fit(config, has_tokenizer).run(steering);
}

}  // namespace steer::steering::detail
