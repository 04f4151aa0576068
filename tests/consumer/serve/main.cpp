// Starts a server for the model that STEER_CONSUMER_MODEL names, on a free port of this machine, and stops it.
#include <cstdio>
#include <cstdlib>

#include <steer/serve/server.hpp>

int main() {
  steer::Server server(steer::Model::load(std::getenv("STEER_CONSUMER_MODEL")), {.port = 0});
  const bool listening = server.port() > 0;
  std::printf("serving: %s, %lld cut off\n", listening ? "yes" : "no", static_cast<long long>(server.stop(1)));
}
