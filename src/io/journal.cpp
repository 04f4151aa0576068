#include <steer/io/journal.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>

#include "core/format_text.hpp"
#include "io/journal_settings.hpp"
#include "io/strict_json.hpp"
#include "io/text_file.hpp"

namespace steer {
namespace {

using nlohmann::ordered_json;
constexpr std::string_view kHead = R"({"check":")", kAfter = R"(",)";
constexpr std::size_t kCheck = 12, kBody = kHead.size() + kCheck + kAfter.size();
constexpr std::string_view kIdentity = "identity";

std::string check_of(std::string_view body) { return content_hash(body).substr(0, kCheck); }

std::string line_of(const JournalEntry& entry) {
  const std::string body = R"("key":)" + ordered_json(entry.key).dump() + R"(,"record":)" + entry.record + "}";
  return std::string(kHead) + check_of(body) + std::string(kAfter) + body + "\n";
}

/// A whole line without its line end, or nothing if it is damaged.
std::optional<JournalEntry> parse_line(std::string_view line) {
  if (line.size() <= kBody || !line.starts_with(kHead) ||
      line.substr(kHead.size(), kCheck) != check_of(line.substr(kBody)))
    return std::nullopt;
  const auto json = io::detail::find_json<ordered_json>(line);
  if (!json || !json->is_object() || !json->contains("key") || !json->contains("record")) return std::nullopt;
  if (!json->at("key").is_string()) return std::nullopt;
  return JournalEntry{json->at("key").get<std::string>(), json->at("record").dump()};
}

struct Contents {
  std::vector<JournalEntry> entries;
  std::size_t end = 0;                  // bytes up to the last good line
  std::optional<std::int64_t> damaged;  // the first line that ends but is not as it was written
};

Contents parse(std::string_view text) {
  Contents contents;
  std::int64_t line_number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) break;  // torn: cut off in the middle of a write
    ++line_number;
    auto entry = parse_line(text.substr(begin, end - begin));
    begin = end + 1;
    if (!entry) {
      if (!contents.damaged) contents.damaged = line_number;
      continue;
    }
    contents.end = begin;
    contents.entries.push_back(std::move(*entry));
  }
  return contents;
}

/// What a file is that has no line of a journal, for a message.
std::string kind_of(std::string_view text) {
  std::string unix_ends;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] != '\r' || i + 1 == text.size() || text[i + 1] != '\n') unix_ends += text[i];
  if (!parse(unix_ends).entries.empty())
    return "a journal whose line ends have become CRLF (an editor or git did that; turn them back, e.g. sed -i "
           "'s/\\r$//')";
  const std::string_view start = text.substr(0, 4096);
  const bool binary = std::any_of(start.begin(), start.end(), [](unsigned char c) { return c < 9 || c == 0x7f; }) ||
                      ordered_json(std::string(start.substr(0, 40)))
                              .dump(-1, ' ', true, ordered_json::error_handler_t::replace)
                              .find("\\ufffd") != std::string::npos;
  if (binary) return "a binary file";
  return format_text("a text that begins \"{}\"", start.substr(0, std::min<std::size_t>(start.find('\n'), 40)));
}

/// Parses a file that must be a journal, whole but for a torn last line. @throws Error(format) for any other.
Contents parse_ours(std::string_view text, const std::filesystem::path& path) {
  Contents contents = parse(text);
  if (contents.entries.empty()) {
    const std::string_view head = text.substr(0, kHead.size());
    const bool torn = text.find('\n') == std::string_view::npos && kHead.starts_with(head);
    require(
        torn, ErrorCode::format, "Journal",
        "expected a journal or no file but got {}, which is not touched ({}); choose another place or move the file "
        "away",
        kind_of(text), path.string());
    return contents;
  }
  require(!contents.damaged, ErrorCode::format, "Journal",
          "expected a whole journal but line {} is damaged ({}); restore the file, or keep what is before that line: "
          "head -n {}",
          contents.damaged.value_or(0), path.string(), contents.damaged.value_or(1) - 1);
  const auto& first = contents.entries.front();
  require(first.key == kIdentity, ErrorCode::format, "Journal",
          "expected the run's settings in line 1 but got \"{}\" ({})", first.key, path.string());
  return contents;
}

/// @throws Error(config) for a journal of other settings.
void require_same(const Contents& contents, const ordered_json& settings, const std::filesystem::path& path) {
  if (contents.entries.empty()) return;
  const auto was = io::detail::parse_json<ordered_json>(contents.entries.front().record, "Journal", path.string());
  require(
      was == settings, ErrorCode::config, "Journal",
      "expected a journal of the same settings but: {} ({}); choose another journal, move this one away, or take the "
      "old settings",
      io::detail::differing_settings(was, settings), path.string());
}

ordered_json parse_identity(std::string_view identity) {
  auto settings = io::detail::find_json<ordered_json>(identity).value_or(nullptr);
  require(settings.is_object(), ErrorCode::argument, "Journal", "expected the identity as a JSON object but got \"{}\"",
          identity.substr(0, 60));
  return settings;
}

}  // namespace

std::string io::detail::differing_settings(const ordered_json& was, const ordered_json& is) {
  std::string text;
  const auto add = [&](const std::string& key) {
    text += format_text("{}{} was {}, is {}", text.empty() ? "" : "; ", key,
                        was.contains(key) ? io::detail::brief(was[key]) : "absent",
                        is.contains(key) ? io::detail::brief(is[key]) : "absent");
  };
  for (const auto& [key, value] : is.items())
    if (!was.contains(key) || was[key] != value) add(key);
  for (const auto& [key, value] : was.items())
    if (!is.contains(key)) add(key);
  return text;
}

Journal::Journal(std::filesystem::path path, std::string identity) : path_(std::move(path)) {
  const auto settings = parse_identity(identity);
  file_ = open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  require(file_ >= 0, ErrorCode::io, "Journal",
          "expected to open \"{}\" for appending but got: {}; choose a writable folder", path_.string(),
          std::strerror(errno));
  try {
    require(
        flock(file_, LOCK_EX | LOCK_NB) == 0, ErrorCode::io, "Journal",
        "expected to be alone with \"{}\" but another process holds it; wait for that run or choose another journal",
        path_.string());
    auto contents = parse_ours(io::detail::read_text_file(path_, "Journal", SIZE_MAX), path_);
    require_same(contents, settings, path_);
    end_ = static_cast<std::int64_t>(contents.end);
    require(ftruncate(file_, end_) == 0, ErrorCode::io, "Journal", "expected to cut a torn line off \"{}\" but got: {}",
            path_.string(), std::strerror(errno));
    if (contents.entries.empty()) {
      write_all(line_of({std::string(kIdentity), settings.dump()}));
    } else {
      for (std::size_t i = 1; i < contents.entries.size(); ++i)
        records_.try_emplace(std::move(contents.entries[i].key), std::move(contents.entries[i].record));
    }
  } catch (...) {
    close(file_);
    throw;
  }
}

Journal::~Journal() {
  if (file_ >= 0) close(file_);
}

std::int64_t Journal::size() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::int64_t>(records_.size());
}

bool Journal::contains(std::string_view key) const {
  const std::lock_guard lock(mutex_);
  return records_.contains(key);
}

std::map<std::string, std::string, std::less<>> Journal::records() const {
  const std::lock_guard lock(mutex_);
  return records_;
}

void Journal::append(std::span<const JournalEntry> entries) {
  const std::lock_guard lock(mutex_);
  std::string text;
  std::vector<const JournalEntry*> added;
  for (const auto& entry : entries) {
    require(entry.record.find('\n') == std::string::npos && !entry.record.empty(), ErrorCode::argument,
            "Journal::append", "expected a record of one line but got {} bytes with line breaks (key \"{}\")",
            entry.record.size(), entry.key);
    if (records_.contains(entry.key)) continue;
    text += line_of(entry);
    added.push_back(&entry);
  }
  if (added.empty()) return;
  write_all(text);
  for (const auto* entry : added) records_.try_emplace(entry->key, entry->record);
}

void Journal::write_all(std::string_view bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = write(file_, bytes.data() + done, bytes.size() - done);
    if (n > 0)
      done += static_cast<std::size_t>(n);
    else if (errno != EINTR)
      break;
  }
  if (done == bytes.size() && fdatasync(file_) == 0) {
    end_ += static_cast<std::int64_t>(bytes.size());
    return;
  }
  const int error = errno;
  // Take back what was written of these lines, so that a later attempt starts at a line's beginning.
  if (ftruncate(file_, end_) != 0)
    fail(ErrorCode::io, "Journal::append", "expected to repair \"{}\" but got: {}", path_.string(),
         std::strerror(errno));
  fail(ErrorCode::io, "Journal::append",
       "expected to write {} bytes to \"{}\" but got: {}; everything before is kept, free some space and start again",
       bytes.size(), path_.string(), std::strerror(error));
}

namespace {

std::map<std::string, std::string, std::less<>> records_in(Contents contents) {
  std::map<std::string, std::string, std::less<>> records;
  for (auto& entry : contents.entries)
    if (entry.key != kIdentity) records.try_emplace(std::move(entry.key), std::move(entry.record));
  return records;
}

}  // namespace

std::map<std::string, std::string, std::less<>> Journal::read(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return {};
  return records_in(parse_ours(io::detail::read_text_file(path, "Journal", SIZE_MAX), path));
}

std::map<std::string, std::string, std::less<>> Journal::read(const std::filesystem::path& path,
                                                              std::string_view identity) {
  const auto settings = parse_identity(identity);
  if (!std::filesystem::exists(path)) return {};
  Contents contents = parse_ours(io::detail::read_text_file(path, "Journal", SIZE_MAX), path);
  require_same(contents, settings, path);
  return records_in(std::move(contents));
}

}  // namespace steer
