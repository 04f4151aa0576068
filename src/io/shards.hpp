#pragma once
// Weights saved in several files: with an index that says which tensor lies where (Hugging Face), or numbered
// "NAME-00001-of-00003.safetensors" and the like.

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <steer/io/tensor_reader.hpp>

#include "io/mapped_file.hpp"

namespace steer::io::detail {

/// What the name of a numbered part says: "model-00001-of-00002.safetensors".
struct ShardName {
  std::string stem;  ///< "model"
  std::int64_t number = 0, count = 0;
  std::string ending;  ///< ".safetensors"
  /// The file name of part `number`, from 1 on.
  std::string of(std::int64_t number) const;
};
std::optional<ShardName> parse_shard_name(std::string_view file_name);

/// Paths of all parts beside `first`. @throws Error(io) naming those that are missing.
std::vector<std::filesystem::path> require_shards(const std::filesystem::path& folder, const ShardName& name);

/// All parts of which `part` is one, as one reader. @throws Error(io) naming missing parts.
std::shared_ptr<const TensorReader> open_shards(const std::filesystem::path& part);

/// The files that a `*.safetensors.index.json` or `*.bin.index.json` names; a tensor that the index does not place in
/// a file is not part of the model.
std::shared_ptr<const TensorReader> open_sharded_index(const std::filesystem::path& index, const MappedFile& file);

}  // namespace steer::io::detail
