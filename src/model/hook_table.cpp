#include "model/hook_table.hpp"

#include <c10/util/SmallVector.h>

#include <algorithm>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"

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

std::string why_not_computed(const ModelConfig& config, const HookPoint& point) {
  const auto [site, layer] = point;
  if (site == Site::embed || site == Site::ln_final)
    return layer == 0 ? std::string() : std::string("it belongs to no layer");
  if (layer < 0 || layer >= config.n_layers)
    return format_text("its layer is not in [0, {}); a hook there would never fire", config.n_layers);
  // A configuration made by hand may say nothing of its layers.
  const LayerConfig of =
      layer < std::ssize(config.layers) ? config.layers[static_cast<std::size_t>(layer)] : LayerConfig{};
  const bool attention = site == Site::attn_q || site == Site::attn_k || site == Site::attn_v ||
                         site == Site::attn_pattern || site == Site::attn_z;
  if (site == Site::resid_mid && config.parallel_residual)
    return "attention and MLP read the same stream here; hook hook_resid_pre or hook_resid_post";
  if ((site == Site::ln1 || site == Site::ln2) && !config.pre_norms)
    return "this family norms what attention and MLP add, not what they read; hook hook_resid_pre or hook_resid_mid";
  if (attention && of.mixer == MixerKind::delta_net)
    return "the layer keeps a recurrent state and has no queries, keys and patterns; hook hook_attn_out";
  if ((site == Site::mlp_pre || site == Site::mlp_post) && of.experts)
    return "the layer is a mixture of experts, each with activations of its own; hook mlp.hook_router_logits or "
           "hook_mlp_out";
  if (site == Site::router_logits && !of.experts) return "the layer has one MLP and no router";
  return {};
}

std::int64_t hook_width(const ModelConfig& config, const HookPoint& point) {
  switch (point.site) {
    case Site::attn_q:
    case Site::attn_z:
      return config.n_heads * config.d_head;
    case Site::attn_k:
    case Site::attn_v:
      return config.n_kv_heads * config.d_head;
    case Site::mlp_pre:
    case Site::mlp_post:
      return config.d_mlp;
    case Site::router_logits:
      return config.experts.count;
    case Site::attn_pattern:
      return 0;
    default:
      return config.d_model;
  }
}

HookTable::HookTable(const ModelConfig& config)
    : config_(config), lists_(static_cast<std::size_t>(config.n_layers) * kSites) {}

bool HookTable::exists(const HookPoint& point) const { return why_not_computed(config_, point).empty(); }

std::vector<HookPoint> HookTable::points() const {
  std::vector<HookPoint> out{{Site::embed, 0}};
  for (std::int64_t layer = 0; layer < config_.n_layers; ++layer)
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
  const std::string why_not = why_not_computed(config_, point);
  require(why_not.empty(), ErrorCode::argument, kWhere, "expected a point this model computes but got {}: {}",
          point.name(), why_not);
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

std::int64_t HookTable::count_editing() const {
  std::int64_t count = 0;
  for (const List& list : lists_)
    count += std::ranges::count_if(list, [](const auto& r) { return !r->options.read_only; });
  return count;
}
std::size_t HookTable::size() const {
  std::size_t count = 0;
  for (const List& list : lists_) count += list.size();
  return count;
}
bool HookTable::any_editing(Site site, std::int64_t layer) const { return edits(at(site, layer)); }
bool HookTable::edits(const List& list) {
  return std::ranges::any_of(list, [](const auto& r) { return !r->options.read_only; });
}

namespace {

/// Whether a hook left a value as a pass goes on with it.
bool like(const at::Tensor& value, const at::Tensor& before, at::IntArrayRef shape) {
  return value.defined() && value.sizes() == shape && value.scalar_type() == before.scalar_type() &&
         value.device() == before.device();
}

std::string described(const at::Tensor& value, at::IntArrayRef shape) {
  return format_text("[{}] {} on {}", fmt::join(shape, ", "), at::toString(value.scalar_type()), value.device().str());
}

}  // namespace

void HookTable::fire(const HookPoint& point, at::Tensor& value, const BatchView& batch) {
  for (const auto& registration : at(point.site, point.layer)) {
    {
      const std::lock_guard lock(mutex_);
      if (registration->removed) continue;
    }
    const at::Tensor before = value;
    const c10::SmallVector<std::int64_t, 4> shape(before.sizes());
    // libtorch counts the changes of a tensor, so a broken promise is seen (not under InferenceMode, which counts
    // none).
    const bool watched = registration->options.read_only && !value.is_inference();
    const auto version = watched ? value._version() : 0;
    HookContext context{point, value, batch};
    registration->function(context);
    // Errors are worded where there is one: this runs at every hook of every pass.
    if (registration->options.read_only && (!value.is_same(before) || (watched && value._version() != version)))
      fail(ErrorCode::argument, "Session::hook",
           "expected the read-only hook at {} to leave its value but it changed it; register it without read_only",
           point.name());
    if (!like(value, before, shape))
      fail(ErrorCode::shape, "Session::hook",
           "expected the hook at {} to leave {} but got {}; keep shape, dtype and device", point.name(),
           described(before, shape), value.defined() ? described(value, value.sizes()) : "an undefined tensor");
  }
}

}  // namespace model::detail
}  // namespace steer
