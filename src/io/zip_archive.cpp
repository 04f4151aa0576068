#include "io/zip_archive.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>

#include "core/format_text.hpp"
#include "io/open_container.hpp"

namespace steer::io::detail {
namespace {

constexpr std::uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEnd = 0x06054b50;
constexpr std::uint32_t kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr std::size_t kEndSize = 22, kLocatorSize = 20, kCentralSize = 46, kLocalSize = 30;

template <class T>
T load(Bytes bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

struct Directory {
  std::uint64_t begin, size, count;
};

// Where the central directory is: from the last record of the file, or its Zip64 form.
Directory find_directory(Bytes file, const std::string& name) {
  const auto longest = std::min<std::size_t>(file.size(), kEndSize + 0xffff);
  for (std::size_t back = kEndSize; back <= longest; ++back) {
    const auto end = file.size() - back;
    if (load<std::uint32_t>(file, end) != kEnd || load<std::uint16_t>(file, end + 20) != back - kEndSize) continue;
    Directory directory{load<std::uint32_t>(file, end + 16), load<std::uint32_t>(file, end + 12),
                        load<std::uint16_t>(file, end + 10)};
    std::uint64_t limit = end;
    if (end >= kLocatorSize && load<std::uint32_t>(file, end - kLocatorSize) == kEnd64Locator) {
      const auto at = load<std::uint64_t>(file, end - kLocatorSize + 8);
      constexpr std::size_t end64_size = 56;
      require(end - kLocatorSize >= end64_size && at <= end - kLocatorSize - end64_size &&
                  load<std::uint32_t>(file, static_cast<std::size_t>(at)) == kEnd64,
              ErrorCode::format, kOpenTensors, "expected a Zip64 record but got none where its locator points ({})",
              name);
      const auto record = file.subspan(static_cast<std::size_t>(at));
      directory = {load<std::uint64_t>(record, 48), load<std::uint64_t>(record, 40), load<std::uint64_t>(record, 32)};
      limit = at;
    }
    require(directory.begin <= limit && directory.size <= limit - directory.begin &&
                directory.count <= directory.size / kCentralSize && directory.count <= kMaxTensors,
            ErrorCode::format, kOpenTensors,
            "expected a zip directory within the file but got {} entries, {} bytes at {} ({})", directory.count,
            directory.size, directory.begin, name);
    return directory;
  }
  fail(ErrorCode::format, kOpenTensors,
       "expected a zip directory at the end of the file but got none ({}); the file is cut off: "
       "download or save it again",
       name);
}

// Replaces the fields that did not fit 32 bits by those of the Zip64 extra field, which has them in this order.
void apply_zip64(Bytes extra, std::array<std::uint64_t*, 3> fields, const std::string& what) {
  while (extra.size() >= 4) {
    const auto id = load<std::uint16_t>(extra, 0), size = load<std::uint16_t>(extra, 2);
    if (size > extra.size() - 4) break;
    auto body = extra.subspan(4, size);
    if (id == 1) {
      for (auto* field : fields) {
        if (*field != std::numeric_limits<std::uint32_t>::max()) continue;
        require(body.size() >= 8, ErrorCode::format, kOpenTensors,
                "expected 64-bit sizes in the Zip64 field but got none ({})", what);
        *field = load<std::uint64_t>(body, 0);
        body = body.subspan(8);
      }
      return;
    }
    extra = extra.subspan(4 + size);
  }
}

}  // namespace

ZipArchive::ZipArchive(std::shared_ptr<const MappedFile> file, std::string name)
    : file_(std::move(file)), name_(std::move(name)) {
  const auto bytes = file_->bytes();
  const auto directory = find_directory(bytes, name_);
  ByteCursor cursor(bytes.subspan(static_cast<std::size_t>(directory.begin), static_cast<std::size_t>(directory.size)),
                    kOpenTensors, "the zip directory of " + name_);
  // Entries are few; the bytes of one, with its header, must not be those of another.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges;
  for (std::uint64_t i = 0; i < directory.count; ++i) {
    const auto header = cursor.take(kCentralSize);
    const auto entry_name = as_text(cursor.take(load<std::uint16_t>(header, 28)));
    const auto extra = cursor.take(load<std::uint16_t>(header, 30));
    cursor.take(load<std::uint16_t>(header, 32));
    const auto what = format_text("entry {} of {}", quote(entry_name), name_);
    require(load<std::uint32_t>(header, 0) == kCentralHeader, ErrorCode::format, kOpenTensors,
            "expected an entry of the zip directory but got other bytes ({})", what);
    const auto method = load<std::uint16_t>(header, 10);
    require((load<std::uint16_t>(header, 8) & 1) == 0 && (method == 0 || method == 8), ErrorCode::unsupported,
            kOpenTensors, "expected a stored or deflated entry but got method {}, or encryption ({})", method, what);
    std::uint64_t packed = load<std::uint32_t>(header, 20), size = load<std::uint32_t>(header, 24);
    std::uint64_t local = load<std::uint32_t>(header, 42);
    apply_zip64(extra, {&size, &packed, &local}, what);

    const auto end = directory.begin;
    require(local <= end && end - local >= kLocalSize && load<std::uint32_t>(bytes, local) == kLocalHeader,
            ErrorCode::format, kOpenTensors, "expected a local header at byte {} but got none ({})", local, what);
    const std::uint64_t name_size = load<std::uint16_t>(bytes, local + 26);
    const auto data = local + kLocalSize + name_size + load<std::uint16_t>(bytes, local + 28);
    require(data <= end && packed <= end - data && size <= std::uint64_t{INT64_MAX}, ErrorCode::format, kOpenTensors,
            "expected data within the file but got {} bytes at {} ({})", packed, data, what);
    require(as_text(bytes.subspan(local + kLocalSize, name_size)) == entry_name, ErrorCode::format, kOpenTensors,
            "expected the same name in directory and local header but got another ({})", what);
    require(method == 8 || packed == size, ErrorCode::format, kOpenTensors,
            "expected equal sizes of a stored entry but got {} and {} ({})", packed, size, what);
    ranges.emplace_back(local, data + packed);
    entries_.push_back({std::string(entry_name), method == 8, load<std::uint32_t>(header, 16),
                        static_cast<std::int64_t>(size), bytes.subspan(data, packed)});
  }
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t i = 1; i < ranges.size(); ++i)
    require(ranges[i].first >= ranges[i - 1].second, ErrorCode::format, kOpenTensors,
            "expected entries that do not overlap but got two that share byte {} ({})", ranges[i].first, name_);
}

const ZipEntry* ZipArchive::find(std::string_view name) const {
  const auto it = std::find_if(entries_.begin(), entries_.end(), [&](const auto& entry) { return entry.name == name; });
  return it == entries_.end() ? nullptr : &*it;
}

OwnedBytes ZipArchive::read(const ZipEntry& entry) const {
  if (!entry.deflated) return {entry.packed, file_};
  ZipEntryStream stream(*this, entry);  // refuses a bomb before memory is taken
  // Not zeroed: a page is taken only when unpacked data reach it.
  std::shared_ptr<std::byte[]> buffer(new std::byte[static_cast<std::size_t>(entry.size)]);
  const std::span<std::byte> all(buffer.get(), static_cast<std::size_t>(entry.size));
  stream.read(all);
  return {all, buffer};
}

struct ZipEntryStream::Inflater {
  z_stream stream{};
  std::size_t fed = 0;  // bytes of the packed data
  Inflater() { ready = inflateInit2(&stream, -MAX_WBITS) == Z_OK; }
  ~Inflater() {
    if (ready) inflateEnd(&stream);
  }
  bool ready = false;
};

ZipEntryStream::ZipEntryStream(const ZipArchive& archive, const ZipEntry& entry) : archive_(archive), entry_(entry) {
  if (!entry.deflated) return;
  // Weights hardly compress; constant vectors do, but those are small.
  constexpr std::int64_t harmless = std::int64_t{32} << 20, greatest_ratio = 64;
  if (entry.size > harmless && entry.size / greatest_ratio > static_cast<std::int64_t>(entry.packed.size()))
    fail(ErrorCode::format, kOpenTensors,
         "expected data that compress like weights but got {} bytes packed in {}, as in a zip bomb "
         "(entry {} of {}); unpack and store it if you trust it",
         entry.size, entry.packed.size(), quote(entry.name), archive.name());
  inflater_ = std::make_unique<Inflater>();
  if (!inflater_->ready) fail_damaged("zlib failed to start");
}

ZipEntryStream::~ZipEntryStream() = default;

void ZipEntryStream::fail_damaged(std::string_view what) const {
  fail(ErrorCode::format, kOpenTensors,
       "expected {} bytes of sound data but got {} (entry {} of {}); the file is damaged", entry_.size, what,
       quote(entry_.name), archive_.name());
}

void ZipEntryStream::read(std::span<std::byte> out) {
  if (static_cast<std::uint64_t>(entry_.size - position_) < out.size()) fail_damaged("fewer");
  position_ += static_cast<std::int64_t>(out.size());
  if (!inflater_) {
    const auto begin = static_cast<std::size_t>(position_) - out.size();
    if (!out.empty()) std::memcpy(out.data(), entry_.packed.data() + begin, out.size());
    return;
  }
  auto& stream = inflater_->stream;
  constexpr std::size_t most = std::size_t{1} << 30;  // zlib counts in 32 bits
  auto rest = out;
  while (!rest.empty()) {
    if (stream.avail_in == 0) {
      const auto piece = entry_.packed.subspan(inflater_->fed, std::min(most, entry_.packed.size() - inflater_->fed));
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(piece.data()));
      stream.avail_in = static_cast<uInt>(piece.size());
      inflater_->fed += piece.size();
    }
    const auto want = std::min(most, rest.size());
    stream.next_out = reinterpret_cast<Bytef*>(rest.data());
    stream.avail_out = static_cast<uInt>(want);
    const int status = inflate(&stream, Z_NO_FLUSH);
    const auto got = want - stream.avail_out;
    crc_ = static_cast<std::uint32_t>(crc32(crc_, reinterpret_cast<const Bytef*>(rest.data()), static_cast<uInt>(got)));
    rest = rest.subspan(got);
    const bool starved = got == 0 && stream.avail_in == 0 && inflater_->fed == entry_.packed.size();
    if ((status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) ||
        (status == Z_STREAM_END && !rest.empty()) || (starved && !rest.empty()))
      fail_damaged("data that do not unpack to as many");
  }
  if (position_ == entry_.size && crc_ != entry_.crc) fail_damaged("another checksum");
}

void ZipEntryStream::skip(std::int64_t bytes) {
  if (!inflater_) {
    if (bytes > entry_.size - position_) fail_damaged("fewer");
    position_ += bytes;
    return;
  }
  std::array<std::byte, 65536> sink;
  for (; bytes > 0; bytes -= static_cast<std::int64_t>(sink.size()))
    read(std::span(sink).first(static_cast<std::size_t>(std::min<std::int64_t>(bytes, sink.size()))));
}

}  // namespace steer::io::detail
