#pragma once

#include <memory>

#include <steer/io/tensor_reader.hpp>

namespace steer::io::detail {

/// The same tensors by the names that the module itself gives them. Training wraps modules, and each wrapper adds to
/// the names it saves: "module." (data parallel), "_orig_mod." (torch.compile), and a checkpoint "state_dict." or
/// "model_state_dict.", beside which the optimizer's state is left out.
/// @throws Error(format) naming both, when two names become one and the values differ.
std::shared_ptr<const TensorReader> without_wrappers(std::shared_ptr<const TensorReader> reader);

}  // namespace steer::io::detail
