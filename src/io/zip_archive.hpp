#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/mapped_file.hpp"

namespace steer::io::detail {

/// One file of a zip archive.
struct ZipEntry {
  std::string name;
  bool deflated = false;
  std::uint32_t crc = 0;
  std::int64_t size = 0;  ///< unpacked
  Bytes packed;           ///< within the mapped archive
};

/// A zip archive (PKWARE APPNOTE 6.3, Zip64 included), read from its central directory. Entries may be stored or
/// deflated; opening unpacks nothing.
class ZipArchive {
 public:
  /// @throws Error(format) when entries lie outside the file, overlap or contradict their local headers,
  ///         Error(unsupported) for encryption or other methods.
  ZipArchive(std::shared_ptr<const MappedFile> file, std::string name);

  const std::vector<ZipEntry>& entries() const { return entries_; }
  const ZipEntry* find(std::string_view name) const;
  const std::string& name() const { return name_; }
  const std::shared_ptr<const MappedFile>& file() const { return file_; }

  /// The whole entry: mapped when stored, unpacked to memory when deflated.
  /// @throws Error(format) when the data are not what the directory says, or unpack to suspiciously much.
  OwnedBytes read(const ZipEntry& entry) const;

 private:
  std::shared_ptr<const MappedFile> file_;
  std::string name_;
  std::vector<ZipEntry> entries_;
};

/// Reads an entry from its start on, unpacking as it goes.
class ZipEntryStream {
 public:
  ZipEntryStream(const ZipArchive& archive, const ZipEntry& entry);
  ~ZipEntryStream();
  ZipEntryStream(const ZipEntryStream&) = delete;
  ZipEntryStream& operator=(const ZipEntryStream&) = delete;

  /// Fills `out`; checks the checksum when the end of a deflated entry is reached. @throws Error(format).
  void read(std::span<std::byte> out);
  void skip(std::int64_t bytes);

 private:
  [[noreturn]] void fail_damaged(std::string_view what) const;
  struct Inflater;
  const ZipArchive& archive_;
  const ZipEntry& entry_;
  std::unique_ptr<Inflater> inflater_;  // null for a stored entry
  std::int64_t position_ = 0;
  std::uint32_t crc_ = 0;
};

}  // namespace steer::io::detail
