#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <steer/model/session.hpp>
#include <steer/steering/steering.hpp>

namespace steer::generation::detail {

/// How many tokens two lists have in common at their beginning.
std::int64_t common_prefix(std::span<const std::int64_t> a, std::span<const std::int64_t> b);

/// A shorter shared prefix costs more than it saves.
inline constexpr std::int64_t kShortestShared = 8;

/// Computed beginnings of texts, each in a sequence of the session, by their tokens and by the steering that touched
/// them. The one used longest ago goes first.
class PrefixStore {
 public:
  /// @param whole_only  kept beginnings cannot be cut: layers that keep a state cannot go back.
  /// @param most  entries: each is compared with every new row.
  PrefixStore(Session& session, bool whole_only, std::size_t most)
      : session_(session), whole_only_(whole_only), most_(most) {}

  struct Found {
    SequenceId sequence;
    std::int64_t length;
  };
  /// The longest kept beginning of `ids`. What a steering touched can be used whole only: its memory of the tokens
  /// cannot be cut back.
  /// @param touched  the steering that acts on, or remembers, these tokens; empty for none.
  std::optional<Found> find(std::span<const std::int64_t> ids, const Steering& touched);
  /// Its length; 0 for none.
  std::int64_t longest(std::span<const std::int64_t> ids, const Steering& touched) const;
  /// Keeps a fork of a sequence that holds `ids` and no more.
  void keep(SequenceId source, std::span<const std::int64_t> ids, const Steering& touched);
  /// @return false if there was none.
  bool drop_oldest();

 private:
  struct Entry {
    std::vector<std::int64_t> ids;
    Steering touched;
    SequenceId sequence;
    std::int64_t used;
  };
  /// The entry with the longest usable beginning, and its length.
  std::pair<const Entry*, std::int64_t> best(std::span<const std::int64_t> ids, const Steering& touched) const;

  Session& session_;
  bool whole_only_;
  std::size_t most_;
  std::vector<Entry> entries_;
  std::int64_t clock_ = 0;
};

}  // namespace steer::generation::detail
