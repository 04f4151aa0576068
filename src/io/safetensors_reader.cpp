// The safetensors format (github.com/huggingface/safetensors): 8 bytes of header length, a JSON object of
// name -> {dtype, shape, data_offsets}, then the data, which the tensors must cover without gap or overlap.
#include "io/safetensors_reader.hpp"

#include <map>
#include <numeric>

#include "io/dtypes.hpp"
#include "io/mapped_file.hpp"
#include "io/open_container.hpp"
#include "io/strict_json.hpp"

namespace steer::io::detail {
namespace {

constexpr std::uint64_t kMaxHeader = 100'000'000;  // the reference implementation's own limit
constexpr std::size_t kMaxMetadata = std::size_t{1} << 16;

struct Header {
  std::vector<TensorInfo> tensors;
  std::vector<std::int64_t> begins;  // from the start of the data, beside `tensors`
  std::map<std::string, std::string> metadata;
};

class HeaderEvents final : public JsonEvents {
 public:
  HeaderEvents(Header& header, std::string what) : JsonEvents(3, kOpenTensors, std::move(what)), header_(header) {}

 private:
  // keys(): [] -> the whole, [name] -> an entry, [name, field] -> a field of it
  bool in_metadata() const { return keys().size() >= 1 && keys()[0] == "__metadata__"; }

  void on_object() override {
    if (keys().size() > 1) refuse("an object");
    if (keys().empty()) return;
    if (in_metadata()) {
      if (std::exchange(has_metadata_, true)) refuse("__metadata__ twice");
      return;
    }
    if (header_.tensors.size() >= kMaxTensors) refuse("more tensors than any model has");
    header_.tensors.emplace_back().name = keys()[0];
    header_.begins.push_back(0);
    fields_ = {};
  }

  void on_object_end() override {
    if (keys().size() != 1 || in_metadata()) return;
    if (!fields_.dtype || !fields_.shape || fields_.offsets != 2)
      refuse("a tensor without all of dtype, shape, data_offsets");
  }

  void on_array() override {
    if (keys().size() != 2 || in_metadata()) refuse("an array");
    if (keys()[1] == "shape" && !fields_.shape)
      fields_.shape = true;
    else if (keys()[1] == "data_offsets" && !fields_.offset_list)
      fields_.offset_list = true;
    else
      refuse("an array of an unknown name, or a field twice");
  }

  void on_text(std::string&& text) override {
    if (keys().size() != 2) refuse("a string");
    if (in_metadata()) {
      if (header_.metadata.size() >= kMaxMetadata) refuse("more metadata than any model has");
      if (!header_.metadata.emplace(keys()[1], std::move(text)).second) refuse("a key twice");
      return;
    }
    if (keys()[1] != "dtype" || fields_.dtype) refuse("a string");
    if (!find_dtype(text)) refuse("the unknown dtype " + quote(text));
    header_.tensors.back().storage = std::move(text);
    fields_.dtype = true;
  }

  void on_unsigned(std::uint64_t value) override {
    if (keys().size() != 2 || in_metadata()) refuse("a number");
    if (value > std::uint64_t{INT64_MAX}) refuse("a number beyond 2^63 - 1");
    const auto number = static_cast<std::int64_t>(value);
    auto& tensor = header_.tensors.back();
    if (keys()[1] == "shape" && fields_.shape) {
      if (tensor.shape.size() >= kMaxDimensions) refuse("too many dimensions");
      tensor.shape.push_back(number);
    } else if (keys()[1] == "data_offsets" && fields_.offset_list && fields_.offsets < 2) {
      if (fields_.offsets++ == 0)
        header_.begins.back() = number;
      else
        tensor.bytes = number - header_.begins.back();
    } else {
      refuse("a number");
    }
  }

  struct Fields {
    bool dtype = false, shape = false, offset_list = false;
    int offsets = 0;
  };
  Fields fields_;
  bool has_metadata_ = false;
  Header& header_;
};

void check_ranges(Header& header, std::int64_t data_bytes, const std::string& file) {
  for (auto& tensor : header.tensors) {
    const auto& dtype = *find_dtype(tensor.storage);
    tensor.dtype = dtype.type;
    const auto count = element_count(tensor.shape);
    const auto bits = count ? checked_multiply(*count, dtype.bits) : std::nullopt;
    if (!bits || *bits % 8 != 0 || *bits / 8 != tensor.bytes)
      fail(ErrorCode::format, kOpenTensors,
           "expected a byte range that fits shape {} of {} but got {} bytes (tensor {} in {})",
           shape_text(tensor.shape), tensor.storage, tensor.bytes, quote(tensor.name), file);
  }
  std::vector<std::uint32_t> order(header.tensors.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](auto a, auto b) {
    return std::pair(header.begins[a], header.tensors[a].bytes) < std::pair(header.begins[b], header.tensors[b].bytes);
  });
  std::int64_t end = 0;
  for (const auto place : order) {
    const auto& tensor = header.tensors[place];
    const auto next = checked_add(end, tensor.bytes);
    if (header.begins[place] != end || !next)
      fail(ErrorCode::format, kOpenTensors,
           "expected tensor data that follow each other but got {} bytes at {} where {} was due (tensor {} in {}); the "
           "file is "
           "damaged: download or save it again",
           tensor.bytes, header.begins[place], end, quote(tensor.name), file);
    end = *next;
  }
  if (end != data_bytes)
    fail(ErrorCode::format, kOpenTensors, "expected {} bytes of tensor data, as the header says, but got {} ({}); {}",
         end, data_bytes, file,
         end > data_bytes ? "the file is cut off: download or save it again"
                          : "the file is damaged: download or save it again");
}

struct File {
  std::shared_ptr<const MappedFile> mapped;
  Bytes data;
  Header header;
};

File read_file(const std::filesystem::path& path, std::shared_ptr<const MappedFile> mapped) {
  File file{std::move(mapped), {}, {}};
  ByteCursor cursor(file.mapped->bytes(), kOpenTensors, path.string());
  const auto length = cursor.read<std::uint64_t>();
  require(length <= kMaxHeader, ErrorCode::format, kOpenTensors,
          "expected a safetensors header of at most {} bytes but got {} ({})", kMaxHeader, length, path.string());
  const auto text = as_text(cursor.take(length));
  HeaderEvents(file.header, "the safetensors header of " + path.string()).parse(text);
  file.data = file.mapped->bytes().subspan(cursor.position());
  check_ranges(file.header, static_cast<std::int64_t>(file.data.size()), path.string());
  return file;
}

class SafetensorsReader final : public TensorReader {
 public:
  SafetensorsReader(const std::filesystem::path& path, std::shared_ptr<const MappedFile> mapped) : path_(path) {
    auto file = read_file(path, std::move(mapped));
    infos_ = std::move(file.header.tensors);
    begins_ = std::move(file.header.begins);
    data_ = file.data;
    mapped_ = std::move(file.mapped);
    for (auto& [key, value] : file.header.metadata) metadata_[key] = std::move(value);
    index_names();
  }

  std::string_view format() const override { return "safetensors"; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const nlohmann::json& metadata() const override { return metadata_; }
  const std::filesystem::path& path() const override { return path_; }

 protected:
  at::Tensor read_rows_of(const TensorInfo& info, std::int64_t begin, std::int64_t end) const override {
    if (info.dtype == at::ScalarType::Undefined)
      fail(ErrorCode::unsupported, "TensorReader::read",
           "expected a type that libtorch has but got {} (tensor {} in {}); "
           "`raw` returns its bytes",
           info.storage, quote(info.name), path_.string());
    const auto rows = rows_of(bytes_of(info), info.shape, begin, end);
    return tensor_over({rows.bytes, mapped_}, rows.shape, info.dtype, info.name);
  }

  at::Tensor raw_of(const TensorInfo& info) const override {
    return tensor_over({bytes_of(info), mapped_}, std::array{info.bytes}, at::kByte, info.name);
  }

 private:
  Bytes bytes_of(const TensorInfo& info) const {
    return data_.subspan(static_cast<std::size_t>(begins_[place_of(info)]), static_cast<std::size_t>(info.bytes));
  }

  std::filesystem::path path_;
  std::vector<TensorInfo> infos_;
  std::vector<std::int64_t> begins_;  // of each tensor, from the start of the data
  Bytes data_;
  std::shared_ptr<const MappedFile> mapped_;
  nlohmann::json metadata_ = nlohmann::json::object();
};

}  // namespace

bool looks_like_safetensors(Bytes file) {
  if (file.size() < 9 || file[8] != std::byte{'{'}) return false;
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  return length <= kMaxHeader || length <= file.size() - 8;  // of a file that is cut off the reader says so
}

std::shared_ptr<const TensorReader> open_safetensors(const std::filesystem::path& path,
                                                     std::shared_ptr<const MappedFile> file) {
  return std::make_shared<SafetensorsReader>(path, std::move(file));
}

}  // namespace steer::io::detail
