#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include <steer/model/hooks.hpp>
#include <steer/model/session.hpp>

namespace steer {

/// One registered hook. Owned by its session's table; handles refer to it weakly.
struct HookHandle::Registration {
  std::weak_ptr<model::detail::HookTable> table;
  HookPoint point;
  HookFunction function;
  HookOptions options;
  bool removed = false;  ///< guarded by the table's mutex
};

namespace model::detail {

/// Why a model does not compute a point, or "". The sentence goes on from "expected a point this model computes but
/// got NAME: ".
std::string why_not_computed(const ModelConfig& config, const HookPoint& point);
/// Width of a point's value; of attn_pattern 0. @param point  one that the model computes.
std::int64_t hook_width(const ModelConfig& config, const HookPoint& point);

/// The hooks of one session. While a step runs the lists stay as they are: hooks removed meanwhile are only marked, and
/// dropped when it ends.
class HookTable : public std::enable_shared_from_this<HookTable> {
 public:
  explicit HookTable(const ModelConfig& config);

  /// @throws Error(argument) for a point the model does not have.
  std::shared_ptr<HookHandle::Registration> add(const HookPoint& point, HookFunction function,
                                                const HookOptions& options);
  void remove(HookHandle::Registration& registration);

  /// Whether the model computes this point.
  bool exists(const HookPoint& point) const;
  /// Every point of the model, in the order of computation.
  std::vector<HookPoint> points() const;

  bool any(Site site, std::int64_t layer) const { return !at(site, layer).empty(); }
  /// How many hooks there are.
  std::size_t size() const;
  /// Calls the hooks of a point. @return whether `value` may have changed.
  void fire(const HookPoint& point, at::Tensor& value, const BatchView& batch);

  /// Between these, lists do not change.
  void begin_step();
  void end_step();
  /// Whether some hook may put a gradient into the pass.
  bool any_editing() const { return count_editing() > 0; }
  /// How many hooks may change what they get.
  std::int64_t count_editing() const;
  /// Whether some hook of this point may change its value.
  bool any_editing(Site site, std::int64_t layer) const;

 private:
  using List = std::vector<std::shared_ptr<HookHandle::Registration>>;
  static bool edits(const List& list);
  static constexpr std::size_t kSites = std::size(EnumTable<Site>::entries);
  const List& at(Site site, std::int64_t layer) const {
    return lists_[static_cast<std::size_t>(layer) * kSites + static_cast<std::size_t>(site)];
  }
  List& at(Site site, std::int64_t layer) { return const_cast<List&>(std::as_const(*this).at(site, layer)); }

  ModelConfig config_;
  std::vector<List> lists_;  ///< [layers, sites], each in the order of calls
  std::mutex mutex_;
  bool running_ = false;  ///< guarded by mutex_
  bool stale_ = false;    ///< guarded by mutex_: something was marked as removed
};

}  // namespace model::detail
}  // namespace steer
