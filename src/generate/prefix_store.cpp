#include "generate/prefix_store.hpp"

#include <algorithm>

namespace steer::generation::detail {
namespace {

/// Entries are compared with every new row one by one.
constexpr std::size_t kMost = 64;

}  // namespace

std::int64_t common_prefix(std::span<const std::int64_t> a, std::span<const std::int64_t> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

std::optional<PrefixStore::Found> PrefixStore::find(std::span<const std::int64_t> ids, const Steering& touched) {
  Entry* best = nullptr;
  std::int64_t length = kShortestShared - 1;
  for (auto& entry : entries_) {
    if (entry.touched != touched) continue;
    const std::int64_t common = common_prefix(ids, entry.ids);
    const bool whole = whole_only_ || !touched.empty();
    if (common <= length || (whole && common < std::ssize(entry.ids))) continue;
    best = &entry;
    length = common;
  }
  if (!best) return {};
  best->used = ++clock_;
  return Found{best->sequence, length};
}

void PrefixStore::keep(SequenceId source, std::span<const std::int64_t> ids, const Steering& touched) {
  if (std::ssize(ids) < kShortestShared) return;
  const bool whole = whole_only_ || !touched.empty();
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    const std::int64_t common = entry->touched == touched ? common_prefix(ids, entry->ids) : 0;
    if (common == std::ssize(ids) && (!whole || common == std::ssize(entry->ids))) {
      entry->used = ++clock_;
      return;  // there already
    }
    if (common == std::ssize(entry->ids) && !whole) {  // part of the new one
      session_.close(entry->sequence);
      entry = entries_.erase(entry);
    } else {
      ++entry;
    }
  }
  if (entries_.size() >= kMost) drop_oldest();
  ForkOptions options;
  if (touched.empty()) options.steering = InterventionPtr();  // whoever goes on from here brings a steering of its own
  entries_.push_back({{ids.begin(), ids.end()}, touched, session_.fork(source, options), ++clock_});
}

bool PrefixStore::drop_oldest() {
  if (entries_.empty()) return false;
  const auto oldest = std::ranges::min_element(entries_, {}, &Entry::used);
  session_.close(oldest->sequence);
  entries_.erase(oldest);
  return true;
}

}  // namespace steer::generation::detail
