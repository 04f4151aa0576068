#pragma once
// One stage of a run, typed: what is made of every item. Only a journal sees text; without one no record is written and
// read on its way.

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <steer/core/error.hpp>

#include "eval/run/work.hpp"

namespace steer::eval::detail {

/// What came of an item.
template <class Record>
struct Made {
  Record record;
  bool settled = true;  ///< false: not to be journalled; the item is made again by the next run
};

template <class Record>
struct Stage {
  std::string name;               ///< processes of one run must name it alike
  std::vector<std::string> keys;  ///< of its items, unlike one another
  /// Makes items [indices] and returns one record each, in order.
  std::function<std::vector<Made<Record>>(std::span<const std::size_t> indices)> make;
  /// A record as one line of JSON, and what such a line of an item says.
  std::function<std::string(const Record&)> write;
  std::function<Record(std::size_t item, const std::string& line)> read;
  std::int64_t batch = 1;  ///< items handed out at once
  bool apart = false;      ///< items do not depend on their batch mates
};

/// Makes every item once, as `do_work` does. With a journal each record is taken from its line, made just now or
/// before: a resumed run must see what an uninterrupted one sees.
/// @return one record an item; nothing for what another process left unsettled. @throws as `do_work`.
template <class Record>
std::vector<std::optional<Record>> run_stage(const Stage<Record>& stage, WorkOptions options) {
  const bool written = !options.journal.empty();
  std::vector<std::string> keys;  // the journal holds all stages of a run
  for (const auto& key : stage.keys) keys.push_back(stage.name + "|" + key);
  options.stage = stage.name;
  options.batch = stage.batch;
  options.apart = stage.apart;
  std::vector<std::optional<Record>> records(keys.size());
  const auto lines = do_work(
      keys,
      [&](std::span<const std::size_t> indices) {
        auto made = stage.make(indices);
        require(made.size() == indices.size(), ErrorCode::shape, "run_experiment",
                "expected {} records from a batch but got {}", indices.size(), made.size());
        std::vector<WorkRecord> work;
        for (std::size_t i = 0; i < made.size(); ++i) {
          work.push_back({written ? stage.write(made[i].record) : std::string(), made[i].settled});
          if (!written) records[indices[i]] = std::move(made[i].record);
        }
        return work;
      },
      options);
  if (written)
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (const auto line = lines.find(keys[i]); line != lines.end()) records[i] = stage.read(i, line->second);
  return records;
}

}  // namespace steer::eval::detail
