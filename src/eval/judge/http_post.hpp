#pragma once

#include <cstddef>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace steer::eval::detail {

/// Where requests go.
struct Endpoint {
  std::string host;  ///< scheme://host[:port]
  std::string path;  ///< of chat/completions, with the query
};

/// From the URL of an OpenAI-compatible API: its base, with or without a query (`?api-version=...`), or the whole URL
/// of chat/completions. @throws Error(config) for what is no http(s) URL, and for one that holds a user, a password or
/// a key (they would be written to journals and reports); the message shows none of it.
Endpoint parse_endpoint(const std::string& url);

/// Seconds from `now` that a Retry-After header asks for: a number, or an HTTP date (RFC 9110, all three forms); 0 for
/// the past and for what cannot be read.
double retry_after(std::string_view header, std::time_t now);

/// One answer of a server, whatever its status; without one, why.
struct HttpReply {
  int status = 0;  ///< 0: no answer
  std::string body, retry_after, location;
  std::string problem;
};

/// A connection that is kept, for one thread.
class HttpPoster {
 public:
  HttpPoster(const Endpoint& endpoint, double timeout_s, std::size_t max_bytes);
  ~HttpPoster();
  /// Sends JSON. The whole exchange is over after the time limit, however slowly bytes come; a body that is longer
  /// (unpacked) than allowed is given up.
  /// @param header  name and value of a header that holds a key; none when empty.
  HttpReply post(const std::string& body, const std::pair<std::string, std::string>& header);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steer::eval::detail
