#pragma once

#include <functional>

#include "model/cuda/kernels.hpp"

namespace steer::model::detail::cuda {

/// The launches of some work, kept to be done again: the same kernels at the same addresses, whatever lies there then.
/// On a card a CUDA graph.
class Recording {
 public:
  /// Calls `work`, whose launches are kept and not done. It may not wait for the card, and what it reads or writes must
  /// stay where it is as long as this lives. @throws Error(unsupported) with CUDA's words; what `work` throws.
  explicit Recording(const std::function<void()>& work);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
  void launch(Stream stream) const;

 private:
  void* graph_ = nullptr;
};

}  // namespace steer::model::detail::cuda
