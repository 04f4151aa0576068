#include "model/tensor_view.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace steer::model::detail {
namespace {

class RenamedTensors final : public TensorReader {
 public:
  RenamedTensors(const TensorReader& reader, const std::function<std::string(const std::string&)>& rename)
      : reader_(reader), infos_(reader.tensors()) {
    for (auto& info : infos_) info.name = rename(info.name);
    index_names();
  }
  std::string_view format() const override { return reader_.format(); }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const nlohmann::json& metadata() const override { return reader_.metadata(); }
  const std::filesystem::path& path() const override { return reader_.path(); }

 protected:
  at::Tensor read_rows_of(const TensorInfo& info, std::int64_t begin, std::int64_t end) const override {
    const std::string& name = reader_.tensors()[place_of(info)].name;
    const bool all = info.shape.empty() || (begin == 0 && end == info.shape[0]);
    return all ? reader_.read(name) : reader_.read_rows(name, begin, end);
  }
  at::Tensor raw_of(const TensorInfo& info) const override {
    return reader_.raw(reader_.tensors()[place_of(info)].name);
  }

 private:
  const TensorReader& reader_;
  std::vector<TensorInfo> infos_;
};

}  // namespace

std::unique_ptr<const TensorReader> renamed_tensors(const TensorReader& reader,
                                                    const std::function<std::string(const std::string&)>& rename) {
  return std::make_unique<RenamedTensors>(reader, rename);
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
