#include "serve/http.hpp"

#include <chrono>
#include <optional>

// As the distribution builds the library: the header and the library must agree.
#ifndef CPPHTTPLIB_OPENSSL_SUPPORT
#define CPPHTTPLIB_OPENSSL_SUPPORT
#define CPPHTTPLIB_ZLIB_SUPPORT
#endif
#include <httplib.h>

#include "serve/http_head.hpp"
#include "serve/http_listener.hpp"

namespace steer::serve::detail {
namespace {

using Clock = std::chrono::steady_clock;

/// One connection, which its thread finds from within httplib's callbacks.
struct Connection {
  Socket& socket;
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

class HttpServer::Impl : public httplib::Server {
 public:
  Impl(const std::string& host, int port, const HttpLimits& limits, HttpPolicy policy)
      : limits_(limits), policy_(std::move(policy)), listener_(host, port, limits.connections) {
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

  Listener& listener() { return listener_; }
  void start() {
    listener_.start([this](Socket& socket) {
      Connection connection{socket};
      serve(connection);
    });
  }

 private:
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
    if (const int fault = framing_fault(request))
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
  Listener listener_;  ///< last: its threads use the members before it
};

HttpServer::HttpServer(const std::string& host, int port, const HttpLimits& limits, HttpPolicy policy)
    : impl_(std::make_unique<Impl>(host, port, limits, std::move(policy))) {}
HttpServer::~HttpServer() = default;
void HttpServer::start() { impl_->start(); }
int HttpServer::port() const { return impl_->listener().port(); }
std::int64_t HttpServer::connections() const { return impl_->listener().open(); }
std::int64_t HttpServer::drain(double seconds) { return impl_->listener().drain(seconds); }
void HttpServer::stop() { impl_->listener().stop(); }

}  // namespace steer::serve::detail
