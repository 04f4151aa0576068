#pragma once
// Low-rank adapters as PEFT saves them (adapter_config.json and adapter_model.safetensors): merged into the base's
// weights when these are read, so that nothing else knows of them.

#include <filesystem>
#include <memory>
#include <string_view>

#include <steer/io/tensor_reader.hpp>

namespace steer::model::detail {

/// Whether the folder holds an adapter and no model.
bool is_adapter(const std::filesystem::path& folder);
/// @throws Error(unsupported) that says what the folder is and which base it needs.
[[noreturn]] void refuse_adapter_alone(const std::filesystem::path& folder, std::string_view where);

/// `base` with the adapter merged: W + scale B A, computed in f32 and rounded to the base's type, and the tensors that
/// the adapter holds whole in place of the base's. Formula and key names: PEFT 0.18, tuners/lora.
/// @throws Error(unsupported) naming the setting for kinds of adapters that are no plain low-rank sum, Error(shape |
///         format) naming a tensor that does not fit the base.
std::shared_ptr<const TensorReader> merge_adapter(std::shared_ptr<const TensorReader> base,
                                                  const std::filesystem::path& folder, std::string_view where);

}  // namespace steer::model::detail
