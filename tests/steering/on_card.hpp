#pragma once

#include <c10/core/Device.h>

#include <cstdlib>
#include <string>

#include "steering/runtime.hpp"

namespace steer::test {

/// Where the card's kernels are tested: STEER_TEST_DEVICE, "cuda:0" with bench/gpu/run.sh; else on the CPU, by
/// emulation.
inline at::Device card_device() {
  const char* device = std::getenv("STEER_TEST_DEVICE");
  return at::Device(device && *device ? std::string(device) : "cpu");
}

/// A build for a card has the kernels for that card alone.
#ifdef STEER_CUDA
inline constexpr bool kEmulatesCard = false;
#else
inline constexpr bool kEmulatesCard = true;
#endif

/// While it lives, steerings run by the card's kernels, thread by thread on the CPU.
class OnEmulatedCard {
 public:
  explicit OnEmulatedCard(bool on = true) {
    if (on) steering::detail::card_runner_for_testing = steering::detail::run_card;
  }
  ~OnEmulatedCard() { steering::detail::card_runner_for_testing = nullptr; }
  OnEmulatedCard(const OnEmulatedCard&) = delete;
  OnEmulatedCard& operator=(const OnEmulatedCard&) = delete;
};

}  // namespace steer::test
