#include <steer/io/tensor_reader.hpp>

#include <algorithm>

#include "io/gguf_reader.hpp"
#include "io/mapped_file.hpp"
#include "io/npz_reader.hpp"
#include "io/pytorch_reader.hpp"
#include "io/safetensors_reader.hpp"

namespace steer {
namespace {
constexpr std::string_view kWhere = "open_tensors";

/// The files of a folder that look like weights, for a message.
std::string weights_named_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored))
    for (const auto* ending : {".safetensors", ".gguf", ".npz", ".npy", ".pt", ".pth", ".bin", ".ckpt"})
      if (entry.path().extension() == ending) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  std::string text;
  constexpr std::size_t most = 4;
  for (std::size_t i = 0; i < std::min(names.size(), most); ++i) text += (i ? ", " : "") + io::detail::quote(names[i]);
  return text + (names.size() > most ? fmt::format(" and {} more", names.size() - most) : "");
}

std::filesystem::path weights_in(const std::filesystem::path& folder) {
  for (const auto* name : {"model.safetensors.index.json", "model.safetensors"})
    if (std::error_code ignored; std::filesystem::exists(folder / name, ignored)) return folder / name;
  const auto others = weights_named_in(folder);
  fail(ErrorCode::io, kWhere,
       "expected model.safetensors or model.safetensors.index.json but got a folder with neither ({}); {}",
       folder.string(),
       others.empty() ? "it holds no weights: check the path" : "name one of its weight files: " + others);
}

/// Files that people have where weights should be.
struct Impostor {
  std::string_view begin, what, advice;
};
constexpr Impostor kImpostors[] = {
    {"version https://git-lfs", "a Git LFS pointer, not the file it stands for",
     "run `git lfs pull`, or download the file"},
    {"<!DOCTYPE", "a web page",
     "the server sent a page, not the file: download it again, signed in where the model asks for that"},
    {"<!doctype", "a web page",
     "the server sent a page, not the file: download it again, signed in where the model asks for that"},
    {"<html", "a web page",
     "the server sent a page, not the file: download it again, signed in where the model asks for that"},
    {"\x1f\x8b", "a gzip file", "unpack it first"},
    {"\x89HDF", "an HDF5 file", "save the weights as safetensors from Python"},
    {"lmgg", "a ggml file from before GGUF", "convert the model again with a newer llama.cpp"},
    {"tjgg", "a ggml file from before GGUF", "convert the model again with a newer llama.cpp"},
};

std::shared_ptr<const TensorReader> open_archive(const std::filesystem::path& path,
                                                 std::shared_ptr<const io::detail::MappedFile> file) {
  io::detail::ZipArchive archive(std::move(file), path.string());
  if (io::detail::find_pytorch_pickle(archive)) return io::detail::open_pytorch(path, std::move(archive));
  for (const auto& entry : archive.entries())
    require(entry.name.ends_with(".npy"), ErrorCode::unsupported, kWhere,
            "expected a zip archive of npy files (npz) or of torch.save but got one with {} ({})",
            io::detail::quote(entry.name), path.string());
  return io::detail::open_npz(path, std::move(archive));
}
}  // namespace

std::shared_ptr<const TensorReader> open_tensors(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return open_tensors(weights_in(path));
  const auto mapped = io::detail::MappedFile::open(path, kWhere);
  const auto bytes = mapped->bytes();
  const auto text = io::detail::as_text(bytes.first(std::min<std::size_t>(bytes.size(), 64)));
  if (io::detail::looks_like_safetensors(bytes)) return io::detail::open_safetensors(path, mapped);
  if (text.starts_with("GGUF")) return io::detail::open_gguf(path, mapped);
  if (text.starts_with("\x93NUMPY")) return io::detail::open_npy(path, mapped);
  if (text.starts_with("PK\3\4") || text.starts_with("PK\5\6")) return open_archive(path, mapped);
  if (text.size() >= 2 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5)
    fail(ErrorCode::unsupported, kWhere,
         "expected a zip file of torch.save but got a bare pickle, as torch.save wrote before "
         "version 1.6 ({}); load it in Python and save it again",
         path.string());
  require(!text.empty(), ErrorCode::format, kWhere,
          "expected weights but got an empty file ({}); download or save it again", path.string());
  for (const auto& impostor : kImpostors)
    if (text.starts_with(impostor.begin))
      fail(ErrorCode::unsupported, kWhere, "expected weights but got {} ({}); {}", impostor.what, path.string(),
           impostor.advice);
  if (const auto first = text.find_first_not_of(" \t\r\n"); first != text.npos && text[first] == '{')
    return io::detail::open_sharded_safetensors(path, *mapped);
  fail(ErrorCode::unsupported, kWhere,
       "expected safetensors, a safetensors index, GGUF, npz, npy or a PyTorch zip file but got {} bytes that begin {} "
       "({}); "
       "check that this is the weight file",
       bytes.size(), io::detail::quote(text.substr(0, 16)), path.string());
}

}  // namespace steer
