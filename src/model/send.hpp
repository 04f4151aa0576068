#pragma once

#include <ATen/core/Tensor.h>

namespace steer::model::detail {

/// A small host tensor on `device`. To a card nobody waits for the copy: it comes before whatever is launched later.
inline at::Tensor send(const at::Tensor& host, at::Device device) {
  return device.is_cuda() ? host.pin_memory().to(device, /*non_blocking=*/true) : host.to(device);
}

}  // namespace steer::model::detail
