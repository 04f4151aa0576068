#pragma once
// HTTP/1.1 over TCP: sockets, deadlines and limits are ours, reading requests and writing answers cpp-httplib's.
// Nothing here knows what is served.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace steer::serve::detail {

/// A request as a handler sees it. Its connection serves this request alone.
struct HttpRequest {
  std::string method, path;  ///< the path decoded, without the query
  std::vector<std::pair<std::string, std::string>> query{}, headers{};
  std::string route{};                  ///< its path in the table; empty where nobody serves the request's
  std::vector<std::string> captured{};  ///< what stands for each `{}` of the route
  std::string body{};                   ///< empty while only the head is read
  std::function<bool()> gone{};         ///< whether the client has closed its side, or the connection broke
  /// The first of this name, ASCII case ignored; empty without one.
  std::string_view header(std::string_view name) const;
  bool has_header(std::string_view name) const;
  /// The first of this name; `fallback` without one.
  std::string_view argument(std::string_view name, std::string_view fallback = {}) const;
};

/// An answer under way, piece by piece.
class HttpStream {
 public:
  virtual ~HttpStream() = default;
  /// One chunk, written at once. @return false when the client is gone: stop then.
  virtual bool send(std::string_view bytes) = 0;
  virtual bool gone() = 0;
};

/// What a handler answers: a body, or a function that writes one.
struct HttpReply {
  int status = 200;
  std::string type = "application/json";
  std::string body{};
  std::function<void(HttpStream&)> stream{};  ///< called once, on the connection's thread
  std::vector<std::pair<std::string, std::string>> headers{};
  std::shared_ptr<const std::string> note{};  ///< members for the log's line; final when the answer is written
};

using HttpHandler = std::function<HttpReply(const HttpRequest&)>;

/// Who answers what. In a path each `{}` stands for one segment.
struct Route {
  std::string method, path;
  HttpHandler handler;
  bool open = false;  ///< without the key
};

struct HttpLimits {
  std::size_t head_bytes = 64 << 10;
  std::size_t body_bytes = 32 << 20;
  std::int64_t connections = 1024;  ///< open at once; further ones wait to be accepted
  double head_s = 10;               ///< from accepting a connection to the end of the head
  double body_s = 60;               ///< from there to the body's last byte
  double write_s = 30;              ///< for which a client may take nothing
};

/// What the server asks of those who know what is served.
struct HttpPolicy {
  std::vector<Route> routes;
  /// Looks at a request before its body is read. @return whether it may go on; if not, `reply` is the answer.
  std::function<bool(const HttpRequest& head, const Route* route, HttpReply& reply)> admit;
  /// The answer to what never came to a handler (a broken request, a path nobody serves).
  std::function<HttpReply(int status, std::string_view message)> refuse;
  /// Every answer, before it is written: headers that all have, the log. Not to throw.
  std::function<void(const HttpRequest&, HttpReply&)> seal;
  /// When all of it is written, or the client is gone. Not to throw.
  std::function<void(const HttpRequest&, const HttpReply&, double seconds, bool complete)> done;
};

/// A thread a connection, one request each ("Connection: close"): a connection that waits for its turn costs nothing
/// but a stack, and no request can smuggle another.
class HttpServer {
 public:
  /// Listens, and serves when `start` is called. @param port  0: any free one.
  /// @throws Error(io) when the address cannot be had.
  HttpServer(const std::string& host, int port, const HttpLimits& limits, HttpPolicy policy);
  /// `stop()`.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  void start();
  int port() const;
  std::int64_t connections() const;
  /// Accepts nothing more, and waits so long for connections to end. @return how many are left.
  std::int64_t drain(double seconds);
  /// Accepts nothing more, breaks connections that are left and waits for their threads.
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steer::serve::detail
