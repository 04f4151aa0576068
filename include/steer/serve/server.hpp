#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <steer/generate/engine.hpp>
#include <steer/sae/labels.hpp>
#include <steer/sae/sae.hpp>
#include <steer/steering/steering.hpp>
#include <steer/steering/vectors.hpp>

namespace steer {

/// An SAE that requests may name.
struct ServedSae {
  std::string name{};
  Sae sae;
  std::optional<FeatureLabels> labels{};  ///< for searches, and maximum activations
};

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8080;                          ///< 0: any free one
  std::string key{};                        ///< what requests must bring ("Authorization: Bearer KEY"); empty: nothing
  std::vector<std::string> cors{};          ///< origins whose pages may call; "*": any
  std::vector<std::string> names{"steer"};  ///< the model's in requests; answers have the first
  bool any_name = false;                    ///< a request may name any model and gets this one

  std::vector<ServedSae> saes{};                ///< the first one is meant where a request names none
  std::map<std::string, Steering> steerings{};  ///< that requests may name
  std::map<std::string, VectorSet> vectors{};   ///< that requests may name, by hook point

  EngineOptions engine{.max_rows = 64};
  std::int64_t max_waiting = 4096;  ///< rows under way and waiting; more are refused (429)
  std::int64_t max_choices = 128;   ///< rows of one request
  std::int64_t max_body_bytes = 32 << 20;
  std::int64_t max_connections = 1024;          ///< open at once; further ones wait
  std::int64_t max_tokens = 0;                  ///< new ones a row may ask for; 0: what the context holds
  double max_seconds = 3600;                    ///< for one answer, waiting included
  double head_seconds = 10;                     ///< for a request's head to arrive
  double body_seconds = 60;                     ///< for its body
  double stall_seconds = 30;                    ///< for which a client may take nothing of its answer
  std::function<void(std::string_view)> log{};  ///< one line of JSON a request, without contents; from any thread
};

/// A model over HTTP: OpenAI's API with a steering in each request that wants one, and readings of the model's inside
/// (docs/serving.md). Requests' rows are steered each in its own way and computed in one batch (`Engine`).
///
///     steer::Server server(model, {.port = 8080});
///     while (!signals.received()) std::this_thread::sleep_for(100ms);
///     server.stop(30);
///
/// Serves from construction to `stop`, on threads of its own.
class Server {
 public:
  /// @throws Error(io) when the address cannot be had; Error(config) for an address other than this machine's own
  ///         without a key, an SAE that does not fit the model, a model without a tokenizer; Error(argument) for
  ///         options out of range.
  Server(Model model, ServerOptions options);
  /// `stop(0)`.
  ~Server();
  Server(Server&&) noexcept;
  Server& operator=(Server&&) noexcept;

  /// The port it listens on.
  int port() const;
  /// Accepts nothing more, lets answers under way go on for so many seconds, then tells the rest and ends.
  /// @return how many answers were cut off.
  std::int64_t stop(double grace_seconds = 30);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steer
