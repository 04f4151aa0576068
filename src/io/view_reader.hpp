#pragma once
// Tensors under one roof that lie elsewhere (shards, split files, other names) or are put together when they are read
// (merged, dequantised).

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <steer/io/tensor_reader.hpp>

namespace steer::io::detail {

/// A tensor of a view: what is known of it, and where its data come from.
struct ViewTensor {
  TensorInfo info;
  std::function<at::Tensor(std::int64_t begin, std::int64_t end)> rows;  ///< a 0-d tensor is one row
  std::function<at::Tensor()> raw;  ///< empty: it has no stored bytes, only those of what `rows` returns
};

/// A tensor of `from`, called `name` in the view.
ViewTensor tensor_of(std::shared_ptr<const TensorReader> from, const TensorInfo& info, std::string name);
/// The same under its own name.
inline ViewTensor tensor_of(std::shared_ptr<const TensorReader> from, const TensorInfo& info) {
  return tensor_of(std::move(from), info, info.name);
}
/// `reader` for views that it outlives.
inline std::shared_ptr<const TensorReader> unowned(const TensorReader& reader) {
  return {std::shared_ptr<const TensorReader>(), &reader};
}

/// A reader of just these tensors. @throws Error(format) on a duplicate name.
std::shared_ptr<const TensorReader> view_of_tensors(std::string format, std::filesystem::path path,
                                                    nlohmann::json metadata, std::vector<ViewTensor> tensors);
/// The same with the format, path and metadata of the file that the tensors come from.
std::shared_ptr<const TensorReader> view_of_tensors(const TensorReader& file, std::vector<ViewTensor> tensors);

}  // namespace steer::io::detail
