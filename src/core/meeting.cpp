#include "core/meeting.hpp"

#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <steer/core/error.hpp>

namespace steer::core::detail {

c10::intrusive_ptr<c10d::TCPStore> meet(const Workers& workers, const char* where) {
  c10d::TCPStoreOptions options;
  options.port = workers.port;
  options.isServer = workers.rank == 0;
  options.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(workers.timeout_s * 1000));
  // torchrun keeps a store of its own at MASTER_PORT and says so: then all ranks are clients of that one.
  const char* agent = std::getenv("TORCHELASTIC_USE_AGENT_STORE");
  if (agent && std::string_view(agent) == "True") options.isServer = false;
  try {
    auto store = c10::make_intrusive<c10d::TCPStore>(workers.address, options);
    store->add("steer/met", 1);
    return store;
  } catch (const std::exception& error) {
    const std::string_view what = error.what();
    fail(ErrorCode::io, where, "expected to meet {} processes at {}:{} but got: {}", workers.count, workers.address,
         workers.port, what.substr(0, what.find('\n')));
  }
}

}  // namespace steer::core::detail
