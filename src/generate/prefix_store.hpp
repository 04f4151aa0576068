#pragma once

#include <cstdint>
#include <optional>
#include <span>
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
  PrefixStore(Session& session, bool whole_only) : session_(session), whole_only_(whole_only) {}

  struct Found {
    SequenceId sequence;
    std::int64_t length;
  };
  /// The longest kept beginning of `ids`. What a steering touched can be used whole only: its memory of the tokens
  /// cannot be cut back.
  /// @param touched  the steering that acts on, or remembers, these tokens; empty for none.
  std::optional<Found> find(std::span<const std::int64_t> ids, const Steering& touched);
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
  Session& session_;
  bool whole_only_;
  std::vector<Entry> entries_;
  std::int64_t clock_ = 0;
};

}  // namespace steer::generation::detail
