#include <steer/io/tensor_reader.hpp>

#include <algorithm>
#include <set>

#include "core/format_text.hpp"
#include "io/gguf_reader.hpp"
#include "io/impostors.hpp"
#include "io/mapped_file.hpp"
#include "io/npz_reader.hpp"
#include "io/open_container.hpp"
#include "io/pytorch_reader.hpp"
#include "io/safetensors_reader.hpp"
#include "io/shards.hpp"

namespace steer {
namespace {
namespace fs = std::filesystem;
using io::detail::kOpenTensors;

/// The names of a folder's files that look like weights.
std::vector<std::string> weights_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    for (const auto* ending : {".safetensors", ".gguf", ".npz", ".npy", ".pt", ".pth", ".bin", ".ckpt"})
      if (entry.path().extension() == ending) names.push_back(entry.path().filename().string());
  // Training leaves these beside a model.
  std::erase_if(names, [](const std::string& name) {
    return name == "training_args.bin" || name == "optimizer.pt" || name == "scheduler.pt" ||
           name.starts_with("rng_state") || name.starts_with("adapter_model.");
  });
  return names;
}

/// What a folder holds, in the reference's order of preference: a single file before an index, safetensors before
/// pickles; then numbered parts that have lost their index; then the only weights of any other name.
std::shared_ptr<const TensorReader> open_folder(const fs::path& folder) {
  std::error_code ignored;
  for (const auto* name :
       {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"})
    if (fs::exists(folder / name, ignored)) return open_tensors(folder / name);
  const auto files = weights_in(folder);
  std::set<std::string> sets;  // the first parts of numbered ones, and all others
  for (const auto& file : files) {
    const auto part = io::detail::parse_shard_name(file);
    sets.insert(part ? part->of(1) : file);
  }
  for (const auto* stem : {"model-00001-of-", "pytorch_model-00001-of-"})
    for (const auto& name : sets)
      if (name.starts_with(stem)) return io::detail::open_shards(folder / name);
  if (sets.size() == 1) return io::detail::open_shards(folder / *sets.begin());
  std::string list;
  constexpr std::size_t most = 4;
  std::size_t shown = 0;
  for (const auto& name : sets)
    if (shown++ < most) list += (list.empty() ? "" : ", ") + io::detail::quote(name);
  if (sets.size() > most) list += format_text(" and {} more", sets.size() - most);
  fail(ErrorCode::io, kOpenTensors,
       "expected model.safetensors, pytorch_model.bin, an index or numbered parts of one, or a single weight file in "
       "the "
       "folder but got {} ({}); {}",
       sets.empty() ? "none" : format_text("{} others", sets.size()), folder.string(),
       sets.empty() ? "it holds no weights: check the path, or download them into it"
                    : "give the path of one of them: " + list);
}

/// Containers of tensors that a file's own bytes tell; nullptr for others.
std::shared_ptr<const TensorReader> open_known(const fs::path& path,
                                               std::shared_ptr<const io::detail::MappedFile> file) {
  const auto text = io::detail::as_text(file->bytes().first(std::min<std::size_t>(file->bytes().size(), 64)));
  if (io::detail::looks_like_safetensors(file->bytes())) return io::detail::open_safetensors(path, std::move(file));
  if (text.starts_with("GGUF")) return io::detail::open_gguf(path, std::move(file));
  if (text.starts_with("\x93NUMPY")) return io::detail::open_npy(path, std::move(file));
  if (io::detail::looks_like_legacy_pytorch(file->bytes()))
    return io::detail::open_legacy_pytorch(path, std::move(file));
  if (!text.starts_with("PK\3\4") && !text.starts_with("PK\5\6")) return nullptr;
  io::detail::ZipArchive archive(std::move(file), path.string());
  if (io::detail::find_pytorch_pickle(archive)) return io::detail::open_pytorch(path, std::move(archive));
  for (const auto& entry : archive.entries())
    require(entry.name.ends_with(".npy"), ErrorCode::unsupported, kOpenTensors,
            "expected a zip archive of npy files (npz) or of torch.save but got one with {} ({}); {}",
            io::detail::quote(entry.name), path.string(),
            entry.name.find("constants.pkl") != std::string::npos || entry.name.find("/code/") != std::string::npos
                ? "it is a TorchScript program: save the state_dict instead"
                : "unpack it first");
  return io::detail::open_npz(path, std::move(archive));
}

bool looks_like_json(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  return first != text.npos && text[first] == '{';
}

[[noreturn]] void refuse(const fs::path& path, io::detail::Bytes bytes) {
  const auto text = io::detail::as_text(bytes.first(std::min<std::size_t>(bytes.size(), 64)));
  require(!text.empty(), ErrorCode::format, kOpenTensors,
          "expected weights but got an empty file ({}); download or save it again", path.string());
  if (const auto* impostor = io::detail::find_impostor(text))
    fail(ErrorCode::unsupported, kOpenTensors, "expected weights but got {} ({}); {}", impostor->what, path.string(),
         impostor->advice);
  if (text.size() >= 2 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5)
    fail(ErrorCode::unsupported, kOpenTensors,
         "expected a file of torch.save but got another pickle ({}); load it in Python and save it again, its "
         "tensors as safetensors",
         path.string());
  fail(ErrorCode::unsupported, kOpenTensors,
       "expected safetensors, a safetensors or bin index, GGUF, npz, npy or a PyTorch file but got {} bytes that begin "
       "{} ({}); check that this is the weight file",
       bytes.size(), io::detail::quote(text.substr(0, 16)), path.string());
}
}  // namespace

namespace io::detail {
std::shared_ptr<const TensorReader> open_container(const fs::path& path) {
  const auto mapped = MappedFile::open(path, kOpenTensors);
  if (auto reader = open_known(path, mapped)) return reader;
  refuse(path, mapped->bytes());
}
}  // namespace io::detail

std::shared_ptr<const TensorReader> open_tensors(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return open_folder(path);
  const auto mapped = io::detail::MappedFile::open(path, kOpenTensors);
  if (auto reader = open_known(path, mapped)) return reader;
  if (looks_like_json(io::detail::as_text(mapped->bytes()))) return io::detail::open_sharded_index(path, *mapped);
  refuse(path, mapped->bytes());
}

}  // namespace steer
