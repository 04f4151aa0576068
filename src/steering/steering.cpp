#include <steer/steering/steering.hpp>

#include <algorithm>

#include <steer/core/error.hpp>

#include "steering/checks.hpp"

namespace steer {
namespace {

Edit with_options(const HookPoint& point, Op op, double strength, const EditOptions& options) {
  return {.point = point,
          .op = std::move(op),
          .strength = strength,
          .unit = options.unit,
          .scope = options.scope,
          .when = options.when,
          .name = options.name};
}

/// A feature edit, its point and index checked before anything else is looked at.
Edit feature_edit(std::string_view where, const Sae& sae, std::int64_t feature, FeatureAction action, double value,
                  const EditOptions& options) {
  steering::detail::require_feature(sae, feature, where);
  const HookPoint point = steering::detail::place_of(sae, options.point, /*output=*/true, where);
  op::Feature op{
      .sae = sae, .index = feature, .action = action, .value = value, .max_activation = options.max_activation};
  return with_options(point, std::move(op), 1, options);
}

void own_vectors(Op& op, std::string_view where) {
  if (auto* add = std::get_if<op::Add>(&op)) add->vector = steering::detail::own_vector(add->vector, "a vector", where);
  if (auto* along = std::get_if<op::ScaleAlong>(&op))
    along->vector = steering::detail::own_vector(along->vector, "a direction", where);
  if (auto* to = std::get_if<op::ProjectTo>(&op))
    to->vector = steering::detail::own_vector(to->vector, "a direction", where);
  if (auto* rotate = std::get_if<op::Rotate>(&op)) {
    rotate->a = steering::detail::own_vector(rotate->a, "a direction", where);
    rotate->b = steering::detail::own_vector(rotate->b, "a direction", where);
  }
  if (auto* gated = std::get_if<op::GatedAdd>(&op)) {
    gated->w = steering::detail::own_vector(gated->w, "a gate", where);
    gated->z = steering::detail::own_vector(gated->z, "a vector", where);
  }
}

/// The edit with its vectors as contiguous f32 copies, checked.
Edit checked(Edit edit, std::string_view where) {
  own_vectors(edit.op, where);
  edit.validate(where);
  return edit;
}

std::int64_t layer_of(const HookPoint& point) { return point.layer; }

void lowest_layer(const Condition& condition, std::optional<std::int64_t>& lowest) {
  const bool reads = condition.source == ConditionSource::feature || condition.source == ConditionSource::probe;
  if (reads) lowest = std::min(lowest.value_or(layer_of(condition.point)), layer_of(condition.point));
  for (const Condition& part : condition.parts) lowest_layer(part, lowest);
}

}  // namespace

Steering& Steering::add(const at::Tensor& vector, const Place& at, double strength, const EditOptions& options) {
  edits_.push_back(checked(with_options(at.point, op::Add{vector}, strength, options), "Steering::add"));
  return *this;
}

Steering& Steering::nudge(const Sae& sae, std::int64_t feature, double value, const EditOptions& options) {
  constexpr std::string_view where = "Steering::nudge";
  edits_.push_back(checked(feature_edit(where, sae, feature, FeatureAction::nudge, value, options), where));
  return *this;
}

Steering& Steering::pin(const Sae& sae, std::int64_t feature, double value, const EditOptions& options) {
  constexpr std::string_view where = "Steering::pin";
  edits_.push_back(checked(feature_edit(where, sae, feature, FeatureAction::pin, value, options), where));
  return *this;
}

Steering& Steering::mul(const Sae& sae, std::int64_t feature, double factor, const EditOptions& options) {
  constexpr std::string_view where = "Steering::mul";
  edits_.push_back(checked(feature_edit(where, sae, feature, FeatureAction::mul, factor, options), where));
  return *this;
}

Steering& Steering::clamp(const Sae& sae, std::int64_t feature, double low, double high, const EditOptions& options) {
  constexpr std::string_view where = "Steering::clamp";
  Edit edit = feature_edit(where, sae, feature, FeatureAction::clamp, 0, options);
  std::get<op::Feature>(edit.op).low = low;
  std::get<op::Feature>(edit.op).high = high;
  edits_.push_back(checked(std::move(edit), where));
  return *this;
}

Steering& Steering::cap(const Sae& sae, std::int64_t feature, double high, const EditOptions& options) {
  constexpr std::string_view where = "Steering::cap";
  Edit edit = feature_edit(where, sae, feature, FeatureAction::cap, 0, options);
  std::get<op::Feature>(edit.op).high = high;
  edits_.push_back(checked(std::move(edit), where));
  return *this;
}

Steering& Steering::ablate(const Sae& sae, std::int64_t feature, const EditOptions& options) {
  constexpr std::string_view where = "Steering::ablate";
  edits_.push_back(checked(feature_edit(where, sae, feature, FeatureAction::ablate, 0, options), where));
  return *this;
}

Steering& Steering::project_out(const at::Tensor& vector, const Place& at, const EditOptions& options) {
  edits_.push_back(checked(with_options(at.point, op::ScaleAlong{vector, 0}, 1, options), "Steering::project_out"));
  return *this;
}

Steering& Steering::scale_along(const at::Tensor& vector, const Place& at, double factor, const EditOptions& options) {
  edits_.push_back(
      checked(with_options(at.point, op::ScaleAlong{vector, factor}, 1, options), "Steering::scale_along"));
  return *this;
}

Steering& Steering::project_to(const at::Tensor& vector, const Place& at, double target, Side side,
                               const EditOptions& options) {
  edits_.push_back(
      checked(with_options(at.point, op::ProjectTo{vector, target, side}, 1, options), "Steering::project_to"));
  return *this;
}

Steering& Steering::rotate(const at::Tensor& a, const at::Tensor& b, const Place& at, double radians,
                           const EditOptions& options) {
  edits_.push_back(checked(with_options(at.point, op::Rotate{a, b, radians}, 1, options), "Steering::rotate"));
  return *this;
}

Steering& Steering::gated_add(const at::Tensor& w, double b, const at::Tensor& z, double a, const Place& at,
                              const EditOptions& options) {
  edits_.push_back(checked(with_options(at.point, op::GatedAdd{w, b, z, a}, 1, options), "Steering::gated_add"));
  return *this;
}

Steering& Steering::splice(const Sae& sae, bool with_error, const EditOptions& options) {
  constexpr std::string_view where = "Steering::splice";
  const HookPoint point = steering::detail::place_of(sae, options.point, /*output=*/true, where);
  edits_.push_back(checked(with_options(point, op::Splice{sae, with_error}, 1, options), where));
  return *this;
}

Steering& Steering::cap_norm(const Place& at, double limit, const EditOptions& options) {
  edits_.push_back(checked(with_options(at.point, op::NormCap{limit}, 1, options), "Steering::cap_norm"));
  return *this;
}

Steering& Steering::keep_norm(const Place& at, const EditOptions& options) {
  edits_.push_back(checked(with_options(at.point, op::KeepNorm{}, 1, options), "Steering::keep_norm"));
  return *this;
}

Steering& Steering::custom(std::string name, const Place& at, CustomFunction function, const EditOptions& options) {
  op::Custom op{std::move(name), std::make_shared<const CustomFunction>(std::move(function))};
  edits_.push_back(checked(with_options(at.point, std::move(op), 1, options), "Steering::custom"));
  return *this;
}

Steering& Steering::edit(Edit edit) {
  edits_.push_back(checked(std::move(edit), "Steering::edit"));
  return *this;
}

Steering& Steering::abort_when(Condition when, std::string reason) {
  constexpr std::string_view where = "Steering::abort_when";
  when.validate(where);
  require(!reason.empty(), ErrorCode::argument, where, "expected a reason to report but got an empty one");
  watches_.push_back({std::move(when), std::move(reason), /*abort=*/true, nullptr});
  return *this;
}

Steering& Steering::on(Condition when, SteeringHandler handler) {
  constexpr std::string_view where = "Steering::on";
  when.validate(where);
  require(static_cast<bool>(handler), ErrorCode::argument, where, "expected a function to call but got none");
  std::string reason = when.describe();
  watches_.push_back({std::move(when), std::move(reason), /*abort=*/false,
                      std::make_shared<const SteeringHandler>(std::move(handler))});
  return *this;
}

std::optional<std::int64_t> Steering::first_layer() const {
  std::optional<std::int64_t> lowest;
  for (const Edit& edit : edits_) {
    const std::int64_t layer =
        edit.point.site == Site::ln_final ? std::numeric_limits<std::int64_t>::max() : layer_of(edit.point);
    lowest = std::min(lowest.value_or(layer), layer);
    if (edit.when) lowest_layer(*edit.when, lowest);
  }
  for (const Watch& watch : watches_) lowest_layer(watch.when, lowest);
  return lowest;
}

bool Steering::edits_below(std::int64_t layer) const {
  const auto first = first_layer();
  return first && *first < layer;
}

Steering& Steering::operator+=(const Steering& other) {
  // Copies first: `other` may be this object.
  const auto edits = other.edits_;
  const auto watches = other.watches_;
  edits_.insert(edits_.end(), edits.begin(), edits.end());
  watches_.insert(watches_.end(), watches.begin(), watches.end());
  return *this;
}

Steering Steering::scaled(double factor) const {
  steering::detail::require_finite(factor, "factor", "Steering::scaled");
  Steering result = *this;
  for (Edit& edit : result.edits_) edit.strength *= factor;
  return result;
}

std::vector<std::string> Steering::diff(const Steering& other) const {
  // Longest common subsequence: what stays in place is not reported, what moved is.
  const std::size_t n = edits_.size(), m = other.edits_.size();
  std::vector<std::vector<std::size_t>> common(n + 1, std::vector<std::size_t>(m + 1, 0));
  for (std::size_t i = n; i-- > 0;)
    for (std::size_t j = m; j-- > 0;)
      common[i][j] =
          edits_[i] == other.edits_[j] ? common[i + 1][j + 1] + 1 : std::max(common[i + 1][j], common[i][j + 1]);
  std::vector<std::string> lines;
  std::size_t i = 0, j = 0;
  while (i < n || j < m) {
    if (i < n && j < m && edits_[i] == other.edits_[j]) {
      ++i, ++j;
    } else if (i < n && (j == m || common[i + 1][j] >= common[i][j + 1])) {
      lines.push_back("- " + edits_[i++].describe());
    } else {
      lines.push_back("+ " + other.edits_[j++].describe());
    }
  }
  for (const Watch& watch : watches_)
    if (std::find(other.watches_.begin(), other.watches_.end(), watch) == other.watches_.end())
      lines.push_back("- watch: " + watch.reason);
  for (const Watch& watch : other.watches_)
    if (std::find(watches_.begin(), watches_.end(), watch) == watches_.end())
      lines.push_back("+ watch: " + watch.reason);
  return lines;
}

std::string Steering::describe() const {
  std::string text;
  for (const Edit& edit : edits_) text += edit.describe() + "\n";
  for (const Watch& watch : watches_)
    text += fmt::format("{} when {}\n", watch.abort ? "abort" : "call", watch.when.describe());
  return text;
}

bool operator==(const Watch& a, const Watch& b) {
  return a.when == b.when && a.reason == b.reason && a.abort == b.abort && a.handler == b.handler;
}

}  // namespace steer
