#include <steer/steering/steering.hpp>

#include <algorithm>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "steering/checks.hpp"

namespace steer {

using namespace steering::detail;

namespace {

std::int64_t layer_of(const HookPoint& point) { return point.layer; }

void lowest_layer(const Condition& condition, std::optional<std::int64_t>& lowest) {
  const bool reads = condition.source == ConditionSource::feature || condition.source == ConditionSource::probe;
  if (reads) lowest = std::min(lowest.value_or(layer_of(condition.point)), layer_of(condition.point));
  for (const Condition& part : condition.parts) lowest_layer(part, lowest);
}

}  // namespace

Steering& Steering::push(Edit checked) {
  edits_.push_back(std::move(checked));
  return *this;
}

Steering& Steering::edit(Edit edit) {
  edit.validate("Steering::edit");
  return push(std::move(edit));
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

Steering& Steering::operator+=(const Steering& other) {
  // Copies first: `other` may be this object.
  const auto edits = other.edits_;
  const auto watches = other.watches_;
  edits_.insert(edits_.end(), edits.begin(), edits.end());
  watches_.insert(watches_.end(), watches.begin(), watches.end());
  return *this;
}

Steering Steering::scaled(double factor) const {
  require_finite(factor, "factor", "Steering::scaled");
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
    text += format_text("{} when {}\n", watch.abort ? "abort" : "call", watch.when.describe());
  return text;
}

bool operator==(const Watch& a, const Watch& b) {
  return a.when == b.when && a.reason == b.reason && a.abort == b.abort && a.handler == b.handler;
}

}  // namespace steer
