#pragma once
// What all families of routes share.

#include <atomic>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include <steer/generate/engine_loop.hpp>
#include <steer/model/model.hpp>
#include <steer/serve/server.hpp>

#include "serve/fields.hpp"
#include "serve/generation.hpp"
#include "serve/http.hpp"
#include "serve/metrics.hpp"

namespace steer::serve::detail {

struct Service {
  Service(Model model, ServerOptions options);

  Model model;
  ServerOptions options;
  EngineLoop loop;
  Metrics metrics;
  std::atomic<bool> stopping = false;  ///< rows that end now were cut off
  std::mutex reading;                  ///< one reading at a time: it computes beside the engine
  std::timed_mutex searching;          ///< and one search
  std::int64_t started = 0;            ///< seconds since 1970

  /// The first name; others are the same model.
  const std::string& name() const { return options.names.front(); }
  /// Reads "model": a served name, alone or as "NAME+STEERING" with a registered steering, for programs that can set
  /// nothing else. @return that steering; null without one. @throws ApiError(404) unless it is served.
  const Steering* check_model(Fields& fields) const;
  /// Of that name, file hash, or the first for an empty one. @throws ApiError(404 | 400) that lists what there is.
  const ServedSae& sae(std::string_view name, const std::string& param) const;
  /// @throws ApiError(400) for texts of so many bytes that no tokenizer could make the context hold them: before a
  ///         tokenizer spends minutes on them.
  void check_length(std::size_t bytes, const std::string& param) const;
  /// Text as a prompt; its special tokens are read as such. @throws as `check_length`.
  std::vector<std::int64_t> encode(std::string_view text, bool add_special = true) const;
  /// What a token writes after other text; bytes that are no UTF-8 alone become U+FFFD.
  std::string token_text(std::int64_t id) const;
  /// The same as bytes.
  std::string token_bytes(std::int64_t id) const;

 private:
  std::size_t longest_;               ///< bytes a token may stand for
  std::vector<std::int64_t> anchor_;  ///< a word for tokens to stand behind
};

/// Seconds since 1970.
std::int64_t unix_time();
/// Names in a message: "a, b", or "none".
std::string listed(const std::vector<std::string>& names);
/// A random id: "cmpl-5f0c...".
std::string random_id(std::string_view prefix);

// The families: each file answers some routes. A new one is declared here and named in server.cpp.
std::vector<Route> status_routes(Service& service);
std::vector<Route> completion_routes(Service& service);
std::vector<Route> chat_routes(Service& service);
std::vector<Route> token_routes(Service& service);
std::vector<Route> reading_routes(Service& service);
std::vector<Route> feature_routes(Service& service);
std::vector<Route> neuronpedia_routes(Service& service);

}  // namespace steer::serve::detail
