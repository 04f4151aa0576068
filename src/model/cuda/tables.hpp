#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

namespace steer::model::detail::cuda {

/// Small tables for a kernel, one after the other in one copy to the device that nobody waits for.
class Tables {
 public:
  template <class T>
  std::size_t add(std::span<const T> items) {
    static_assert(alignof(T) <= 8);
    const std::size_t at = bytes_.size();
    bytes_.resize((at + items.size_bytes() + 7) / 8 * 8);
    if (!items.empty()) std::memcpy(bytes_.data() + at, items.data(), items.size_bytes());
    return at;
  }
  /// @param place  where they go, as many bytes; undefined: to new memory.
  void send(at::Device device, at::Tensor place = {}) {
    at::Tensor host = at::empty({static_cast<std::int64_t>(bytes_.size())},
                                at::TensorOptions().dtype(at::kByte).pinned_memory(device.is_cuda()));
    if (!bytes_.empty()) std::memcpy(host.data_ptr(), bytes_.data(), bytes_.size());
    sent_ = place.defined() ? place.copy_(host, /*non_blocking=*/true) : host.to(device, /*non_blocking=*/true);
  }
  std::int64_t bytes() const { return static_cast<std::int64_t>(bytes_.size()); }
  template <class T>
  const T* at(std::size_t offset) const {
    return reinterpret_cast<const T*>(static_cast<const std::byte*>(sent_.const_data_ptr()) + offset);
  }
  /// `count` bytes that were added at `offset`, where they were sent to.
  at::Tensor bytes(std::size_t offset, std::int64_t count) const {
    return sent_.narrow(0, static_cast<std::int64_t>(offset), count);
  }
  /// Floats that were added at `offset`, [rows, width].
  at::Tensor floats(std::size_t offset, std::int64_t rows, std::int64_t width) const {
    return bytes(offset, rows * width * static_cast<std::int64_t>(sizeof(float))).view(at::kFloat).view({rows, width});
  }

 private:
  std::vector<std::byte> bytes_;
  at::Tensor sent_;
};

}  // namespace steer::model::detail::cuda
