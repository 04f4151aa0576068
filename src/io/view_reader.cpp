#include "io/view_reader.hpp"

namespace steer::io::detail {
namespace {

class ViewReader final : public TensorReader {
 public:
  ViewReader(std::string format, std::filesystem::path path, nlohmann::json metadata, std::vector<ViewTensor> tensors)
      : format_(std::move(format)), path_(std::move(path)), metadata_(std::move(metadata)) {
    infos_.reserve(tensors.size());
    sources_.reserve(tensors.size());
    for (auto& tensor : tensors) {
      infos_.push_back(tensor.from->info(tensor.original));
      infos_.back().name = std::move(tensor.name);
      sources_.push_back({std::move(tensor.from), std::move(tensor.original)});
    }
    index_names();
  }

  std::string_view format() const override { return format_; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const nlohmann::json& metadata() const override { return metadata_; }
  const std::filesystem::path& path() const override { return path_; }

 protected:
  at::Tensor read_rows_of(const TensorInfo& info, std::int64_t begin, std::int64_t end) const override {
    const auto& [from, name] = sources_[place_of(info)];
    return info.shape.empty() ? from->read(name) : from->read_rows(name, begin, end);
  }
  at::Tensor raw_of(const TensorInfo& info) const override {
    const auto& [from, name] = sources_[place_of(info)];
    return from->raw(name);
  }

 private:
  struct Source {
    std::shared_ptr<const TensorReader> from;
    std::string name;
  };
  std::string format_;
  std::filesystem::path path_;
  nlohmann::json metadata_;
  std::vector<TensorInfo> infos_;
  std::vector<Source> sources_;
};

}  // namespace

std::shared_ptr<const TensorReader> view_of_tensors(std::string format, std::filesystem::path path,
                                                    nlohmann::json metadata, std::vector<ViewTensor> tensors) {
  return std::make_shared<ViewReader>(std::move(format), std::move(path), std::move(metadata), std::move(tensors));
}

}  // namespace steer::io::detail
