#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace steer {

/// What a container says about one tensor, known without reading its data.
struct TensorInfo {
  std::string name;
  std::vector<std::int64_t> shape;  ///< row-major, outermost first (GGUF's order is reversed to this)
  std::string storage;              ///< as the format names it: "F32", "BF16", "Q4_K", ...
  /// What `read` returns: f32 for quantised storage, Undefined for storage that steer cannot decode (`raw` works).
  at::ScalarType dtype = at::ScalarType::Undefined;
  std::int64_t bytes = 0;  ///< size of the stored data
};

/// Read access to a file (or several) of named tensors, whatever its format. Immutable and safe to share between
/// threads; tensors it returns keep the mapping alive, so a reader may be destroyed before them. Every size is checked
/// against the file when it is opened; a file that another process shortens afterwards is outside the contract (the
/// system then ends the process at the first touch of a page that is gone).
class TensorReader {
 public:
  virtual ~TensorReader() = default;

  /// The format, for messages and `inspect`: "safetensors", "gguf", "npz", "npy", "pytorch", "memory".
  virtual std::string_view format() const = 0;
  /// Every tensor, in the order of the file.
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  /// The container's own metadata: GGUF's key-value pairs, safetensors' `__metadata__`, else an empty object.
  virtual const nlohmann::json& metadata() const = 0;
  /// Where the bytes come from, for messages.
  virtual const std::filesystem::path& path() const = 0;

  /// @return nullptr when there is no tensor of that name.
  const TensorInfo* find(std::string_view name) const;
  bool contains(std::string_view name) const { return find(name) != nullptr; }
  /// @throws Error(format) that names the tensor, the file and the nearest names it does have.
  const TensorInfo& info(std::string_view name) const;

  /// The tensor [info.shape] on the CPU, of `info.dtype`. Zero copy where the file allows (mapped, read-only: writing
  /// to it is undefined); quantised data is dequantised to a new f32 tensor, on all threads.
  /// @throws Error(format) for an unknown name or data that are not what their type allows, Error(unsupported) for a
  ///         storage type that steer cannot decode.
  at::Tensor read(std::string_view name) const;
  /// Rows [begin, end) of the first dimension, reading and dequantising no others. Else as `read`.
  /// @throws Error(argument) for a range outside the tensor, or a tensor without dimensions.
  at::Tensor read_rows(std::string_view name, std::int64_t begin, std::int64_t end) const;
  /// The stored data [info.bytes], u8, in row-major order, mapped where the file has them so: the way to keep quantised
  /// blocks as they are. @throws Error(format) as `read`.
  at::Tensor raw(std::string_view name) const;

 protected:
  TensorReader() = default;
  TensorReader(const TensorReader&) = delete;
  TensorReader& operator=(const TensorReader&) = delete;
  /// `info` is an element of `tensors()` and 0 <= begin <= end <= its rows (a 0-d tensor is one row).
  /// @return [end - begin, rest...]; 0-d for a 0-d tensor.
  virtual at::Tensor read_rows_of(const TensorInfo& info, std::int64_t begin, std::int64_t end) const = 0;
  virtual at::Tensor raw_of(const TensorInfo& info) const = 0;
  /// Call once from the constructor when `tensors()` is complete. @throws Error(format) on a duplicate name.
  void index_names();
  /// The place of `info` in `tensors()`, for whatever a back end keeps beside it.
  std::size_t place_of(const TensorInfo& info) const { return static_cast<std::size_t>(&info - tensors().data()); }

 private:
  std::vector<std::uint32_t> by_name_;  // places in tensors(), sorted by name: no second copy of the names
};

/// Opens any supported container, chosen by its content, not by its name: a safetensors file, a
/// `*.safetensors.index.json`, a GGUF file, an npz or npy file, a PyTorch zip file, or a folder that holds
/// `model.safetensors[.index.json]`. Maps the file; reads headers only.
/// @throws Error(io) if it cannot be opened, Error(format) if its bytes are not what its format promises,
///         Error(unsupported) for a container steer does not read. Nothing in a file is ever executed.
std::shared_ptr<const TensorReader> open_tensors(const std::filesystem::path& path);

/// A reader over tensors [any shape] already in memory, for tests and for models built in code. `read` returns the
/// tensors themselves, sharing their memory. @throws Error(format) on a duplicate name.
std::shared_ptr<const TensorReader> tensors_in_memory(std::vector<std::pair<std::string, at::Tensor>> tensors,
                                                      nlohmann::json metadata);

}  // namespace steer
