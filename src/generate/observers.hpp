#pragma once

#include <functional>
#include <map>

#include <steer/generate/observe.hpp>
#include <steer/model/session.hpp>

#include "generate/engine_row.hpp"

namespace steer::generation::detail {

/// The observers of the rows that run, as read-only hooks of their session.
class Observers {
 public:
  explicit Observers(Session& session) : session_(session) {}
  /// A row has got its sequence; it does not move while it has it.
  void add(EngineRow& row);
  /// It loses it.
  void remove(const EngineRow& row);

 private:
  struct Point {
    HookHandle hook;
    std::int64_t users = 0;
  };
  void see(HookContext& at);
  void tell(EngineRow& row, std::size_t observer, const TokenRun& run, HookContext& at);

  Session& session_;
  std::map<HookPoint, Point> points_;
  std::map<SequenceId, EngineRow*> rows_;
};

}  // namespace steer::generation::detail
