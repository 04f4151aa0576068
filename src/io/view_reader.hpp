#pragma once
// Tensors of one or more readers under one roof: shards, split files, other names.

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <steer/io/tensor_reader.hpp>

namespace steer::io::detail {

/// A tensor and where it comes from.
struct ViewTensor {
  std::string name;
  std::shared_ptr<const TensorReader> from;
  std::string original;  ///< its name there
};

/// A reader of just these tensors. @throws Error(format) on a duplicate name.
std::shared_ptr<const TensorReader> view_of_tensors(std::string format, std::filesystem::path path,
                                                    nlohmann::json metadata, std::vector<ViewTensor> tensors);

}  // namespace steer::io::detail
