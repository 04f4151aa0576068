#include "io/npz_reader.hpp"

#include <ATen/ops/empty.h>

#include <nlohmann/json.hpp>

#include "core/format_text.hpp"
#include "io/npy_header.hpp"
#include "io/open_container.hpp"
#include "io/strict_json.hpp"

namespace steer::io::detail {
namespace {

class NpyReader : public TensorReader {
 public:
  NpyReader(const std::filesystem::path& path, std::shared_ptr<const MappedFile> file)
      : path_(path), file_(std::move(file)) {
    if (!file_) return;
    auto header = parse_npy_header(file_->bytes(), path.string());
    require(!is_no_number(header.descr), ErrorCode::unsupported, kOpenTensors,
            "expected an array of numbers but got numpy's {} ({}); convert it with astype", quote(header.descr),
            path.string());
    add(path.stem().string(), std::move(header), static_cast<std::int64_t>(file_->bytes().size()));
    index_names();
  }

  std::string_view format() const override { return "npy"; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const nlohmann::json& metadata() const override { return metadata_; }
  const std::filesystem::path& path() const override { return path_; }

 protected:
  /// The file's bytes [begin, end) counted from the first byte of the data, mapped or unpacked.
  virtual OwnedBytes data_of(std::size_t place, std::int64_t begin, std::int64_t end) const {
    const auto first = headers_[place].data_begin + begin;
    return {file_->bytes().subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(end - begin)), file_};
  }

  void add(std::string name, NpyHeader header, std::int64_t size) {
    if (header.data_bytes != size - header.data_begin)
      fail(ErrorCode::format, kOpenTensors, "expected {} bytes of data for shape {} of {} but got {} (tensor {} in {})",
           header.data_bytes, shape_text(header.shape), header.descr, size - header.data_begin, quote(name),
           path_.string());
    infos_.push_back({std::move(name), header.shape, header.descr, header.dtype, header.data_bytes});
    headers_.push_back(std::move(header));
  }

  at::Tensor read_rows_of(const TensorInfo& info, std::int64_t begin, std::int64_t end) const override {
    const auto place = place_of(info);
    if (headers_[place].fortran_order && info.shape.size() > 1) {
      // Column-major data are the row-major data of the transposed shape.
      const std::vector<std::int64_t> reversed(info.shape.rbegin(), info.shape.rend());
      const auto all = tensor_over(data_of(place, 0, info.bytes), reversed, info.dtype, info.name);
      std::vector<std::int64_t> order(reversed.size());
      for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(order.size() - 1 - i);
      return all.permute(order).narrow(0, begin, end - begin);
    }
    auto shape = info.shape;
    std::int64_t first = 0, last = info.bytes;
    if (!shape.empty() && shape[0] > 0) {
      first = info.bytes / shape[0] * begin;
      last = info.bytes / shape[0] * end;
      shape[0] = end - begin;
    }
    return tensor_over(data_of(place, first, last), shape, info.dtype, info.name);
  }

  at::Tensor raw_of(const TensorInfo& info) const override {
    return row_major_bytes(read_rows_of(info, 0, info.shape.empty() ? 1 : info.shape[0]));
  }

  std::filesystem::path path_;
  std::shared_ptr<const MappedFile> file_;
  std::vector<TensorInfo> infos_;
  std::vector<NpyHeader> headers_;
  nlohmann::json metadata_ = nlohmann::json::object();
};

class NpzReader final : public NpyReader {
 public:
  NpzReader(const std::filesystem::path& path, ZipArchive archive)
      : NpyReader(path, nullptr), archive_(std::move(archive)) {
    std::vector<std::byte> head(kMaxNpyHeader);
    for (const auto& entry : archive_.entries()) {
      const auto begin = std::span(head).first(std::min(head.size(), static_cast<std::size_t>(entry.size)));
      ZipEntryStream(archive_, entry).read(begin);
      auto header = parse_npy_header(begin, path.string() + ", entry " + quote(entry.name));
      auto name = entry.name.substr(0, entry.name.size() - 4);
      if (is_no_number(header.descr)) {
        metadata_[name] = format_text("numpy array of {}, passed over", header.descr);  // objects are never unpickled
        continue;
      }
      add(std::move(name), std::move(header), entry.size);
      entries_.push_back(&entry);
    }
    require(!infos_.empty() || metadata_.empty(), ErrorCode::unsupported, kOpenTensors,
            "expected arrays of numbers but got none beside {} ({}); save the numbers as arrays of their own",
            brief(metadata_), path.string());
    index_names();
  }

  std::string_view format() const override { return "npz"; }

 private:
  OwnedBytes data_of(std::size_t place, std::int64_t begin, std::int64_t end) const override {
    const auto& entry = *entries_[place];
    const auto first = headers_[place].data_begin + begin;
    const auto size = static_cast<std::size_t>(end - begin);
    if (!entry.deflated) return {entry.packed.subspan(static_cast<std::size_t>(first), size), archive_.file()};
    ZipEntryStream stream(archive_, entry);
    stream.skip(first);
    std::shared_ptr<std::byte[]> buffer(new std::byte[size]);
    const std::span<std::byte> rows(buffer.get(), size);
    stream.read(rows);
    return {rows, buffer};
  }

  ZipArchive archive_;
  std::vector<const ZipEntry*> entries_;  // beside `infos_`
};

}  // namespace

std::shared_ptr<const TensorReader> open_npy(const std::filesystem::path& path,
                                             std::shared_ptr<const MappedFile> file) {
  return std::make_shared<NpyReader>(path, std::move(file));
}

std::shared_ptr<const TensorReader> open_npz(const std::filesystem::path& path, ZipArchive archive) {
  return std::make_shared<NpzReader>(path, std::move(archive));
}

}  // namespace steer::io::detail
