#pragma once
// A server of the demo model, in this process.

#include <chrono>
#include <string>
#include <thread>

#include <steer/core/error.hpp>
#include <steer/generate/generate.hpp>
#include <steer/generate/score.hpp>
#include <steer/serve/server.hpp>

#include "client.hpp"
#include "source_dir.hpp"

namespace steer_test {

inline const steer::Model& demo_model() {
  static const auto model = steer::Model::load(std::string(steer_source_dir()) + "/examples/data/demo");
  return model;
}

inline const steer::Sae& demo_sae() {
  static const auto sae = steer::Sae::load(std::string(steer_source_dir()) + "/examples/data/demo/sae.safetensors");
  return sae;
}

inline steer::ServerOptions demo_options() {
  steer::ServerOptions options;
  options.port = 0;
  options.names = {"demo"};
  options.saes = {{.name = "demo", .sae = demo_sae()}};
  return options;
}

inline std::int64_t rows(int port) {
  const auto health = call(port, "GET", "/health").json();
  return health["rows_running"].get<std::int64_t>() + health["rows_waiting"].get<std::int64_t>();
}

/// Whether `condition` comes true within some seconds.
template <class Condition>
bool comes_true(const Condition& condition, double seconds = 20) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < until) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return false;
}

}  // namespace steer_test
