#include <steer/io/safetensors_writer.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "core/format_text.hpp"
#include "io/atomic_file.hpp"
#include "io/dtypes.hpp"

namespace steer {
namespace io::detail {

struct Slot {
  TensorSpec spec;
  std::int64_t begin = 0;  // from the start of the file
  std::int64_t bytes = 0;
  std::int64_t written = 0;  // bytes
  bool done = false;         // an empty tensor has no bytes that would tell
};

}  // namespace io::detail

namespace {

using io::detail::Slot;

constexpr std::string_view kWriter = "SafetensorsWriter";

const io::detail::Dtype& dtype_of(const TensorSpec& spec) {
  for (const auto& dtype : io::detail::kDtypes)
    if (dtype.type == spec.dtype && spec.dtype != at::ScalarType::Undefined) return dtype;
  fail(ErrorCode::argument, kWriter, "expected a type that safetensors has but got {} (tensor {})",
       c10::toString(spec.dtype), io::detail::quote(spec.name));
}

// Sets where each tensor lies and returns the header, padded so that the data are aligned.
std::string layout(std::vector<Slot>& slots, const std::map<std::string, std::string>& metadata) {
  std::vector<std::size_t> order(slots.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // The format allows no gaps, so widest types first keeps every tensor aligned. (The reference does the same.)
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return dtype_of(slots[a].spec).bits > dtype_of(slots[b].spec).bits; });
  std::int64_t end = 0;
  for (const auto place : order) {
    auto& slot = slots[place];
    const auto count = io::detail::element_count(slot.spec.shape);
    const auto bytes = count ? io::detail::checked_multiply(*count, dtype_of(slot.spec).bits / 8) : std::nullopt;
    const auto next = bytes ? io::detail::checked_add(end, *bytes) : std::nullopt;
    require(next.has_value(), ErrorCode::argument, kWriter,
            "expected a shape whose bytes fit 63 bits but got {} (tensor {})", io::detail::shape_text(slot.spec.shape),
            io::detail::quote(slot.spec.name));
    slot.begin = end;
    slot.bytes = *bytes;
    end = *next;
  }
  std::set<std::string_view> names{"__metadata__"};
  std::string text = "{";
  try {
    if (!metadata.empty()) text += "\"__metadata__\":" + nlohmann::json(metadata).dump();
    for (const auto& slot : slots) {
      require(names.insert(slot.spec.name).second, ErrorCode::argument, kWriter,
              "expected every tensor name once, and none \"__metadata__\", but got {}",
              io::detail::quote(slot.spec.name));
      text += format_text("{}{}:{}", text.size() > 1 ? "," : "", nlohmann::json(slot.spec.name).dump(),
                          nlohmann::json{{"dtype", dtype_of(slot.spec).name},
                                         {"shape", slot.spec.shape},
                                         {"data_offsets", {slot.begin, slot.begin + slot.bytes}}}
                              .dump());
    }
  } catch (const nlohmann::json::type_error& error) {
    fail(ErrorCode::argument, kWriter, "expected names and metadata in UTF-8 but got {}",
         io::detail::quote(error.what()));
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

struct SafetensorsWriter::State {
  State(const std::filesystem::path& path) : file(path, kWriter), name(path.string()) {}
  io::detail::AtomicFile file;
  std::string name;
  std::vector<Slot> slots;
  std::map<std::string, std::size_t, std::less<>> places;
};

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                                     const std::map<std::string, std::string>& metadata) {
  std::vector<Slot> slots;
  slots.reserve(tensors.size());
  for (auto& spec : tensors) slots.push_back({std::move(spec)});
  const auto header = layout(slots, metadata);
  const auto data_begin = static_cast<std::int64_t>(sizeof(std::uint64_t) + header.size());

  state_ = std::make_unique<State>(path);
  std::int64_t end = data_begin;
  for (auto& slot : slots) {
    slot.begin += data_begin;
    end = std::max(end, slot.begin + slot.bytes);
    state_->places.emplace(slot.spec.name, state_->places.size());
  }
  state_->slots = std::move(slots);
  state_->file.reserve(end);
  const std::uint64_t length = header.size();
  state_->file.write_at(0, std::as_bytes(std::span(&length, 1)));
  state_->file.write_at(sizeof length, io::detail::as_bytes(header));
}

SafetensorsWriter::~SafetensorsWriter() = default;
SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter& SafetensorsWriter::operator=(SafetensorsWriter&&) noexcept = default;

void SafetensorsWriter::write(std::string_view name, const at::Tensor& tensor) {
  const auto place = state_->places.find(name);
  if (place != state_->places.end()) {
    const auto& slot = state_->slots[place->second];
    require(tensor.sizes() == slot.spec.shape, ErrorCode::shape, "SafetensorsWriter::write",
            "expected shape {} but got {} (tensor {} of {})", io::detail::shape_text(slot.spec.shape),
            io::detail::shape_text(tensor.sizes()), io::detail::quote(name), state_->name);
    require(slot.written == 0 && !slot.done, ErrorCode::argument, "SafetensorsWriter::write",
            "expected a tensor to be written once but got {} again ({})", io::detail::quote(name), state_->name);
  }
  append_rows(name, tensor);
}

void SafetensorsWriter::append_rows(std::string_view name, const at::Tensor& rows) {
  const auto place = state_->places.find(name);
  require(place != state_->places.end(), ErrorCode::argument, "SafetensorsWriter::write",
          "expected a tensor that was declared but got {} ({})", io::detail::quote(name), state_->name);
  auto& slot = state_->slots[place->second];
  require(rows.scalar_type() == slot.spec.dtype, ErrorCode::argument, "SafetensorsWriter::write",
          "expected dtype {} but got {} (tensor {} of {})", c10::toString(slot.spec.dtype),
          c10::toString(rows.scalar_type()), io::detail::quote(name), state_->name);
  const auto data = rows.detach().cpu().contiguous();
  const auto bytes = static_cast<std::int64_t>(data.nbytes());
  const auto got = rows.sizes();
  const auto want = at::IntArrayRef(slot.spec.shape);
  require(got.size() == want.size() && (got.empty() || got.slice(1) == want.slice(1)) &&
              bytes <= slot.bytes - slot.written && (bytes > 0 || !slot.done),
          ErrorCode::shape, "SafetensorsWriter::write",
          "expected rows of shape {} with {} bytes left to write but got shape {} (tensor {} of {})",
          io::detail::shape_text(slot.spec.shape), slot.bytes - slot.written, io::detail::shape_text(got),
          io::detail::quote(name), state_->name);
  state_->file.write_at(slot.begin + slot.written,
                        {static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes()});
  slot.written += bytes;
  slot.done = slot.written == slot.bytes;
}

void SafetensorsWriter::finish() {
  for (const auto& slot : state_->slots)
    require(slot.written == slot.bytes, ErrorCode::argument, "SafetensorsWriter::finish",
            "expected every declared tensor to be written but got {} of {} bytes (tensor {} of {})", slot.written,
            slot.bytes, io::detail::quote(slot.spec.name), state_->name);
  state_->file.commit();
}

void save_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    require(tensor.defined(), ErrorCode::argument, "save_safetensors",
            "expected a tensor but got an undefined one (tensor {})", io::detail::quote(name));
    specs.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  }
  SafetensorsWriter writer(path, std::move(specs), metadata);
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
  writer.finish();
}

}  // namespace steer
