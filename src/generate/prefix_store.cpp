#include "generate/prefix_store.hpp"

#include <algorithm>

namespace steer::generation::detail {
std::int64_t common_prefix(std::span<const std::int64_t> a, std::span<const std::int64_t> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

std::pair<const PrefixStore::Entry*, std::int64_t> PrefixStore::best(std::span<const std::int64_t> ids,
                                                                     const Steering& touched) const {
  const Entry* best = nullptr;
  std::int64_t length = kShortestShared - 1;
  for (const auto& entry : entries_) {
    if (entry.touched != touched) continue;
    const std::int64_t common = common_prefix(ids, entry.ids);
    const bool whole = whole_only_ || !touched.empty();
    if (common <= length || (whole && common < std::ssize(entry.ids))) continue;
    best = &entry;
    length = common;
  }
  return {best, best ? length : 0};
}

std::int64_t PrefixStore::longest(std::span<const std::int64_t> ids, const Steering& touched) const {
  return best(ids, touched).second;
}

std::optional<PrefixStore::Found> PrefixStore::find(std::span<const std::int64_t> ids, const Steering& touched) {
  const auto [entry, length] = best(ids, touched);
  if (!entry) return {};
  const_cast<Entry*>(entry)->used = ++clock_;
  return Found{entry->sequence, length};
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
  if (entries_.size() >= most_) drop_oldest();
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
