#include <steer/io/tensor_reader.hpp>

#include "io/gguf_reader.hpp"
#include "io/mapped_file.hpp"
#include "io/npz_reader.hpp"
#include "io/pytorch_reader.hpp"
#include "io/safetensors_reader.hpp"

namespace steer {
namespace {
constexpr std::string_view kWhere = "open_tensors";

std::filesystem::path weights_in(const std::filesystem::path& folder) {
  for (const auto* name : {"model.safetensors.index.json", "model.safetensors"})
    if (std::error_code ignored; std::filesystem::exists(folder / name, ignored)) return folder / name;
  fail(ErrorCode::io, kWhere,
       "expected model.safetensors or model.safetensors.index.json in the folder {} but got neither; "
       "name the weight file itself",
       folder.string());
}

std::shared_ptr<const TensorReader> open_archive(const std::filesystem::path& path,
                                                 std::shared_ptr<const detail::MappedFile> file) {
  detail::ZipArchive archive(std::move(file), path.string());
  if (detail::find_pytorch_pickle(archive)) return detail::open_pytorch(path, std::move(archive));
  for (const auto& entry : archive.entries())
    require(entry.name.ends_with(".npy"), ErrorCode::unsupported, kWhere,
            "expected a zip archive of npy files (npz) or of torch.save but got one with {} ({})",
            detail::quote(entry.name), path.string());
  return detail::open_npz(path, std::move(archive));
}
}  // namespace

std::shared_ptr<const TensorReader> open_tensors(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return open_tensors(weights_in(path));
  const auto mapped = detail::MappedFile::open(path, kWhere);
  const auto bytes = mapped->bytes();
  const auto text = detail::as_text(bytes.first(std::min<std::size_t>(bytes.size(), 64)));
  if (detail::looks_like_safetensors(bytes)) return detail::open_safetensors(path, mapped);
  if (text.starts_with("GGUF")) return detail::open_gguf(path, mapped);
  if (text.starts_with("\x93NUMPY")) return detail::open_npy(path, mapped);
  if (text.starts_with("PK\3\4") || text.starts_with("PK\5\6")) return open_archive(path, mapped);
  if (text.starts_with("\x80\2"))
    fail(ErrorCode::unsupported, kWhere,
         "expected a zip file of torch.save but got a bare pickle, as torch.save wrote before "
         "version 1.6 ({}); load it in Python and save it again",
         path.string());
  if (const auto first = text.find_first_not_of(" \t\r\n"); first != text.npos && text[first] == '{')
    return detail::open_sharded_safetensors(path, *mapped);
  fail(ErrorCode::unsupported, kWhere,
       "expected safetensors, a safetensors index, GGUF, npz, npy or a PyTorch zip file but got {} bytes that begin {} "
       "({})",
       bytes.size(), detail::quote(text.substr(0, 16)), path.string());
}

}  // namespace steer
