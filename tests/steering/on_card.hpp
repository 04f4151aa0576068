#pragma once

#include "steering/runtime.hpp"

namespace steer::test {

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
