#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

namespace steer {

/// What a journal holds of one finished item.
struct JournalEntry {
  std::string key{};     ///< identifies the item
  std::string record{};  ///< JSON, one line
};

/// An append-only file of finished items: one line each, with a checksum, on disk before `append` returns. After a
/// crash or kill -9 at any moment, opening it again finds every item that was appended; a torn last line is cut off.
/// One process at a time (the file is locked); all members may be called from several threads.
class Journal {
 public:
  /// Opens or creates.
  /// @param identity  JSON object of all settings the items depend on. It is the file's first line; reopening with
  ///                  another one is an error, so results of different settings cannot mix.
  /// @throws Error(io) if the file cannot be opened, written or locked; Error(config) naming the settings that differ;
  ///         Error(format) for a line that is not as it was written, naming it, and for a file that is no journal,
  ///         saying what it is; nothing is changed then.
  Journal(std::filesystem::path path, std::string identity);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// Number of items.
  std::int64_t size() const;
  /// Whether the item is finished.
  bool contains(std::string_view key) const;
  /// Key to record, as found on opening and appended since.
  std::map<std::string, std::string, std::less<>> records() const;

  /// Appends entries and waits until they are on disk; those whose key is present already are left out.
  /// @throws Error(io) if the disk is full or the file gone: none of these entries is kept then, all earlier ones are,
  ///         and the call may be repeated; Error(argument) for a record that is not one line.
  void append(std::span<const JournalEntry> entries);
  void append(const JournalEntry& entry) { append(std::span(&entry, 1)); }

  /// The records of a journal file that another process may still be writing; nothing is changed. Empty when there is
  /// no such file. @throws Error(io | format) as the constructor.
  static std::map<std::string, std::string, std::less<>> read(const std::filesystem::path& path);
  /// The same of a journal that must be of these settings: what is read is a result of the run.
  /// @throws Error(config) naming the settings that differ.
  static std::map<std::string, std::string, std::less<>> read(const std::filesystem::path& path,
                                                              std::string_view identity);

 private:
  void write_all(std::string_view bytes);
  std::filesystem::path path_;
  int file_ = -1;
  std::int64_t end_ = 0;  ///< bytes of whole lines
  mutable std::mutex mutex_;
  std::map<std::string, std::string, std::less<>> records_;
};

}  // namespace steer
