#pragma once

#include <functional>
#include <memory>
#include <string>

#include <steer/io/tensor_reader.hpp>

namespace steer::model::detail {

/// The same tensors under other names. @param rename  a tensor's new name; may return it unchanged.
/// `reader` must outlive the view. @throws Error(format) if two tensors get one name.
std::shared_ptr<const TensorReader> renamed_tensors(const TensorReader& reader,
                                                    const std::function<std::string(const std::string&)>& rename);

/// What wraps every name of a file: "module." and "_orig_mod." of training frameworks, any number of times, or "".
std::string wrapping_prefix(const TensorReader& reader);
/// What stands in the place of "model." in the names of a text tower: "language_model.model." (published multimodal
/// files), "model.language_model." (transformers 5), or "".
std::string tower_prefix(const TensorReader& reader, const std::string& wrapping);

}  // namespace steer::model::detail
