#include "io/pytorch_reader.hpp"

#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>
#include <unordered_map>

#include "io/dtypes.hpp"
#include "io/pickle.hpp"

namespace steer::io::detail {
namespace {

constexpr std::string_view kWhere = "open_tensors";
using Json = nlohmann::json;

class PytorchReader final : public TensorReader {
 public:
  PytorchReader(const std::filesystem::path& path, ZipArchive archive) : path_(path), archive_(std::move(archive)) {
    const auto* entry = find_pytorch_pickle(archive_);
    const auto root = entry->name.substr(0, entry->name.size() - std::string_view("data.pkl").size());
    if (const auto* order = archive_.find(root + "byteorder"); order && order->size <= 16)
      require(as_text(archive_.read(*order).bytes) == "little", ErrorCode::unsupported, kWhere,
              "expected little-endian data but got {} ({})", quote(as_text(archive_.read(*order).bytes)),
              path.string());
    for (const auto& candidate : archive_.entries()) entries_.emplace(candidate.name, &candidate);

    const auto pickle = archive_.read(*entry);
    MemoryBudget budget((std::size_t{24} << 20) + pickle.bytes.size(), kWhere, path.string());
    document_ = unpickle(pickle.bytes, budget, path.string());
    auto rest = walk(document_.root, "", 0, root + "data/", budget);
    if (rest) metadata_ = rest->is_object() ? std::move(*rest) : Json{{"value", std::move(*rest)}};
    document_ = {};
    entries_.clear();
    index_names();
  }

  std::string_view format() const override { return "pytorch"; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const Json& metadata() const override { return metadata_; }
  const std::filesystem::path& path() const override { return path_; }

 protected:
  at::Tensor read_rows_of(const TensorInfo& info, std::int64_t begin, std::int64_t end) const override {
    const auto& place = places_[place_of(info)];
    auto sizes = info.shape;
    if (!sizes.empty()) sizes[0] = end - begin;
    if (place.elements == 0 || begin == end) return at::empty(sizes, info.dtype);
    const auto item = static_cast<std::int64_t>(c10::elementSize(info.dtype));
    const auto first = (place.offset + (sizes.empty() ? 0 : begin * place.strides[0])) * item;
    // The elements from the first to the last one of these rows.
    std::int64_t span = 1;
    for (std::size_t i = 0; i < sizes.size(); ++i) span += (sizes[i] - 1) * place.strides[i];
    const auto storage = archive_.read(*place.storage);
    const OwnedBytes part{storage.bytes.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(span * item)),
                          storage.owner};
    return at::as_strided(tensor_over(part, std::array{span}, info.dtype, info.name), sizes, place.strides);
  }

  at::Tensor raw_of(const TensorInfo& info) const override {
    return row_major_bytes(read_rows_of(info, 0, info.shape.empty() ? 1 : info.shape[0]));
  }

 private:
  struct Place {
    const ZipEntry* storage;
    std::int64_t offset, elements;
    std::vector<std::int64_t> strides;
  };

  // Lists the tensors below `value`. Returns what is left without them; nothing if that is nothing.
  std::optional<Json> walk(const PickleValue& value, const std::string& name, int depth, const std::string& folder,
                           MemoryBudget& budget) {
    require(depth <= 16, ErrorCode::format, kWhere, "expected containers at most 16 deep but got more ({})",
            path_.string());
    budget.charge(2 * sizeof(Json));
    const auto child = [&](const std::string& key) { return name.empty() ? key : name + "." + key; };
    switch (value.kind) {
      case PickleKind::none:
        return Json(nullptr);
      case PickleKind::boolean:
        return Json(value.integer != 0);
      case PickleKind::integer:
        return Json(value.integer);
      case PickleKind::real:
        return Json(value.real);
      case PickleKind::text:
        budget.charge(64 + document_.texts[value.index].size());
        return Json(document_.texts[value.index]);
      case PickleKind::tensor:
        add(document_.tensors[value.index], name.empty() ? "tensor" : name, folder, budget);
        return std::nullopt;
      case PickleKind::tuple:
      case PickleKind::list: {
        auto array = Json::array();
        bool plain = document_.sequences[value.index].empty();
        std::size_t place = 0;
        for (const auto& item : document_.sequences[value.index]) {
          auto rest = walk(item, child(std::to_string(place++)), depth + 1, folder, budget);
          plain |= rest.has_value();
          array.push_back(rest ? std::move(*rest) : Json(nullptr));
        }
        return plain ? std::optional(std::move(array)) : std::nullopt;
      }
      case PickleKind::dict: {
        auto object = Json::object();
        const auto& entries = document_.dicts[value.index];
        for (const auto& [key, item] : entries) {
          const auto text = key_text(key);
          budget.charge(128 + 2 * text.size());
          if (auto rest = walk(item, child(text), depth + 1, folder, budget)) object[text] = std::move(*rest);
        }
        return object.empty() && !entries.empty() ? std::nullopt : std::optional(std::move(object));
      }
      case PickleKind::global:
      case PickleKind::storage:
        break;
    }
    fail(ErrorCode::unsupported, kWhere, "expected tensors and plain values but got a bare type or storage at {} ({})",
         quote(name), path_.string());
  }

  std::string key_text(const PickleValue& key) const {
    if (key.kind == PickleKind::text) return document_.texts[key.index];
    if (key.kind == PickleKind::integer) return std::to_string(key.integer);
    fail(ErrorCode::unsupported, kWhere, "expected dictionary keys that are strings or integers but got others ({})",
         path_.string());
  }

  void add(const PickleTensor& tensor, std::string name, const std::string& folder, MemoryBudget& budget) {
    budget.charge(sizeof(TensorInfo) + sizeof(Place) + 2 * name.size() +
                  4 * sizeof(std::int64_t) * tensor.sizes.size());
    const auto& storage = document_.storages[tensor.storage];
    const auto found = entries_.find(folder + storage.key);
    if (found == entries_.end())
      fail(ErrorCode::format, kWhere, "expected an entry {} with the data of tensor {} but got none ({})",
           quote(folder + storage.key), quote(name), path_.string());
    const auto item = static_cast<std::int64_t>(c10::elementSize(storage.dtype));
    const auto stored = checked_multiply(storage.count, item);
    const auto elements = element_count(tensor.sizes);
    // The last element that the view reaches, and whether it lies in the storage.
    std::optional<std::int64_t> last = tensor.offset;
    bool sound = stored && *stored <= found->second->size && elements && tensor.offset >= 0;
    for (std::size_t i = 0; i < tensor.sizes.size() && sound && *elements > 0; ++i) {
      const auto reach = checked_multiply(tensor.sizes[i] - 1, tensor.strides[i]);
      last = reach && last ? checked_add(*last, *reach) : std::nullopt;
      sound = last && tensor.strides[i] >= 0;
    }
    if (!sound || (*elements > 0 && *last >= storage.count))
      fail(ErrorCode::format, kWhere,
           "expected a view within the {} elements of its storage, {} bytes in the file, but got "
           "shape {} with strides {} from {} (tensor {} in {})",
           storage.count, found->second->size, shape_text(tensor.sizes), shape_text(tensor.strides), tensor.offset,
           quote(name), path_.string());
    // An expanded view would take more memory than the file has; nobody's weights are one.
    if (*elements > storage.count)
      fail(ErrorCode::unsupported, kWhere,
           "expected a tensor of its own storage but got an expanded view of shape {} over {} "
           "elements (tensor {} in {}); save a contiguous copy",
           shape_text(tensor.sizes), storage.count, quote(name), path_.string());
    infos_.push_back(
        {std::move(name), tensor.sizes, std::string(dtype_name(storage.dtype)), storage.dtype, *elements * item});
    places_.push_back({found->second, tensor.offset, *elements, tensor.strides});
  }

  std::filesystem::path path_;
  ZipArchive archive_;
  std::vector<TensorInfo> infos_;
  std::vector<Place> places_;
  Json metadata_ = Json::object();
  // Used while opening only.
  PickleDocument document_;
  std::unordered_map<std::string_view, const ZipEntry*> entries_;
};

}  // namespace

const ZipEntry* find_pytorch_pickle(const ZipArchive& archive) {
  for (const auto& entry : archive.entries()) {
    const auto slash = entry.name.find('/');
    if (slash != std::string::npos && std::string_view(entry.name).substr(slash + 1) == "data.pkl") return &entry;
  }
  return nullptr;
}

std::shared_ptr<const TensorReader> open_pytorch(const std::filesystem::path& path, ZipArchive archive) {
  return std::make_shared<PytorchReader>(path, std::move(archive));
}

}  // namespace steer::io::detail
