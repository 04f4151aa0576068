// GGUF (github.com/ggml-org/ggml/blob/master/docs/gguf.md): magic, version, counts, key-value pairs, tensor
// descriptions, then the data from the next multiple of the alignment on.
#include "io/gguf_reader.hpp"

#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "io/dequantize.hpp"
#include "io/open_container.hpp"
#include "io/shards.hpp"
#include "io/strict_json.hpp"
#include "io/view_reader.hpp"

namespace steer::io::detail {
namespace {

using Json = nlohmann::json;

enum class ValueType : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64,
};

// Values come as nlohmann::json, which takes far more memory than small values take in the file, and so do tensor
// descriptions. The budget keeps a hostile file from turning that into an attack; the largest real vocabularies need
// half of it.
class HeaderParser {
 public:
  HeaderParser(ByteCursor& cursor, std::size_t file_bytes, const std::string& file)
      : cursor_(cursor), budget_((std::size_t{48} << 20) + file_bytes), file_(file) {}

  std::string string() {
    const auto text = as_text(cursor_.take(cursor_.read<std::uint64_t>()));
    charge(64 + (text.size() > 15 ? text.size() : 0));
    return std::string(text);
  }

  Json value(std::uint32_t type, int depth = 0) {
    switch (static_cast<ValueType>(type)) {
      case ValueType::u8:
        return cursor_.read<std::uint8_t>();
      case ValueType::i8:
        return cursor_.read<std::int8_t>();
      case ValueType::u16:
        return cursor_.read<std::uint16_t>();
      case ValueType::i16:
        return cursor_.read<std::int16_t>();
      case ValueType::u32:
        return cursor_.read<std::uint32_t>();
      case ValueType::i32:
        return cursor_.read<std::int32_t>();
      case ValueType::u64:
        return cursor_.read<std::uint64_t>();
      case ValueType::i64:
        return cursor_.read<std::int64_t>();
      case ValueType::f32:
        return cursor_.read<float>();
      case ValueType::f64:
        return cursor_.read<double>();
      case ValueType::boolean:
        return boolean();
      case ValueType::string:
        return string();
      case ValueType::array:
        return array(depth);
    }
    fail(ErrorCode::format, kOpenTensors, "expected a GGUF value type of 0 to 12 but got {} at byte {} ({})", type,
         cursor_.position(), file_);
  }

  /// Counts memory that what was read will take.
  void charge(std::size_t bytes) {
    require(bytes <= budget_, ErrorCode::format, kOpenTensors,
            "expected a header of a size that a model has but got more by byte {} ({})", cursor_.position(), file_);
    budget_ -= bytes;
  }

 private:
  bool boolean() {
    const auto byte = cursor_.read<std::uint8_t>();
    require(byte <= 1, ErrorCode::format, kOpenTensors, "expected a bool of 0 or 1 but got {} at byte {} ({})", byte,
            cursor_.position(), file_);
    return byte == 1;
  }

  static std::size_t least_size(std::uint32_t type) {
    constexpr std::size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
    return type < std::size(sizes) ? sizes[type] : 1;
  }

  Json array(int depth) {
    const auto type = cursor_.read<std::uint32_t>();
    const auto count = cursor_.read<std::uint64_t>();
    if (count > cursor_.left() / least_size(type) || depth >= 4)
      fail(ErrorCode::format, kOpenTensors,
           "expected an array that fits the file, at most 4 deep, but got {} values of type {} at "
           "byte {} ({}); the file is cut off or damaged: download it again",
           count, type, cursor_.position(), file_);
    charge(64 + static_cast<std::size_t>(count) * sizeof(Json));
    Json::array_t values;
    values.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) values.push_back(value(type, depth + 1));
    return values;
  }

  ByteCursor& cursor_;
  std::size_t budget_;
  const std::string& file_;
};

class GgufReader final : public TensorReader {
 public:
  GgufReader(const std::filesystem::path& path, std::shared_ptr<const MappedFile> file)
      : path_(path), file_(std::move(file)) {
    const auto name = path.string();
    ByteCursor cursor(file_->bytes(), kOpenTensors, "the GGUF header of " + name);
    cursor.take(4);
    const auto version = cursor.read<std::uint32_t>();
    require(version == 2 || version == 3, ErrorCode::unsupported, kOpenTensors,
            "expected GGUF version 2 or 3 in little-endian order but got {:#x} ({}); convert it again with a newer "
            "llama.cpp",
            version, name);
    const auto tensor_count = cursor.read<std::uint64_t>();
    const auto pair_count = cursor.read<std::uint64_t>();
    // The least bytes that a description and a pair take.
    constexpr std::uint64_t least_tensor = 8 + 4 + 4 + 8, least_pair = 8 + 4 + 1;
    require(tensor_count <= kMaxTensors && tensor_count <= cursor.left() / least_tensor &&
                pair_count <= cursor.left() / least_pair,
            ErrorCode::format, kOpenTensors, "expected counts that fit the file but got {} tensors and {} pairs ({})",
            tensor_count, pair_count, name);
    HeaderParser parser(cursor, file_->bytes().size(), name);
    read_pairs(parser, cursor, pair_count, name);
    read_descriptions(parser, cursor, tensor_count, name);
    index_names();
    check_ranges(cursor, name);
  }

  std::string_view format() const override { return "gguf"; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const Json& metadata() const override { return metadata_; }
  const std::filesystem::path& path() const override { return path_; }

 protected:
  at::Tensor read_rows_of(const TensorInfo& info, std::int64_t begin, std::int64_t end) const override {
    const auto& type = *types_[place_of(info)];
    if (type.dtype == at::ScalarType::Undefined)
      fail(ErrorCode::unsupported, "TensorReader::read",
           "expected a quantisation among Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 but "
           "got {} "
           "(tensor {} "
           "in {}); use another quantisation of this model",
           info.storage, quote(info.name), path_.string());
    const auto all = bytes_of(info);
    if (!type.quantised()) {
      const auto rows = rows_of(all, info.shape, begin, end);
      return tensor_over({rows.bytes, file_}, rows.shape, info.dtype, info.name);
    }
    auto shape = info.shape;
    shape[0] = end - begin;
    const auto values_a_row =
        info.shape[0] == 0 ? 0 : info.bytes / type.block_bytes * type.block_values / info.shape[0];
    // Rows of a tensor with one dimension are single values, and a range of them need not end at a block's border.
    const auto first = begin * values_a_row, last = end * values_a_row;
    const auto first_block = first / type.block_values;
    const auto end_block = (last + type.block_values - 1) / type.block_values;
    auto out = at::empty({(end_block - first_block) * type.block_values}, at::kFloat);
    dequantize(type, all.data() + first_block * type.block_bytes, end_block - first_block,
               out.mutable_data_ptr<float>());
    if (out.numel() != last - first) out = out.narrow(0, first - first_block * type.block_values, last - first).clone();
    return out.view(shape);
  }

  at::Tensor raw_of(const TensorInfo& info) const override {
    return tensor_over({bytes_of(info), file_}, std::array{info.bytes}, at::kByte, info.name);
  }

 private:
  void read_pairs(HeaderParser& parser, ByteCursor& cursor, std::uint64_t count, const std::string& name) {
    for (std::uint64_t i = 0; i < count; ++i) {
      auto key = parser.string();
      auto value = parser.value(cursor.read<std::uint32_t>());
      if (metadata_.contains(key))
        fail(ErrorCode::format, kOpenTensors, "expected every key once but got {} twice ({})", quote(key), name);
      metadata_.emplace(std::move(key), std::move(value));
    }
    if (const auto it = metadata_.find("general.alignment"); it != metadata_.end()) {
      const bool valid = it->is_number_unsigned() && std::has_single_bit(it->get<std::uint64_t>());
      require(valid && it->get<std::uint64_t>() >= 8 && it->get<std::uint64_t>() <= (1u << 30), ErrorCode::format,
              kOpenTensors, "expected general.alignment to be a power of two from 8 on but got {} ({})",
              it->is_number_unsigned() ? it->get<std::uint64_t>() : 0, name);
      alignment_ = it->get<std::int64_t>();
    }
  }

  void read_descriptions(HeaderParser& parser, ByteCursor& cursor, std::uint64_t count, const std::string& file) {
    parser.charge(static_cast<std::size_t>(count) *
                  (sizeof(TensorInfo) + sizeof(GgmlType*) + 2 * sizeof(std::uint64_t)));
    infos_.reserve(static_cast<std::size_t>(count));
    types_.reserve(static_cast<std::size_t>(count));
    begins_.reserve(static_cast<std::size_t>(count));
    for (std::uint64_t i = 0; i < count; ++i) {
      TensorInfo info;
      info.name = parser.string();
      const auto dimensions = cursor.read<std::uint32_t>();
      if (dimensions > 4)  // ggml's GGML_MAX_DIMS
        fail(ErrorCode::format, kOpenTensors, "expected at most 4 dimensions but got {} (tensor {} in {})", dimensions,
             quote(info.name), file);
      info.shape.resize(dimensions);
      // The file has the fastest dimension first.
      for (auto size = info.shape.rbegin(); size != info.shape.rend(); ++size)
        *size = static_cast<std::int64_t>(cursor.read<std::uint64_t>());
      const auto type_id = cursor.read<std::uint32_t>();
      const auto* type = find_ggml_type(type_id);
      if (!type)
        fail(ErrorCode::unsupported, kOpenTensors,
             "expected a tensor type that ggml defines but got {} (tensor {} in {}); "
             "use another quantisation of this model",
             type_id, quote(info.name), file);
      const auto values = element_count(info.shape);
      const auto row = info.shape.empty() ? 1 : info.shape.back();
      const auto bytes = values ? checked_multiply(*values / type->block_values, type->block_bytes) : std::nullopt;
      if (!bytes || row % type->block_values != 0)
        fail(ErrorCode::format, kOpenTensors,
             "expected a shape that fits blocks of {} values but got {} of {} (tensor {} in {})", type->block_values,
             shape_text(info.shape), type->name, quote(info.name), file);
      info.storage = type->name;
      info.dtype = type->dtype;
      info.bytes = *bytes;
      infos_.push_back(std::move(info));
      types_.push_back(type);
      begins_.push_back(cursor.read<std::uint64_t>());
    }
  }

  void check_ranges(const ByteCursor& cursor, const std::string& file) {
    const auto alignment = static_cast<std::uint64_t>(alignment_);
    const auto header_end = (cursor.position() + alignment - 1) / alignment * alignment;
    const auto size = file_->bytes().size();
    const auto available = size > header_end ? size - header_end : 0;
    std::vector<std::uint32_t> order(infos_.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(), [&](auto a, auto b) {
      return std::pair(begins_[a], infos_[a].bytes) < std::pair(begins_[b], infos_[b].bytes);
    });
    std::uint64_t end = 0;
    for (const auto place : order) {
      const auto begin = begins_[place], bytes = static_cast<std::uint64_t>(infos_[place].bytes);
      std::uint64_t next = 0;
      if (begin % alignment != 0 || begin < end || __builtin_add_overflow(begin, bytes, &next) ||
          next > std::uint64_t{INT64_MAX})
        fail(ErrorCode::format, kOpenTensors,
             "expected aligned tensor data that do not overlap but got {} bytes at {} (tensor {} in {}); the file is "
             "damaged: "
             "download it again",
             bytes, begin, quote(infos_[place].name), file);
      end = next;
    }
    if (end > available)
      fail(ErrorCode::format, kOpenTensors,
           "expected a file of {} bytes, as its header says, but got {} ({}); the file is cut off: download it again",
           header_end + end, size, file);
    data_ = available ? file_->bytes().subspan(header_end) : Bytes{};
  }

  Bytes bytes_of(const TensorInfo& info) const {
    return data_.subspan(begins_[place_of(info)], static_cast<std::size_t>(info.bytes));
  }

  std::filesystem::path path_;
  std::shared_ptr<const MappedFile> file_;
  Bytes data_;
  std::int64_t alignment_ = 32;
  std::vector<TensorInfo> infos_;
  std::vector<const GgmlType*> types_;
  std::vector<std::uint64_t> begins_;  // from the start of the data
  Json metadata_ = Json::object();
};

std::int64_t integer_of(const TensorReader& part, const char* key, std::int64_t missing) {
  const auto found = part.metadata().find(key);
  if (found == part.metadata().end()) return missing;
  const bool sound = found->is_number_integer() && *found >= 0 && *found < (std::int64_t{1} << 31);
  require(sound, ErrorCode::format, kOpenTensors, "expected {} to be a count but got {} ({})", key, brief(*found),
          part.path().string());
  return found->get<std::int64_t>();
}

/// All parts of a model that llama.cpp's gguf-split made. Each says which it is; the first holds the model's metadata.
std::shared_ptr<const TensorReader> join_parts(const std::filesystem::path& path,
                                               std::shared_ptr<const TensorReader> given, std::int64_t count) {
  const auto number = integer_of(*given, "split.no", 0) + 1;
  const auto name = parse_shard_name(path.filename().string());
  if (!name || name->number != number || name->count != count)
    fail(ErrorCode::io, kOpenTensors,
         "expected part {} of {} to be named NAME-{:05}-of-{:05}.gguf but got {}; give the parts the names they were "
         "made with and open the first",
         number, count, number, count, path.string());
  const auto files = require_shards(path.parent_path(), *name);
  std::vector<ViewTensor> tensors;
  std::shared_ptr<const TensorReader> first;
  for (std::int64_t part = 0; part < count; ++part) {
    const auto& file = files[static_cast<std::size_t>(part)];
    std::shared_ptr<const TensorReader> reader = given;
    if (part + 1 != number) {
      auto mapped = MappedFile::open(file, kOpenTensors);
      require(as_text(mapped->bytes()).starts_with("GGUF"), ErrorCode::format, kOpenTensors,
              "expected a GGUF file but got other bytes ({}); download it again", file.string());
      reader = std::make_shared<GgufReader>(file, std::move(mapped));
      require(integer_of(*reader, "split.no", -1) == part && integer_of(*reader, "split.count", -1) == count,
              ErrorCode::format, kOpenTensors,
              "expected part {} of {} but got part {} of {} ({}); take all parts of one model", part + 1, count,
              integer_of(*reader, "split.no", -1) + 1, integer_of(*reader, "split.count", -1), file.string());
    }
    if (part == 0) first = reader;
    for (const auto& info : reader->tensors()) tensors.push_back(tensor_of(reader, info));
    require(tensors.size() <= kMaxTensors, ErrorCode::format, kOpenTensors,
            "expected at most {} tensors but got more ({})", kMaxTensors, file.string());
  }
  const auto promised = integer_of(*first, "split.tensors.count", static_cast<std::int64_t>(tensors.size()));
  require(promised == static_cast<std::int64_t>(tensors.size()), ErrorCode::format, kOpenTensors,
          "expected {} tensors in all parts, as {} says, but got {}; download the parts again", promised,
          files[0].string(), tensors.size());
  auto metadata = first->metadata();
  return view_of_tensors("gguf", files[0], std::move(metadata), std::move(tensors));
}

}  // namespace

std::shared_ptr<const TensorReader> open_gguf(const std::filesystem::path& path,
                                              std::shared_ptr<const MappedFile> file) {
  auto reader = std::make_shared<GgufReader>(path, std::move(file));
  const auto count = integer_of(*reader, "split.count", 1);
  return count > 1 ? join_parts(path, std::move(reader), count) : std::move(reader);
}

}  // namespace steer::io::detail
