#include "model/hook_table.hpp"

#include <algorithm>

#include <steer/core/error.hpp>

namespace steer {

HookHandle::HookHandle(std::weak_ptr<Registration> registration) : registration_(std::move(registration)) {}
HookHandle::HookHandle(HookHandle&& other) noexcept : registration_(std::exchange(other.registration_, {})) {}
HookHandle& HookHandle::operator=(HookHandle&& other) noexcept {
  if (this != &other) {
    remove();
    registration_ = std::exchange(other.registration_, {});
  }
  return *this;
}
HookHandle::~HookHandle() { remove(); }

void HookHandle::remove() {
  if (const auto registration = registration_.lock())
    if (const auto table = registration->table.lock()) table->remove(*registration);
  registration_.reset();
}

namespace model::detail {

HookTable::HookTable(const ModelConfig& config)
    : n_layers_(config.n_layers),
      parallel_(config.parallel_residual),
      lists_(static_cast<std::size_t>(config.n_layers) * kSites) {}

bool HookTable::exists(const HookPoint& point) const {
  if (point.site == Site::embed || point.site == Site::ln_final) return point.layer == 0;
  if (point.site == Site::resid_mid && parallel_) return false;
  return point.layer >= 0 && point.layer < n_layers_;
}

std::vector<HookPoint> HookTable::points() const {
  std::vector<HookPoint> out{{Site::embed, 0}};
  for (std::int64_t layer = 0; layer < n_layers_; ++layer)
    for (const auto& entry : EnumTable<Site>::entries) {
      const HookPoint point{entry.value, layer};
      if (entry.value != Site::embed && entry.value != Site::ln_final && exists(point)) out.push_back(point);
    }
  out.push_back({Site::ln_final, 0});
  return out;
}

std::shared_ptr<HookHandle::Registration> HookTable::add(const HookPoint& point, HookFunction function,
                                                         const HookOptions& options) {
  constexpr auto kWhere = "Session::hook";
  require(static_cast<bool>(function), ErrorCode::argument, kWhere, "expected a function for {} but got an empty one",
          point.name());
  if (!exists(point)) {
    if (point.site == Site::resid_mid && parallel_ && point.layer >= 0 && point.layer < n_layers_)
      fail(ErrorCode::argument, kWhere,
           "expected a point this model computes but got {}: attention and MLP read the same stream here; hook "
           "hook_resid_pre or "
           "hook_resid_post",
           point.name());
    fail(ErrorCode::argument, kWhere, "expected a layer in [0, {}) but got {}; a hook there would never fire",
         n_layers_, point.name());
  }
  auto registration = std::make_shared<HookHandle::Registration>(
      HookHandle::Registration{weak_from_this(), point, std::move(function), options});
  const std::lock_guard lock(mutex_);
  auto& list = at(point.site, point.layer);
  const auto after = std::upper_bound(list.begin(), list.end(), options.order,
                                      [](int order, const auto& other) { return order < other->options.order; });
  list.insert(after, registration);
  return registration;
}

void HookTable::remove(HookHandle::Registration& registration) {
  std::shared_ptr<HookHandle::Registration> last;  // destroyed after the lock: a hook may own anything
  const std::lock_guard lock(mutex_);
  registration.removed = true;
  if (running_) {
    stale_ = true;
    return;
  }
  auto& list = at(registration.point.site, registration.point.layer);
  const auto found = std::find_if(list.begin(), list.end(), [&](const auto& r) { return r.get() == &registration; });
  if (found == list.end()) return;
  last = std::move(*found);
  list.erase(found);
}

void HookTable::begin_step() {
  const std::lock_guard lock(mutex_);
  running_ = true;
}

void HookTable::end_step() {
  List dropped;
  const std::lock_guard lock(mutex_);
  running_ = false;
  if (!stale_) return;
  stale_ = false;
  for (auto& list : lists_) {
    const auto first = std::stable_partition(list.begin(), list.end(), [](const auto& r) { return !r->removed; });
    dropped.insert(dropped.end(), std::make_move_iterator(first), std::make_move_iterator(list.end()));
    list.erase(first, list.end());
  }
}

bool HookTable::any_editing() const { return std::ranges::any_of(lists_, edits); }
bool HookTable::any_editing(Site site, std::int64_t layer) const { return edits(at(site, layer)); }
bool HookTable::edits(const List& list) {
  return std::ranges::any_of(list, [](const auto& r) { return !r->options.read_only; });
}

void HookTable::fire(const HookPoint& point, at::Tensor& value, const BatchView& batch) {
  for (const auto& registration : at(point.site, point.layer)) {
    {
      const std::lock_guard lock(mutex_);
      if (registration->removed) continue;
    }
    const at::Tensor before = value;
    const auto shape = before.sizes().vec();
    // libtorch counts the changes of a tensor, so a broken promise is seen (not under InferenceMode, which counts
    // none).
    const bool watched = registration->options.read_only && !value.is_inference();
    const auto version = watched ? value._version() : 0;
    HookContext context{point, value, batch};
    registration->function(context);
    require(!registration->options.read_only || (value.is_same(before) && (!watched || value._version() == version)),
            ErrorCode::argument, "Session::hook",
            "expected the read-only hook at {} to leave its value but it changed it; register it without read_only",
            point.name());
    require(value.defined() && value.sizes() == shape && value.scalar_type() == before.scalar_type() &&
                value.device() == before.device(),
            ErrorCode::shape, "Session::hook",
            "expected the hook at {} to leave [{}] {} on {} but got {}; keep shape, dtype and device", point.name(),
            fmt::join(shape, ", "), at::toString(before.scalar_type()), before.device().str(),
            value.defined() ? fmt::format("[{}] {} on {}", fmt::join(value.sizes(), ", "),
                                          at::toString(value.scalar_type()), value.device().str())
                            : "an undefined tensor");
  }
}

}  // namespace model::detail
}  // namespace steer
