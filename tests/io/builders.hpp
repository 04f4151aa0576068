#pragma once
// Makes small files byte by byte, right or wrong on purpose, independently of steer's own writers.

#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "source_dir.hpp"

namespace steer::test {

inline std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(STEER_SOURCE_DIR) / "tests/data/io" / name;
}

inline void write_bytes(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

template <class T>
std::string le(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

inline std::string safetensors_bytes(const std::string& header, std::string_view data = {}) {
  return le<std::uint64_t>(header.size()) + header + std::string(data);
}

// --- zip -------------------------------------------------------------------------------------------------------------
struct ZipPart {
  std::string name, data;
  bool deflate = false;
  std::uint64_t claimed_size = UINT64_MAX;  ///< unpacked size to write instead of the true one
};

inline std::string deflated(std::string_view data) {
  z_stream stream{};
  deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, data.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

inline std::string zip_bytes(const std::vector<ZipPart>& parts) {
  std::string file, directory;
  for (const auto& part : parts) {
    const auto packed = part.deflate ? deflated(part.data) : part.data;
    const auto crc = crc32(0, reinterpret_cast<const Bytef*>(part.data.data()), static_cast<uInt>(part.data.size()));
    const auto size = part.claimed_size != UINT64_MAX ? part.claimed_size : part.data.size();
    const auto small = size < UINT32_MAX;
    const std::string extra = small ? "" : le<std::uint16_t>(1) + le<std::uint16_t>(8) + le(size);
    const auto common = le<std::uint16_t>(0) + le<std::uint16_t>(part.deflate ? 8 : 0) + le<std::uint32_t>(0) +
                        le<std::uint32_t>(static_cast<std::uint32_t>(crc)) +
                        le<std::uint32_t>(static_cast<std::uint32_t>(packed.size())) +
                        le<std::uint32_t>(small ? static_cast<std::uint32_t>(size) : UINT32_MAX) +
                        le<std::uint16_t>(static_cast<std::uint16_t>(part.name.size()));
    directory += "PK\1\2" + le<std::uint32_t>(0x002d002d) + common +
                 le<std::uint16_t>(static_cast<std::uint16_t>(extra.size())) + std::string(10, '\0') +
                 le<std::uint32_t>(static_cast<std::uint32_t>(file.size())) + part.name + extra;
    file += "PK\3\4" + le<std::uint16_t>(45) + common + le<std::uint16_t>(0) + part.name + packed;
  }
  const auto begin = file.size(), count = parts.size();
  return file + directory + "PK\5\6" + std::string(4, '\0') + le<std::uint16_t>(static_cast<std::uint16_t>(count)) +
         le<std::uint16_t>(static_cast<std::uint16_t>(count)) +
         le<std::uint32_t>(static_cast<std::uint32_t>(directory.size())) +
         le<std::uint32_t>(static_cast<std::uint32_t>(begin)) + le<std::uint16_t>(0);
}

// --- pickle ----------------------------------------------------------------------------------------------------------
inline std::string p_text(const std::string& text) {
  return "X" + le<std::uint32_t>(static_cast<std::uint32_t>(text.size())) + text;
}
inline std::string p_int(std::int64_t value) { return std::string("\x8a\x08") + le(value); }
inline std::string p_ints(const std::vector<std::int64_t>& values) {
  std::string out = "(";
  for (const auto value : values) out += p_int(value);
  return out + "t";
}
inline std::string p_storage(const std::string& key, std::int64_t count, const std::string& type = "FloatStorage") {
  return "(" + p_text("storage") + "ctorch\n" + type + "\n" + p_text(key) + p_text("cpu") + p_int(count) + "tQ";
}
inline std::string p_tensor(const std::string& storage, std::int64_t offset, const std::vector<std::int64_t>& sizes,
                            const std::vector<std::int64_t>& strides) {
  return "ctorch._utils\n_rebuild_tensor_v2\n(" + storage + p_int(offset) + p_ints(sizes) + p_ints(strides) +
         "\x89"
         "ccollections\nOrderedDict\n)RtR";
}
inline std::string pickle(const std::string& value) { return "\x80\x02" + value + "."; }
/// {"x": value}
inline std::string p_dict(const std::string& value) { return "}(" + p_text("x") + value + "u"; }

inline std::string pt_bytes(const std::string& pickled, const std::string& storage = std::string(48, '\0')) {
  return zip_bytes({{"archive/data.pkl", pickled}, {"archive/data/0", storage}, {"archive/version", "3\n"}});
}

}  // namespace steer::test
