#pragma once
// What stands for the card's runtime where its kernels run on the CPU. For one file of a program.

#include <ATen/TensorOperators.h>

#include <vector>

#include "model/cuda/emulation.hpp"
#include "model/cuda/recording.hpp"
#include "model/cuda/runtime.hpp"

namespace steer::model::detail::cuda {

Stream current_stream() { return nullptr; }
void check_launch(const char*) {}

/// Recordings made, and done again, so far.
inline std::int64_t recordings = 0, replays = 0;

Recording::Recording(const std::function<void()>& work) {
  auto kept = std::make_unique<std::vector<emulation::Block::Launch>>();
  emulation::Block::now().kept = kept.get();
  work();
  emulation::Block::now().kept = nullptr;
  graph_ = kept.release();
  ++recordings;
}
Recording::~Recording() { delete static_cast<std::vector<emulation::Block::Launch>*>(graph_); }
void Recording::launch(Stream) const {
  ++replays;
  for (const auto& each : *static_cast<const std::vector<emulation::Block::Launch>*>(graph_))
    emulation::Block::now().run(each.grid, each.size, each.kernel);
}

std::function<const std::uint8_t*()> fetch(const at::Tensor& bytes) {
  return [host = bytes.clone()] { return host.const_data_ptr<std::uint8_t>(); };
}

}  // namespace steer::model::detail::cuda
