#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include <steer/core/progress.hpp>

#include "eval/run/team.hpp"

namespace steer::eval::detail {

/// What came of an item: one line of JSON.
struct WorkRecord {
  std::string text;
  bool settled = true;  ///< false: not to be journalled; the item is done again by the next run
};

/// Does items [indices] of the plan and returns one record each, in order.
using DoItems = std::function<std::vector<WorkRecord>(std::span<const std::size_t> indices)>;

struct WorkOptions {
  std::filesystem::path journal;    ///< of rank 0; rank r writes <stem>.rank<r><extension>. Empty: keep in memory only
  std::string identity;             ///< of the run: see Journal
  std::string stage;                ///< what is done; processes of one run must name it alike
  std::int64_t batch = 32;          ///< items handed out at once
  bool apart = false;               ///< items do not depend on their batch mates: only those that are missing are done
  Team* team = nullptr;             ///< the processes to share the work with; none: alone
  std::function<bool()> stop = {};  ///< asked before each batch: true ends the work with Error(cancelled)
  std::set<std::filesystem::path>* used = nullptr;  ///< gets the journals whose records were taken
  Progress progress = {};
};

/// Does every item of a plan once, in batches, over the processes of the team, each journalling what it finished.
/// Items found in the journals (of this rank or any other) are not done again. Batches go to whoever is free, through a
/// c10d TCPStore at rank 0; when a process falls silent for the team's `timeout_s`, the others take over what it had
/// claimed.
/// @return records by key: of all keys, whoever did them (the processes share the journals' folder), but for those that
///         another process left unsettled.
/// @throws Error(config) for a journal of other settings, whichever rank's it is; Error(cancelled) when told to stop;
///         Error(io) when rank 0 is lost (start again: the journals hold what was done), and whatever `work` throws.
std::map<std::string, std::string, std::less<>> do_work(std::span<const std::string> keys, const DoItems& work,
                                                        const WorkOptions& options);

}  // namespace steer::eval::detail
