#include "io/view_reader.hpp"

#include "io/mapped_file.hpp"

namespace steer::io::detail {
namespace {

class ViewReader final : public TensorReader {
 public:
  ViewReader(std::string format, std::filesystem::path path, nlohmann::json metadata, std::vector<ViewTensor> tensors)
      : format_(std::move(format)), path_(std::move(path)), metadata_(std::move(metadata)) {
    infos_.reserve(tensors.size());
    sources_.reserve(tensors.size());
    for (auto& tensor : tensors) {
      infos_.push_back(std::move(tensor.info));
      sources_.push_back({std::move(tensor.rows), std::move(tensor.raw)});
    }
    index_names();
  }

  std::string_view format() const override { return format_; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const nlohmann::json& metadata() const override { return metadata_; }
  const std::filesystem::path& path() const override { return path_; }

 protected:
  at::Tensor read_rows_of(const TensorInfo& info, std::int64_t begin, std::int64_t end) const override {
    return sources_[place_of(info)].rows(begin, end);
  }
  at::Tensor raw_of(const TensorInfo& info) const override {
    const Source& source = sources_[place_of(info)];
    return source.raw ? source.raw() : row_major_bytes(source.rows(0, info.shape.empty() ? 1 : info.shape[0]));
  }

 private:
  struct Source {
    std::function<at::Tensor(std::int64_t, std::int64_t)> rows;
    std::function<at::Tensor()> raw;
  };
  std::string format_;
  std::filesystem::path path_;
  nlohmann::json metadata_;
  std::vector<TensorInfo> infos_;
  std::vector<Source> sources_;  // beside `infos_`
};

}  // namespace

ViewTensor tensor_of(std::shared_ptr<const TensorReader> from, const TensorInfo& info, std::string name) {
  // `info` is one of from's own, and lives as long.
  ViewTensor tensor{info,
                    [from, &info](std::int64_t begin, std::int64_t end) {
                      return info.shape.empty() ? from->read(info.name) : from->read_rows(info.name, begin, end);
                    },
                    [from, &info] { return from->raw(info.name); }};
  tensor.info.name = std::move(name);
  return tensor;
}

std::shared_ptr<const TensorReader> view_of_tensors(std::string format, std::filesystem::path path,
                                                    nlohmann::json metadata, std::vector<ViewTensor> tensors) {
  return std::make_shared<ViewReader>(std::move(format), std::move(path), std::move(metadata), std::move(tensors));
}

std::shared_ptr<const TensorReader> view_of_tensors(const TensorReader& file, std::vector<ViewTensor> tensors) {
  return view_of_tensors(std::string(file.format()), file.path(), file.metadata(), std::move(tensors));
}

}  // namespace steer::io::detail
