#include "model/tensor_view.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/view_reader.hpp"

namespace steer::model::detail {

std::shared_ptr<const TensorReader> renamed_tensors(const TensorReader& reader,
                                                    const std::function<std::string(const std::string&)>& rename) {
  std::vector<io::detail::ViewTensor> tensors;
  for (const auto& info : reader.tensors())
    tensors.push_back(io::detail::tensor_of(io::detail::unowned(reader), info, rename(info.name)));
  return io::detail::view_of_tensors(reader, std::move(tensors));
}

std::string wrapping_prefix(const TensorReader& reader) {
  const auto& tensors = reader.tensors();
  std::string prefix;
  for (bool more = !tensors.empty(); more;) {
    more = false;
    for (const char* wrapper : {"module.", "_orig_mod."}) {
      const std::string longer = prefix + wrapper;
      if (!std::all_of(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name.starts_with(longer); }))
        continue;
      prefix = longer;
      more = true;
    }
  }
  return prefix;
}

std::string tower_prefix(const TensorReader& reader, const std::string& wrapping) {
  for (const char* tower : {"language_model.model.", "model.language_model."})
    if (reader.contains(wrapping + tower + "embed_tokens.weight")) return tower;
  return {};
}

}  // namespace steer::model::detail
