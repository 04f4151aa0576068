#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace steer {

/// A tensor that a file will hold.
struct TensorSpec {
  std::string name{};
  at::ScalarType dtype = at::kFloat;
  std::vector<std::int64_t> shape{};
};

/// Writes a safetensors file piece by piece, holding no more than one piece in memory. The file appears under its
/// name, complete and synced to disk, when `finish` returns; until then, and for ever if the program dies, the name
/// keeps what it had. Not safe to share between threads.
class SafetensorsWriter {
 public:
  /// Creates a temporary file of the final size beside `path`.
  /// @param tensors   everything the file will hold, in the order a reader lists it.
  /// @param metadata  becomes `__metadata__`; nothing is written for an empty map.
  /// @throws Error(argument) for a name twice, the name "__metadata__", text that is not UTF-8 or a type that
  ///         safetensors lacks; Error(io) if the folder cannot be written or the disk is full.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                    const std::map<std::string, std::string>& metadata = {});
  /// Removes the temporary file unless `finish` has returned.
  ~SafetensorsWriter();
  SafetensorsWriter(SafetensorsWriter&&) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) noexcept;

  /// Writes all of one tensor [shape of its spec], from any device and any strides. Tensors may come in any order.
  /// @throws Error(argument) for an unknown name, another dtype, or a second writing; Error(shape); Error(io).
  void write(std::string_view name, const at::Tensor& tensor);
  /// Writes the next rows [n, rest...] of a tensor, for one that does not fit into memory. Rows come in order.
  /// @throws as `write`, and Error(shape) past the last row.
  void append_rows(std::string_view name, const at::Tensor& rows);
  /// Syncs, and puts the file in its place. @throws Error(argument) that names a tensor not wholly written; Error(io).
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Writes tensors [any shape] that are in memory in one call. @throws as SafetensorsWriter.
void save_safetensors(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                      const std::map<std::string, std::string>& metadata = {});

}  // namespace steer
