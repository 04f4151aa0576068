#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <steer/model/hooks.hpp>

namespace steer {

/// What one edit did in one sequence.
struct EditAudit {
  std::string edit;  ///< its name or description
  HookPoint point;
  std::int64_t seen = 0;      ///< tokens that passed the hook point
  std::int64_t in_scope = 0;  ///< of those, tokens its scope and condition selected
  std::int64_t edited = 0;    ///< of those, tokens whose activation it changed
  double mean_change = 0;     ///< |change| / |h on arrival|, mean over edited tokens
  double max_change = 0;      ///< the largest
};

/// What a sequence's steering did. Silent no-op steering, the commonest fault in this field, shows here.
struct SteeringAudit {
  std::vector<EditAudit> edits;  ///< in the order of the steering
  std::int64_t edited() const;   ///< over all edits
  bool fired() const { return edited() > 0; }
  /// @throws Error(config) that lists the counts when there are edits and none changed a token.
  void require_fired(std::string_view where) const;
  /// A table, one line an edit.
  std::string describe() const;
};

}  // namespace steer
