#include <steer/io/gguf_writer.hpp>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include <steer/io/tensor_reader.hpp>

#include "core/format_text.hpp"
#include "io/atomic_file.hpp"
#include "io/dequantize.hpp"

namespace steer {
namespace {

constexpr std::string_view kSaveGguf = "save_gguf";
constexpr std::int64_t kAlignment = 32;  // GGUF's default
using Json = nlohmann::json;
using io::detail::Bytes;

// The numbers of GGUF's value types.
enum : std::uint32_t { kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9, kU64 = 10, kI64 = 11 };

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string& out, std::string_view text) {
  put<std::uint64_t>(out, text.size());
  out += text;
}

std::uint32_t type_of(const Json& value, const std::string& key) {
  switch (value.type()) {
    case Json::value_t::string:
      return kString;
    case Json::value_t::boolean:
      return kBool;
    case Json::value_t::number_float:
      return kF32;
    case Json::value_t::number_unsigned:
      return value.get<std::uint64_t>() <= UINT32_MAX ? kU32 : kU64;
    case Json::value_t::number_integer: {
      const auto number = value.get<std::int64_t>();
      if (number >= 0) return number <= std::int64_t{UINT32_MAX} ? kU32 : kU64;
      return number >= INT32_MIN ? kI32 : kI64;
    }
    case Json::value_t::array:
      return kArray;
    default:
      break;
  }
  fail(ErrorCode::argument, kSaveGguf, "expected a string, bool, number or array but got {} (key {})",
       value.type_name(), io::detail::quote(key));
}

// One type that holds every element; numbers widen to 64 bits or to f32.
std::uint32_t element_type(const Json& array, const std::string& key) {
  std::set<std::uint32_t> types;
  for (const auto& value : array) types.insert(type_of(value, key));
  if (types.empty()) return kF32;
  if (types.size() == 1 && *types.begin() != kArray) return *types.begin();
  const auto number = [](std::uint32_t t) { return t != kBool && t != kString && t != kArray; };
  if (!std::all_of(types.begin(), types.end(), number))
    fail(ErrorCode::argument, kSaveGguf, "expected an array of one kind of value but got several, or arrays (key {})",
         io::detail::quote(key));
  if (types.count(kF32)) return kF32;
  return types.count(kU64) ? kU64 : kI64;
}

void put_value(std::string& out, const Json& value, std::uint32_t type, const std::string& key) {
  switch (type) {
    case kString:
      return put_text(out, value.get_ref<const std::string&>());
    case kBool:
      return put<std::uint8_t>(out, value.get<bool>());
    case kF32:
      return put(out, value.get<float>());
    case kU32:
      return put(out, value.get<std::uint32_t>());
    case kI32:
      return put(out, value.get<std::int32_t>());
    case kU64:
      require(value.is_number_unsigned() || value.get<std::int64_t>() >= 0, ErrorCode::argument, kSaveGguf,
              "expected integers that one 64-bit type holds but got both negative ones and more than 2^63 (key {})",
              io::detail::quote(key));
      return put(out, value.get<std::uint64_t>());
    case kI64:
      return put(out, value.get<std::int64_t>());
    default:
      break;
  }
  const auto element = element_type(value, key);
  put(out, element);
  put<std::uint64_t>(out, value.size());
  for (const auto& item : value) put_value(out, item, element, key);
}

const io::detail::GgmlType& ggml_type_of(const at::Tensor& tensor, const std::string& name) {
  for (std::uint32_t id = 0; id <= 30; ++id)
    if (const auto* type = io::detail::find_ggml_type(id);
        type && !type->quantised() && type->dtype == tensor.scalar_type())
      return *type;
  fail(ErrorCode::argument, kSaveGguf, "expected a type that GGUF has but got {} (tensor {})",
       c10::toString(tensor.scalar_type()), io::detail::quote(name));
}

std::int64_t padded(std::int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

void save_gguf(const std::filesystem::path& path, const Json& metadata,
               const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  require(metadata.is_object() || metadata.is_null(), ErrorCode::argument, kSaveGguf,
          "expected metadata as an object but got {}", metadata.type_name());
  std::string header = "GGUF";
  put<std::uint32_t>(header, 3);
  put<std::uint64_t>(header, tensors.size());
  put<std::uint64_t>(header, metadata.size());
  for (const auto& [key, value] : metadata.items()) {
    put_text(header, key);
    const auto type = type_of(value, key);
    put(header, type);
    put_value(header, value, type, key);
  }
  std::set<std::string_view> names;
  std::vector<std::int64_t> begins;
  std::int64_t end = 0;
  for (const auto& [name, tensor] : tensors) {
    require(tensor.defined() && tensor.dim() <= 4 && names.insert(name).second, ErrorCode::argument, kSaveGguf,
            "expected a defined tensor of at most 4 dimensions under a name of its own but got tensor {}",
            io::detail::quote(name));
    put_text(header, name);
    put(header, static_cast<std::uint32_t>(tensor.dim()));
    for (auto i = tensor.dim(); i-- > 0;) put(header, tensor.size(i));
    put(header, ggml_type_of(tensor, name).id);
    put(header, end);
    begins.push_back(end);
    end += padded(static_cast<std::int64_t>(tensor.nbytes()));
  }
  header.resize(static_cast<std::size_t>(padded(static_cast<std::int64_t>(header.size()))), '\0');

  io::detail::AtomicFile file(path, kSaveGguf);
  const auto data_begin = static_cast<std::int64_t>(header.size());
  file.reserve(data_begin + end);
  file.write_at(0, io::detail::as_bytes(header));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto data = tensors[i].second.detach().cpu().contiguous();
    const auto bytes = static_cast<std::int64_t>(data.nbytes());
    file.write_at(data_begin + begins[i], {static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes()});
    // llama.cpp reads the padding of the last tensor too.
    const std::array<std::byte, kAlignment> zeros{};
    file.write_at(data_begin + begins[i] + bytes, Bytes(zeros).first(static_cast<std::size_t>(padded(bytes) - bytes)));
  }
  file.commit();
}

void save_control_vector(const std::filesystem::path& path, const ControlVector& vector) {
  require(!vector.directions.empty(), ErrorCode::argument, "save_control_vector",
          "expected at least one direction but got none");
  const auto width = vector.directions.begin()->second.numel();
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& [layer, direction] : vector.directions) {
    require(layer >= 1, ErrorCode::argument, "save_control_vector",
            "expected layers from 1 on (llama.cpp cannot steer layer 0) but got layer {}", layer);
    require(direction.dim() == 1 && direction.numel() == width && width > 0, ErrorCode::shape, "save_control_vector",
            "expected directions of shape [{}] but got {} (layer {})", width, io::detail::shape_text(direction.sizes()),
            layer);
    tensors.emplace_back(format_text("direction.{}", layer), direction.to(at::kFloat));
  }
  save_gguf(path,
            {{"general.architecture", "controlvector"},
             {"controlvector.model_hint", vector.model_hint},
             {"controlvector.layer_count", static_cast<std::int64_t>(tensors.size())}},
            tensors);
}

ControlVector load_control_vector(const std::filesystem::path& path) {
  constexpr std::string_view where = "load_control_vector";
  const auto reader = open_tensors(path);
  const auto& metadata = reader->metadata();
  ControlVector vector;
  if (const auto hint = metadata.find("controlvector.model_hint"); hint != metadata.end() && hint->is_string())
    vector.model_hint = hint->get<std::string>();
  for (const auto& info : reader->tensors()) {
    constexpr std::string_view prefix = "direction.";
    std::int64_t layer = 0;
    const std::string_view name = info.name;
    const auto* digits = name.data() + std::min(prefix.size(), name.size());
    const auto [stop, error] = std::from_chars(digits, name.data() + name.size(), layer);
    const bool numbered = name.substr(0, prefix.size()) == prefix && error == std::errc() &&
                          stop == name.data() + name.size() && layer >= 1;
    if (!numbered || info.shape.size() != 1 || info.dtype != at::kFloat)
      fail(ErrorCode::format, where,
           "expected f32 tensors direction.1, direction.2, ... of one dimension but got {} of shape {} ({})",
           io::detail::quote(name), io::detail::shape_text(info.shape), path.string());
    vector.directions[layer] = reader->read(info.name);
  }
  require(!vector.directions.empty(), ErrorCode::format, where,
          "expected tensors direction.1, direction.2, ... but got none ({})", path.string());
  return vector;
}

}  // namespace steer
