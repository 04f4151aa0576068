#include "io/pytorch_reader.hpp"

#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>
#include <unordered_map>

#include "io/dtypes.hpp"
#include "io/open_container.hpp"
#include "io/pickle.hpp"

namespace steer::io::detail {
namespace {

using Json = nlohmann::json;

/// torch/serialization.py: MAGIC_NUMBER and PROTOCOL_VERSION (1001), each pickled.
constexpr std::string_view kLegacyHead("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.",
                                       21);

/// The bytes of one storage: an entry of the archive, or a part of the file.
struct Storage {
  std::int64_t bytes;
  const ZipEntry* entry;
  Bytes plain;
};

class PytorchReader final : public TensorReader {
 public:
  PytorchReader(const std::filesystem::path& path, ZipArchive archive) : path_(path), archive_(std::move(archive)) {
    const auto* entry = find_pytorch_pickle(*archive_);
    const auto root = entry->name.substr(0, entry->name.size() - std::string_view("data.pkl").size());
    if (const auto* order = archive_->find(root + "byteorder"); order && order->size <= 16)
      require(as_text(archive_->read(*order).bytes) == "little", ErrorCode::unsupported, kOpenTensors,
              "expected little-endian data but got {} ({})", quote(as_text(archive_->read(*order).bytes)),
              path.string());
    const auto folder = root + "data/";
    for (const auto& candidate : archive_->entries())
      if (candidate.name.starts_with(folder))
        storages_.emplace(candidate.name.substr(folder.size()), Storage{candidate.size, &candidate, {}});
    const auto pickle = archive_->read(*entry);
    auto budget = budget_for(pickle.bytes);
    document_ = unpickle(pickle.bytes, budget, path.string());
    list_tensors(budget);
  }

  PytorchReader(const std::filesystem::path& path, std::shared_ptr<const MappedFile> file)
      : path_(path), file_(std::move(file)) {
    auto rest = file_->bytes().subspan(kLegacyHead.size());
    auto budget = budget_for(rest.first(std::min<std::size_t>(rest.size(), std::size_t{64} << 20)));
    const auto next = [&] {
      std::size_t used = 0;
      auto document = unpickle(rest, budget, path.string(), &used);
      rest = rest.subspan(used);
      return document;
    };
    require_little_endian(next());
    document_ = next();
    find_legacy_storages(next(), rest);
    list_tensors(budget);
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
    const auto storage =
        place.storage->entry ? archive_->read(*place.storage->entry) : OwnedBytes{place.storage->plain, file_};
    const OwnedBytes part{storage.bytes.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(span * item)),
                          storage.owner};
    return at::as_strided(tensor_over(part, std::array{span}, info.dtype, info.name), sizes, place.strides);
  }

  at::Tensor raw_of(const TensorInfo& info) const override {
    return row_major_bytes(read_rows_of(info, 0, info.shape.empty() ? 1 : info.shape[0]));
  }

 private:
  struct Place {
    const Storage* storage;
    std::int64_t offset, elements;
    std::vector<std::int64_t> strides;
  };

  MemoryBudget budget_for(Bytes pickle) const {
    return MemoryBudget((std::size_t{24} << 20) + pickle.size(), kOpenTensors, path_.string());
  }

  [[noreturn]] void damaged(std::string_view what) const {
    fail(ErrorCode::format, kOpenTensors, "expected a file of torch.save but {} ({}); download or save it again", what,
         path_.string());
  }

  // The second pickle of an old file describes the machine that wrote it.
  void require_little_endian(const PickleDocument& machine) const {
    if (machine.root.kind != PickleKind::dict) damaged("its machine is not described");
    for (const auto& [key, value] : machine.dicts[machine.root.index])
      if (key.kind == PickleKind::text && machine.texts[key.index] == "little_endian")
        require(value.kind == PickleKind::boolean && value.integer == 1, ErrorCode::unsupported, kOpenTensors,
                "expected little-endian data but got another order ({}); save it again with a newer PyTorch",
                path_.string());
  }

  // After the last pickle, which lists the storages' keys, comes each storage: its count of elements, its data.
  void find_legacy_storages(const PickleDocument& keys, Bytes rest) {
    std::unordered_map<std::string_view, const PickleStorage*> described;
    for (const auto& storage : document_.storages) described.emplace(storage.key, &storage);
    if (keys.root.kind != PickleKind::list) damaged("the list of its storages is missing");
    ByteCursor cursor(rest, kOpenTensors, "the data of " + path_.string());
    for (const auto& key : keys.sequences[keys.root.index]) {
      if (key.kind != PickleKind::text) damaged("a storage's key is no text");
      const auto found = described.find(keys.texts[key.index]);
      if (found == described.end()) damaged("it lists a storage that no tensor uses");
      const auto count = cursor.read<std::int64_t>();
      const auto bytes = checked_multiply(count, static_cast<std::int64_t>(c10::elementSize(found->second->dtype)));
      if (!bytes || *bytes < 0 || count != found->second->count) damaged("a storage has another size than its tensors");
      const auto data = cursor.take(static_cast<std::uint64_t>(*bytes));
      if (!storages_.emplace(found->first, Storage{*bytes, nullptr, data}).second) damaged("it lists a storage twice");
    }
    if (cursor.left() != 0) damaged("there are bytes after its last storage");
  }

  void list_tensors(MemoryBudget& budget) {
    auto rest = walk(document_.root, "", 0, budget);
    if (rest) metadata_ = rest->is_object() ? std::move(*rest) : Json{{"value", std::move(*rest)}};
    document_ = {};
    index_names();
  }

  // Lists the tensors below `value`. Returns what is left without them; nothing if that is nothing.
  std::optional<Json> walk(const PickleValue& value, const std::string& name, int depth, MemoryBudget& budget) {
    require(depth <= 16, ErrorCode::format, kOpenTensors, "expected containers at most 16 deep but got more ({})",
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
        add(document_.tensors[value.index], name.empty() ? "tensor" : name, budget);
        return std::nullopt;
      case PickleKind::tuple:
      case PickleKind::list: {
        auto array = Json::array();
        bool plain = document_.sequences[value.index].empty();
        std::size_t place = 0;
        for (const auto& item : document_.sequences[value.index]) {
          auto rest = walk(item, child(std::to_string(place++)), depth + 1, budget);
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
          if (auto rest = walk(item, child(text), depth + 1, budget)) object[text] = std::move(*rest);
        }
        return object.empty() && !entries.empty() ? std::nullopt : std::optional(std::move(object));
      }
      case PickleKind::global:
      case PickleKind::storage:
        break;
    }
    fail(ErrorCode::unsupported, kOpenTensors,
         "expected tensors and plain values but got a bare type or storage at {} ({})", quote(name), path_.string());
  }

  std::string key_text(const PickleValue& key) const {
    if (key.kind == PickleKind::text) return document_.texts[key.index];
    if (key.kind == PickleKind::integer) return std::to_string(key.integer);
    fail(ErrorCode::unsupported, kOpenTensors,
         "expected dictionary keys that are strings or integers but got others ({})", path_.string());
  }

  void add(const PickleTensor& tensor, std::string name, MemoryBudget& budget) {
    budget.charge(sizeof(TensorInfo) + sizeof(Place) + 2 * name.size() +
                  4 * sizeof(std::int64_t) * tensor.sizes.size());
    const auto& storage = document_.storages[tensor.storage];
    const auto found = storages_.find(storage.key);
    if (found == storages_.end())
      fail(ErrorCode::format, kOpenTensors, "expected a storage {} with the data of tensor {} but got none ({})",
           quote(storage.key), quote(name), path_.string());
    const auto item = static_cast<std::int64_t>(c10::elementSize(storage.dtype));
    const auto stored = checked_multiply(storage.count, item);
    const auto elements = element_count(tensor.sizes);
    // The last element that the view reaches, and whether it lies in the storage.
    std::optional<std::int64_t> last = tensor.offset;
    bool sound = stored && *stored <= found->second.bytes && elements && tensor.offset >= 0;
    for (std::size_t i = 0; i < tensor.sizes.size() && sound && *elements > 0; ++i) {
      const auto reach = checked_multiply(tensor.sizes[i] - 1, tensor.strides[i]);
      last = reach && last ? checked_add(*last, *reach) : std::nullopt;
      sound = last && tensor.strides[i] >= 0;
    }
    if (!sound || (*elements > 0 && *last >= storage.count))
      fail(ErrorCode::format, kOpenTensors,
           "expected a view within the {} elements of its storage, {} bytes in the file, but got "
           "shape {} with strides {} from {} (tensor {} in {})",
           storage.count, found->second.bytes, shape_text(tensor.sizes), shape_text(tensor.strides), tensor.offset,
           quote(name), path_.string());
    // An expanded view would take more memory than the file has; nobody's weights are one.
    if (*elements > storage.count)
      fail(ErrorCode::unsupported, kOpenTensors,
           "expected a tensor of its own storage but got an expanded view of shape {} over {} "
           "elements (tensor {} in {}); save a contiguous copy",
           shape_text(tensor.sizes), storage.count, quote(name), path_.string());
    infos_.push_back(
        {std::move(name), tensor.sizes, std::string(dtype_name(storage.dtype)), storage.dtype, *elements * item});
    places_.push_back({&found->second, tensor.offset, *elements, tensor.strides});
  }

  std::filesystem::path path_;
  std::optional<ZipArchive> archive_;       // of a zip file
  std::shared_ptr<const MappedFile> file_;  // of an older one
  std::unordered_map<std::string, Storage> storages_;
  std::vector<TensorInfo> infos_;
  std::vector<Place> places_;
  Json metadata_ = Json::object();
  PickleDocument document_;  // while opening only
};

}  // namespace

const ZipEntry* find_pytorch_pickle(const ZipArchive& archive) {
  for (const auto& entry : archive.entries()) {
    const auto slash = entry.name.find('/');
    if (slash != std::string::npos && std::string_view(entry.name).substr(slash + 1) == "data.pkl") return &entry;
  }
  return nullptr;
}

bool looks_like_legacy_pytorch(Bytes file) { return as_text(file).starts_with(kLegacyHead); }

std::shared_ptr<const TensorReader> open_legacy_pytorch(const std::filesystem::path& path,
                                                        std::shared_ptr<const MappedFile> file) {
  return std::make_shared<PytorchReader>(path, std::move(file));
}

std::shared_ptr<const TensorReader> open_pytorch(const std::filesystem::path& path, ZipArchive archive) {
  return std::make_shared<PytorchReader>(path, std::move(archive));
}

}  // namespace steer::io::detail
