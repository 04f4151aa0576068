#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

namespace steer {

/// Writes a GGUF version 3 file, complete or not at all (atomic rename).
/// @param metadata  an object. Strings, bools, integers (u32, or i32 if negative; 64 bits where needed), fractions
///                  (f32) and arrays of one of these kinds.
/// @param tensors   [up to 4 dimensions], f32, f16, bf16, f64, i8, i16, i32 or i64; any device and strides.
/// @throws Error(argument) for a name twice or a value, type or shape that GGUF lacks; Error(io).
void save_gguf(const std::filesystem::path& path, const nlohmann::json& metadata,
               const std::vector<std::pair<std::string, at::Tensor>>& tensors);

/// Steering directions in the form that llama.cpp loads (`--control-vector`): GGUF, architecture "controlvector".
struct ControlVector {
  std::string model_hint{};  ///< the architecture it was made for, e.g. "llama"; may be empty
  std::map<std::int64_t, at::Tensor>
      directions;  ///< by layer L >= 1: f32 [d_model], added to `blocks.L.hook_resid_post`
};

/// Tensors `direction.L`, keys `controlvector.model_hint` and `controlvector.layer_count`.
/// @throws Error(argument) for no direction or a layer below 1 (llama.cpp refuses layer 0), Error(shape) for directions
///         that are not all of one width, Error(io).
void save_control_vector(const std::filesystem::path& path, const ControlVector& vector);

/// Reads what llama.cpp's cvector-generator, repeng or `save_control_vector` wrote.
/// @throws as open_tensors, and Error(format) for a file that is no control vector.
ControlVector load_control_vector(const std::filesystem::path& path);

}  // namespace steer
