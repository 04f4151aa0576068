#include "eval/run/work.hpp"

#include <algorithm>
#include <optional>

#include <steer/core/error.hpp>
#include <steer/io/journal.hpp>

#include "core/format_text.hpp"

namespace steer::eval::detail {
namespace {

using Records = std::map<std::string, std::string, std::less<>>;

std::filesystem::path journal_of(const std::filesystem::path& first, std::int64_t rank) {
  if (rank == 0) return first;
  auto name = first.stem();
  name += format_text(".rank{}", rank);
  name += first.extension();
  return first.parent_path() / name;
}

/// What all ranks' journals hold, also those of an earlier run with more processes. Each must be of this run's
/// settings.
Records read_journals(const std::filesystem::path& first, const std::string& identity,
                      std::set<std::filesystem::path>* used) {
  Records records;
  const auto add = [&](const std::filesystem::path& path) {
    Records some = Journal::read(path, identity);
    if (used && !some.empty()) used->insert(path);
    records.merge(some);
  };
  add(first);
  const auto folder = first.has_parent_path() ? first.parent_path() : std::filesystem::path(".");
  const std::string head = first.stem().string() + ".rank", tail = first.extension().string();
  std::set<std::filesystem::path> others;  // in order: which of two records counts must not depend on the file system
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(head) && name.ends_with(tail)) others.insert(entry.path());
  }
  for (const auto& path : others) add(path);
  return records;
}

}  // namespace

Records do_work(std::span<const std::string> keys, const DoItems& work, const WorkOptions& options) {
  require(options.batch >= 1, ErrorCode::argument, "run_experiment", "expected batches of at least 1 item but got {}",
          options.batch);
  const auto total = static_cast<std::int64_t>(keys.size());
  const std::int64_t batches = (total + options.batch - 1) / options.batch;
  std::optional<Journal> journal;
  Records known;
  if (!options.journal.empty()) {
    journal.emplace(journal_of(options.journal, options.team ? options.team->workers().rank : 0), options.identity);
    known = read_journals(options.journal, options.identity, options.used);
  }
  Progress progress = options.progress.part(options.stage, total);
  progress.resume_at(std::count_if(keys.begin(), keys.end(), [&](const auto& key) { return known.contains(key); }));

  const auto claims = claims_on(options.team, options.stage, batches);
  while (const auto batch = claims->next()) {
    std::vector<std::size_t> items;
    bool open = false;
    for (auto i = *batch * options.batch; i < std::min(total, (*batch + 1) * options.batch); ++i) {
      const bool done = known.contains(keys[static_cast<std::size_t>(i)]);
      open |= !done;
      if (!done || !options.apart) items.push_back(static_cast<std::size_t>(i));
    }
    if (open) {
      require(!options.stop || !options.stop(), ErrorCode::cancelled, "run_experiment",
              "expected to finish but was told to stop, with {} of {} items of \"{}\" done{}", progress.done(), total,
              options.stage,
              options.journal.empty() ? ""
                                      : format_text("; they are kept: start again with the same settings to go on "
                                                    "({})",
                                                    options.journal.string()));
      // The whole batch, unless items stand apart: a result may depend on its batch mates in the last bits, and must
      // not on when the run was killed.
      auto records = work(items);
      require(records.size() == items.size(), ErrorCode::shape, "run_experiment",
              "expected {} records from a batch but got {}", items.size(), records.size());
      std::vector<JournalEntry> entries;
      for (std::size_t i = 0; i < items.size(); ++i) {
        const std::string& key = keys[items[i]];
        if (known.contains(key)) continue;
        if (records[i].settled) entries.push_back({key, records[i].text});
        known.emplace(key, std::move(records[i].text));
      }
      if (journal) journal->append(entries);
      progress.advance(static_cast<std::int64_t>(entries.size()));
    }
    claims->done(*batch);
  }
  if (!options.journal.empty() && options.team)
    for (auto& [key, record] : read_journals(options.journal, options.identity, options.used))
      known.try_emplace(key, record);
  progress.finish();
  return known;
}

}  // namespace steer::eval::detail
