// What a stranger's first program does: include the umbrella, call into the compiled part, catch an error.
#include <steer/steer.hpp>

int main() {
  fmt::print("steer {} with {} thread(s), hash of nothing {}\n", STEER_VERSION, steer::threads(),
             steer::content_hash(""));
  try {
    steer::set_threads(-1);
  } catch (const steer::Error& error) {
    fmt::print("{}\n", error.what());
    return 0;
  }
  return 1;
}
