#include <steer/io/tensor_reader.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include <steer/core/error.hpp>

#include "io/bytes.hpp"
#include "io/dtypes.hpp"
#include "io/mapped_file.hpp"

namespace steer {
namespace {

// Levenshtein's distance, one row at a time.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const auto substituted = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

std::string nearest_names(const std::vector<TensorInfo>& tensors, std::string_view name) {
  // Bounds the work for files with very many or very long names; real ones are far below.
  constexpr std::size_t most = 20000, longest = 256, shown = 3;
  std::vector<std::pair<std::size_t, const std::string*>> near;
  for (const auto& info : tensors) {
    if (near.size() == most) break;
    near.emplace_back(edit_distance(name.substr(0, longest), std::string_view(info.name).substr(0, longest)),
                      &info.name);
  }
  if (near.empty()) return "it holds no tensor";
  const auto end = near.begin() + static_cast<std::ptrdiff_t>(std::min(shown, near.size()));
  std::partial_sort(near.begin(), end, near.end(), [](auto& x, auto& y) { return x.first < y.first; });
  std::string text = "nearest names: ";
  for (auto it = near.begin(); it != end; ++it)
    text += (it == near.begin() ? "" : ", ") + io::detail::quote(*it->second);
  return text;
}

class MemoryReader final : public TensorReader {
 public:
  MemoryReader(std::vector<std::pair<std::string, at::Tensor>> tensors, nlohmann::json metadata)
      : metadata_(metadata.is_null() ? nlohmann::json::object() : std::move(metadata)) {
    infos_.reserve(tensors.size());
    for (auto& [name, tensor] : tensors) {
      require(tensor.defined(), ErrorCode::argument, "tensors_in_memory",
              "expected a tensor but got an undefined one (tensor {})", io::detail::quote(name));
      infos_.push_back({name, tensor.sizes().vec(), std::string(io::detail::dtype_name(tensor.scalar_type())),
                        tensor.scalar_type(), static_cast<std::int64_t>(tensor.numel() * tensor.element_size())});
      tensors_.push_back(std::move(tensor));
    }
    index_names();
  }

  std::string_view format() const override { return "memory"; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const nlohmann::json& metadata() const override { return metadata_; }
  const std::filesystem::path& path() const override { return path_; }

 protected:
  at::Tensor read_rows_of(const TensorInfo& info, std::int64_t begin, std::int64_t end) const override {
    const auto& tensor = tensors_[place_of(info)];
    return info.shape.empty() || (begin == 0 && end == info.shape[0]) ? tensor : tensor.narrow(0, begin, end - begin);
  }
  at::Tensor raw_of(const TensorInfo& info) const override {
    return io::detail::row_major_bytes(tensors_[place_of(info)]);
  }

 private:
  std::vector<TensorInfo> infos_;
  std::vector<at::Tensor> tensors_;
  nlohmann::json metadata_;
  std::filesystem::path path_ = "memory";
};

}  // namespace

const TensorInfo* TensorReader::find(std::string_view name) const {
  const auto& all = tensors();
  const auto it =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](std::uint32_t place, std::string_view wanted) { return all[place].name < wanted; });
  return it != by_name_.end() && all[*it].name == name ? &all[*it] : nullptr;
}

const TensorInfo& TensorReader::info(std::string_view name) const {
  const auto* found = find(name);
  if (!found)
    fail(ErrorCode::format, "TensorReader::info", "expected a tensor {} but got none of that name ({}); {}",
         io::detail::quote(name), path().string(), nearest_names(tensors(), name));
  return *found;
}

at::Tensor TensorReader::read(std::string_view name) const {
  const auto& found = info(name);
  return read_rows_of(found, 0, found.shape.empty() ? 1 : found.shape[0]);
}

at::Tensor TensorReader::read_rows(std::string_view name, std::int64_t begin, std::int64_t end) const {
  const auto& found = info(name);
  const auto rows = found.shape.empty() ? 0 : found.shape[0];
  if (found.shape.empty() || begin < 0 || begin > end || end > rows)
    fail(ErrorCode::argument, "TensorReader::read_rows",
         "expected a range of rows within [0, {}) but got [{}, {}) (tensor {} of shape {})", rows, begin, end,
         io::detail::quote(name), io::detail::shape_text(found.shape));
  return read_rows_of(found, begin, end);
}

at::Tensor TensorReader::raw(std::string_view name) const { return raw_of(info(name)); }

void TensorReader::index_names() {
  const auto& all = tensors();
  by_name_.resize(all.size());
  std::iota(by_name_.begin(), by_name_.end(), 0u);
  std::sort(by_name_.begin(), by_name_.end(), [&](auto a, auto b) { return all[a].name < all[b].name; });
  for (std::size_t i = 1; i < by_name_.size(); ++i) {
    const auto& name = all[by_name_[i]].name;
    if (all[by_name_[i - 1]].name == name)
      fail(ErrorCode::format, "open_tensors", "expected every tensor name once but got {} twice ({})",
           io::detail::quote(name), path().string());
  }
}

std::shared_ptr<const TensorReader> tensors_in_memory(std::vector<std::pair<std::string, at::Tensor>> tensors,
                                                      nlohmann::json metadata) {
  return std::make_shared<MemoryReader>(std::move(tensors), std::move(metadata));
}

}  // namespace steer
