#include <steer/core/workers.hpp>

#include <cstdlib>
#include <optional>

#include <steer/core/error.hpp>

namespace steer {

Workers Workers::from_environment() {
  const auto number = [](const char* name) -> std::optional<std::int64_t> {
    const char* value = std::getenv(name);
    if (!value || !*value) return std::nullopt;
    char* end = nullptr;
    const long long parsed = std::strtoll(value, &end, 10);
    require(*end == 0 && parsed >= 0, ErrorCode::config, "Workers::from_environment",
            "expected a whole number in {} but got \"{}\"", name, value);
    return parsed;
  };
  Workers workers;
  workers.count = number("WORLD_SIZE").value_or(1);
  require(workers.count >= 1, ErrorCode::config, "Workers::from_environment", "expected WORLD_SIZE of at least 1");
  if (workers.count == 1) return workers;
  const auto rank = number("RANK"), port = number("MASTER_PORT");
  const char* address = std::getenv("MASTER_ADDR");
  require(rank && port && address && *address, ErrorCode::config, "Workers::from_environment",
          "expected RANK, MASTER_ADDR and MASTER_PORT beside WORLD_SIZE={}; start with torchrun or set them",
          workers.count);
  require(*rank < workers.count && *port < 65536, ErrorCode::config, "Workers::from_environment",
          "expected RANK < WORLD_SIZE and MASTER_PORT < 65536 but got {} of {} and {}", *rank, workers.count, *port);
  workers.rank = *rank;
  workers.port = static_cast<std::uint16_t>(*port);
  workers.address = address;
  return workers;
}

}  // namespace steer
