#include "serve/http.hpp"

#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

// As the distribution builds the library: the header and the library must agree.
#ifndef CPPHTTPLIB_OPENSSL_SUPPORT
#define CPPHTTPLIB_OPENSSL_SUPPORT
#define CPPHTTPLIB_ZLIB_SUPPORT
#endif
#include <httplib.h>

#include <steer/core/error.hpp>

#include "serve/http_socket.hpp"

namespace steer::serve::detail {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kBacklog = 1024;
constexpr std::string_view kWhere = "Server";

bool same_name(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

template <class Pairs>
std::string_view find_name(const Pairs& pairs, std::string_view name, std::string_view fallback) {
  const auto found = std::ranges::find_if(pairs, [&](const auto& pair) { return same_name(pair.first, name); });
  return found == pairs.end() ? fallback : std::string_view(found->second);
}

/// Whether a path is the route's, and what stands for its `{}`.
bool matches(std::string_view route, std::string_view path, std::vector<std::string>& captured) {
  captured.clear();
  while (true) {
    const auto hole = route.find("{}");
    if (hole == std::string_view::npos) return route == path;
    if (!path.starts_with(route.substr(0, hole))) return false;
    route.remove_prefix(hole + 2);
    path.remove_prefix(hole);
    const auto length = std::min(path.find('/'), path.size());
    if (length == 0) return false;
    captured.emplace_back(path.substr(0, length));
    path.remove_prefix(length);
  }
}

/// The status for a head that does not say plainly where its body ends; 0 for one that does.
int framing_fault(const httplib::Request& request) {
  const auto lengths = request.get_header_value_count("Content-Length");
  const auto codings = request.get_header_value_count("Transfer-Encoding");
  if (lengths > 1 || codings > 1 || (lengths && codings)) return 400;
  if (codings) return same_name(request.get_header_value("Transfer-Encoding"), "chunked") ? 0 : 501;
  if (!lengths) return 0;
  const std::string length = request.get_header_value("Content-Length");
  const bool digits = !length.empty() && length.size() < 19 &&
                      std::ranges::all_of(length, [](unsigned char c) { return std::isdigit(c); });
  return digits ? 0 : 400;
}

/// What is wrong with a request that no handler sees.
std::string_view fault_message(int status) {
  switch (status) {
    case 404:
      return "nothing is served at this path";
    case 405:
      return "this path is served for other methods";
    case 408:
      return "the request took too long to arrive";
    case 413:
      return "the request's body is larger than this server allows";
    case 414:
      return "the request's path is too long";
    case 415:
      return "expected a body without Content-Encoding";
    case 431:
      return "the request's headers are larger than this server allows";
    case 501:
      return "expected no Transfer-Encoding, or \"chunked\"";
    default:
      return "expected an HTTP/1.1 request whose head says plainly where its body ends";
  }
}

/// One connection, which its thread finds from within httplib's callbacks.
struct Connection {
  explicit Connection(int descriptor) : socket(descriptor) {}
  Socket socket;
  HttpRequest request{};
  const Route* route = nullptr;
  std::optional<HttpReply> refusal{};  ///< known before the body is read
  HttpReply reply{};
  bool answered = false;
  bool complete = false;  ///< the client has all of it
};

thread_local Connection* current = nullptr;

/// httplib's side of a socket.
class Bytes : public httplib::Stream {
 public:
  Bytes(Socket& socket, double stall_s) : socket_(socket), stall_s_(stall_s) {}
  bool is_readable() const override { return true; }
  bool is_writable() const override { return true; }
  ssize_t read(char* to, size_t size) override { return socket_.read(to, size); }
  ssize_t write(const char* from, size_t size) override {
    return socket_.write({from, size}, stall_s_) ? static_cast<ssize_t>(size) : -1;
  }
  void get_remote_ip_and_port(std::string& ip, int& port) const override { ip.clear(), port = 0; }
  void get_local_ip_and_port(std::string& ip, int& port) const override { ip.clear(), port = 0; }
  socket_t socket() const override { return 0; }  // it only compares this with what select() can take

 private:
  Socket& socket_;
  double stall_s_;
};

class SinkStream : public HttpStream {
 public:
  SinkStream(httplib::DataSink& sink, Connection& connection) : sink_(sink), connection_(connection) {}
  bool send(std::string_view bytes) override {
    return bytes.empty() || (ok_ = ok_ && sink_.write(bytes.data(), bytes.size()));
  }
  bool gone() override { return !ok_ || connection_.socket.gone(); }
  bool ok() const { return ok_; }

 private:
  httplib::DataSink& sink_;
  Connection& connection_;
  bool ok_ = true;
};

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const { return find_name(headers, name, {}); }
bool HttpRequest::has_header(std::string_view name) const {
  return std::ranges::any_of(headers, [&](const auto& pair) { return same_name(pair.first, name); });
}
std::string_view HttpRequest::argument(std::string_view name, std::string_view fallback) const {
  const auto found = std::ranges::find(query, name, &std::pair<std::string, std::string>::first);
  return found == query.end() ? fallback : std::string_view(found->second);
}

class HttpServer::Impl : public httplib::Server {
 public:
  Impl(const std::string& host, int port, const HttpLimits& limits, HttpPolicy policy)
      : limits_(limits), policy_(std::move(policy)) {
    listen_on(host, port);
    svr_sock_ = 0;  // httplib's own sign that it is not shutting down
    set_pre_routing_handler([this](const httplib::Request&, httplib::Response& out) {
      if (!current->refusal) return HandlerResponse::Unhandled;
      answer(out, *std::move(current->refusal));
      return HandlerResponse::Handled;
    });
    set_expect_100_continue_handler([this](const httplib::Request&, httplib::Response& out) {
      if (!current->refusal) return 100;
      answer(out, *std::move(current->refusal));
      return out.status;
    });
    const auto dispatch = [this](const httplib::Request& in, httplib::Response& out) {
      current->request.body = std::move(const_cast<httplib::Request&>(in).body);
      answer(out, current->route->handler(current->request));
    };
    Get("/", dispatch);
    Post("/", dispatch);
    Delete("/", dispatch);
    Options("/", dispatch);
    set_exception_handler([this](const httplib::Request&, httplib::Response& out, std::exception_ptr) {
      answer(out, policy_.refuse(500, "the server failed to answer"));
    });
    set_error_handler([this](const httplib::Request&, httplib::Response& out) {
      if (current->answered) return;
      const auto fault = current->socket.fault();
      const int status = fault == Socket::Fault::slow    ? 408
                         : fault == Socket::Fault::large ? (current->route ? 413 : 431)
                                                         : out.status;
      answer(out, policy_.refuse(status, fault_message(status)));
    });
  }

  void start() {
    acceptor_ = std::thread([this] { accept_all(); });
  }

  ~Impl() override {
    stop_all();
    ::close(wake_);
    ::close(listener_);
  }

  int port() const { return port_; }

  std::int64_t connections() const {
    const std::lock_guard lock(mutex_);
    return std::ssize(open_);
  }

  void close_listener() {
    const std::uint64_t one = 1;
    if (acceptor_.joinable() && ::write(wake_, &one, sizeof one) == sizeof one) acceptor_.join();
  }

  std::int64_t drain(double seconds) {
    close_listener();
    std::unique_lock lock(mutex_);
    ended_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return open_.empty(); });
    return std::ssize(open_);
  }

  void stop_all() {
    close_listener();
    std::unique_lock lock(mutex_);
    for (const Socket* socket : open_) socket->abort();
    ended_.wait(lock, [&] { return open_.empty(); });
  }

 private:
  void listen_on(const std::string& host, int port) {
    addrinfo hints{}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE;
    const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
    require(error == 0, ErrorCode::io, kWhere, "expected an address to listen on but got \"{}\": {}", host,
            ::gai_strerror(error));
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
    int problem = 0;
    for (const addrinfo* at = found; at; at = at->ai_next) {
      const int descriptor = ::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol);
      const int on = 1;
      if (descriptor >= 0) ::setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
      if (descriptor >= 0 && ::bind(descriptor, at->ai_addr, at->ai_addrlen) == 0 &&
          ::listen(descriptor, kBacklog) == 0) {
        listener_ = descriptor;
        break;
      }
      problem = errno;
      if (descriptor >= 0) ::close(descriptor);
    }
    require(listener_ >= 0, ErrorCode::io, kWhere, "expected to listen on {} port {} but got: {}", host, port,
            std::strerror(problem));
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&bound), &size);
    port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                              : reinterpret_cast<sockaddr_in&>(bound).sin_port);
    wake_ = ::eventfd(0, EFD_CLOEXEC);
    require(wake_ >= 0, ErrorCode::io, kWhere, "expected an event descriptor but got: {}", std::strerror(errno));
  }

  void accept_all() {
    while (true) {
      pollfd entries[] = {{wake_, POLLIN, 0}, {listener_, POLLIN, 0}};
      // Where all places are taken, connections wait in the kernel's queue.
      const bool full = connections() >= limits_.connections;
      if (::poll(entries, full ? 1 : 2, full ? 20 : -1) < 0 && errno != EINTR) break;
      if (entries[0].revents) break;
      if (full || !entries[1].revents) continue;
      const int descriptor = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (descriptor >= 0)
        begin(descriptor);
      else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ::shutdown(listener_, SHUT_RDWR);  // those that wait to be accepted are told
  }

  void begin(int descriptor) {
    auto connection = std::make_unique<Connection>(descriptor);
    Socket* socket = &connection->socket;
    {
      const std::lock_guard lock(mutex_);
      open_.insert(socket);
    }
    try {
      std::thread([this, connection = std::move(connection)]() mutable {
        serve(*connection);
        const Socket* ended = &connection->socket;
        const std::lock_guard lock(mutex_);  // to the end: then nothing of this thread touches the server
        open_.erase(ended);
        connection.reset();
        ended_.notify_all();
      }).detach();
    } catch (const std::system_error&) {  // no thread to be had: the connection was closed with its owner
      const std::lock_guard lock(mutex_);
      open_.erase(socket);
    }
  }

  void serve(Connection& connection) {
    current = &connection;
    const auto start = Clock::now();
    connection.socket.allow(limits_.head_bytes, limits_.head_s);
    connection.request.gone = [&connection] { return connection.socket.gone(); };
    try {
      Bytes bytes(connection.socket, limits_.write_s);
      bool closed = true;
      const bool written =
          process_request(bytes, true, closed, [this](httplib::Request& request) { read_head(request); });
      if (!connection.reply.stream) connection.complete = written;
      report(connection, start);
      connection.socket.finish();
    } catch (...) {
      report(connection, start);
      connection.socket.abort();  // memory is gone, or httplib's own trouble: the client sees a broken connection
    }
    current = nullptr;
  }

  /// Before the client can see the answer's end, so that what it asks next counts it.
  void report(Connection& connection, Clock::time_point start) {
    if (!std::exchange(connection.answered, false)) return;
    policy_.done(connection.request, connection.reply, std::chrono::duration<double>(Clock::now() - start).count(),
                 connection.complete);
  }

  /// Called when the head is there: decides whether the body is wanted.
  void read_head(httplib::Request& in) {
    HttpRequest& request = current->request;
    request.method = in.method;
    request.path = in.path;
    for (const auto& [name, value] : in.params) request.query.emplace_back(name, value);
    for (const auto& [name, value] : in.headers) request.headers.emplace_back(name, value);
    const bool known = find_route(request);
    const auto refuse = [&](int status) { current->refusal = policy_.refuse(status, fault_message(status)); };
    HttpReply reply;
    if (const int fault = framing_fault(in))
      refuse(fault);
    else if (in.has_header("Content-Encoding"))  // a small body may unpack to any size
      refuse(415);
    else if (in.get_header_value<std::uint64_t>("Content-Length") > limits_.body_bytes)
      refuse(413);
    else if (!policy_.admit(request, current->route, reply))
      current->refusal = std::move(reply);
    else if (!current->route)
      refuse(known ? 405 : 404);
    // httplib's own ideas of bodies, ranges and compression, and its table of regular expressions, are not used.
    for (const char* name : {"Content-Type", "Accept-Encoding", "Range"}) in.headers.erase(name);
    if (!in.has_header("Content-Length") && !in.has_header("Transfer-Encoding")) in.set_header("Content-Length", "0");
    in.ranges.clear();
    in.path.assign(1, '/');  // gcc 12 warns of an overlap where a literal is assigned
    current->socket.allow(limits_.body_bytes + (limits_.body_bytes >> 2) + 4096,
                          limits_.body_s);  // with chunks' frames
  }

  /// @return whether the path is any route's.
  bool find_route(HttpRequest& request) const {
    bool known = false;
    std::vector<std::string> captured;
    const std::string_view method = request.method == "HEAD" ? "GET" : std::string_view(request.method);
    for (const Route& route : policy_.routes) {
      if (!matches(route.path, request.path, captured)) continue;
      known = true;
      if (route.method != method) continue;
      current->route = &route;
      request.route = route.path;
      request.captured = std::move(captured);
      break;
    }
    return known;
  }

  void answer(httplib::Response& out, HttpReply reply) {
    Connection& connection = *current;
    policy_.seal(connection.request, reply);
    out.status = reply.status;
    for (const auto& [name, value] : reply.headers) out.set_header(name, value);
    if (!reply.stream) {
      out.set_content(reply.body, reply.type);
    } else {
      out.set_chunked_content_provider(reply.type, [&connection](std::size_t, httplib::DataSink& sink) {
        SinkStream stream(sink, connection);
        connection.reply.stream(stream);
        if (stream.ok()) sink.done();
        connection.complete = stream.ok();
        return stream.ok();
      });
    }
    connection.reply = std::move(reply);
    connection.answered = true;
  }

  HttpLimits limits_;
  HttpPolicy policy_;
  int listener_ = -1, wake_ = -1, port_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  std::set<const Socket*> open_;
  std::thread acceptor_;
};

HttpServer::HttpServer(const std::string& host, int port, const HttpLimits& limits, HttpPolicy policy)
    : impl_(std::make_unique<Impl>(host, port, limits, std::move(policy))) {}
HttpServer::~HttpServer() = default;
void HttpServer::start() { impl_->start(); }
int HttpServer::port() const { return impl_->port(); }
std::int64_t HttpServer::connections() const { return impl_->connections(); }
void HttpServer::close() { impl_->close_listener(); }
std::int64_t HttpServer::drain(double seconds) { return impl_->drain(seconds); }
void HttpServer::stop() { impl_->stop_all(); }

}  // namespace steer::serve::detail
