#include <steer/serve/server.hpp>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/features/activations.hpp>

#include "core/format_text.hpp"
#include "serve/auto_steer_search.hpp"
#include "serve/goodfire.hpp"
#include "serve/page.hpp"
#include "serve/service.hpp"

namespace steer {

using namespace serve::detail;

namespace {

constexpr std::string_view kWhere = "Server";

using Family = std::vector<Route> (*)(Service&);
constexpr Family kFamilies[] = {status_routes,        completion_routes, chat_routes,          token_routes,
                                reading_routes,       feature_routes,    goodfire_chat_routes, goodfire_feature_routes,
                                goodfire_auto_routes, page_routes,       auto_steer_routes,    neuronpedia_routes};

bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host == "[::1]" || host.starts_with("127.");
}

/// The host of "host:port", "[v6]:port" or either alone.
std::string_view without_port(std::string_view authority) {
  if (authority.starts_with('[')) return authority.substr(0, authority.find(']') + 1);
  return authority.substr(0, authority.rfind(':'));
}

/// Compares in a time that does not tell where they differ.
bool equal_secret(std::string_view a, std::string_view b) {
  unsigned difference = a.size() != b.size();
  for (std::size_t i = 0; i < a.size(); ++i)
    difference |= static_cast<unsigned char>(a[i]) ^ (b.empty() ? 0U : static_cast<unsigned char>(b[i % b.size()]));
  return difference == 0;
}

std::string iso_time() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  return format_text("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                     utc.tm_hour, utc.tm_min, utc.tm_sec);
}

}  // namespace

struct Server::Impl {
  Impl(Model model, ServerOptions options) : service(std::move(model), std::move(options)) {
    const auto& o = service.options;
    const HttpLimits limits{.body_bytes = static_cast<std::size_t>(o.max_body_bytes),
                            .connections = o.max_connections,
                            .head_s = o.head_seconds,
                            .body_s = o.body_seconds,
                            .write_s = o.stall_seconds};
    HttpPolicy policy;
    for (const Family family : kFamilies)
      for (Route& route : family(service)) add(policy, std::move(route));
    add(policy, {.method = "GET", .path = "/metrics", .handler = [this](const HttpRequest&) { return metrics(); }});
    policy.admit = [this](const HttpRequest& head, const Route* route, HttpReply& reply) {
      return admit(head, route, reply);
    };
    policy.refuse = [](int status, std::string_view message) {
      return error_reply(ApiError(status, std::string(message)));
    };
    policy.seal = [this](const HttpRequest& request, HttpReply& reply) { seal(request, reply); };
    policy.done = [this](const HttpRequest& request, const HttpReply& reply, double seconds, bool complete) {
      done(request, reply, seconds, complete);
    };
    http = std::make_unique<HttpServer>(o.host, o.port, limits, std::move(policy));
    http->start();
  }

  /// A route whose handler answers what it throws.
  static void add(HttpPolicy& policy, Route route) {
    route.handler = [inner = std::move(route.handler)](const HttpRequest& request) {
      try {
        return inner(request);
      } catch (...) {
        return error_reply(api_error(std::current_exception()));
      }
    };
    policy.routes.push_back(std::move(route));
  }

  HttpReply metrics() const {
    return {.type = "text/plain; version=0.0.4",
            .body = service.metrics.text(service.loop.load(), http->connections())};
  }

  /// Before a body is read: who asks, from where.
  bool admit(const HttpRequest& head, const Route* route, HttpReply& reply) const {
    const auto& o = service.options;
    const auto refuse = [&](int status, const std::string& message, const std::string& code = {}) {
      reply = error_reply(ApiError(status, message, {}, code));
      return false;
    };
    // A page of some other site can send requests to this machine, or make its own name mean this machine.
    if (const auto host = without_port(head.header("Host"));
        o.key.empty() && is_loopback(o.host) && !host.empty() && !is_loopback(host))
      return refuse(403, "expected a Host header that names this machine");
    const std::string_view origin = head.header("Origin");
    if (!origin.empty() && !allowed(head, origin))
      return refuse(403, "pages of this origin may not call; start the server with --cors ORIGIN");
    if (head.method == "OPTIONS") {
      reply = {.status = 204};
      reply.headers = {{"Access-Control-Allow-Methods", "GET, POST, DELETE"},
                       {"Access-Control-Allow-Headers", "Authorization, Content-Type"},
                       {"Access-Control-Max-Age", "600"}};
      return false;
    }
    if (o.key.empty() || (route && route->open)) return true;
    std::string_view given = head.header("Authorization");
    if (given.starts_with("Bearer ")) given.remove_prefix(7);
    if (given.empty()) given = head.header("X-SECRET-KEY");  // as Neuronpedia's clients bring it
    if (given.empty()) return refuse(401, "expected a key: \"Authorization: Bearer KEY\"", "invalid_api_key");
    if (!equal_secret(given, o.key)) return refuse(401, "the key is not this server's", "invalid_api_key");
    return true;
  }

  bool allowed(const HttpRequest& head, std::string_view origin) const {
    const auto& cors = service.options.cors;
    if (std::ranges::any_of(cors, [&](const auto& known) { return known == "*" || known == origin; })) return true;
    const std::string_view host = head.header("Host");
    return origin == format_text("http://{}", host) || origin == format_text("https://{}", host);
  }

  void seal(const HttpRequest& request, HttpReply& reply) const {
    reply.headers.emplace_back("X-Content-Type-Options", "nosniff");
    if (reply.status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
    if (reply.status == 429) reply.headers.emplace_back("Retry-After", "1");
    const std::string_view origin = request.header("Origin");
    if (origin.empty() || service.options.cors.empty() || !allowed(request, origin)) return;
    reply.headers.emplace_back("Access-Control-Allow-Origin", std::string(origin));
    reply.headers.emplace_back("Vary", "Origin");
  }

  void done(const HttpRequest& request, const HttpReply& reply, double seconds, bool complete) {
    service.metrics.count_request(request.route, reply.status, seconds);
    if (!service.options.log) return;
    const nlohmann::json path = request.path.substr(0, 200);
    service.options.log(
        format_text(R"({{"time":"{}","method":"{}","path":{},"status":{},"seconds":{:.4f},"complete":{}{}{}}})",
                    iso_time(), request.method, dump(path), reply.status, seconds, complete,
                    reply.note && !reply.note->empty() ? "," : "", reply.note ? *reply.note : ""));
  }

  Service service;
  std::unique_ptr<HttpServer> http;
};

Server::Server(Model model, ServerOptions options) {
  const auto& o = options;
  require(
      !o.key.empty() || is_loopback(o.host), ErrorCode::config, kWhere,
      "expected a key for an address other than this machine's own but got none for {}; set STEER_API_KEY, or listen "
      "on 127.0.0.1",
      o.host);
  require(o.port >= 0 && o.port < 65536, ErrorCode::argument, kWhere, "expected a port in [0, 65536) but got {}",
          o.port);
  require(!o.names.empty(), ErrorCode::argument, kWhere, "expected a name for the model but got none");
  require(o.max_waiting >= 1 && o.max_choices >= 1 && o.max_body_bytes >= 1 && o.max_connections >= 1 &&
              o.max_tokens >= 0 && o.max_seconds > 0 && o.head_seconds > 0 && o.body_seconds > 0 && o.stall_seconds > 0,
          ErrorCode::argument, kWhere, "expected limits above 0 (max_tokens: 0 for none) but got one that is not");
  model.tokenizer();  // or its error
  for (const auto& served : o.saes) {
    sae_point(model, served.sae);
    if (served.labels) served.labels->require_of(served.sae);
  }
  impl_ = std::make_unique<Impl>(std::move(model), std::move(options));
}
Server::~Server() {
  if (impl_) stop(0);
}
Server::Server(Server&&) noexcept = default;
Server& Server::operator=(Server&&) noexcept = default;

int Server::port() const { return impl_->http->port(); }

std::int64_t Server::stop(double grace_seconds) {
  const std::int64_t left = impl_->http->drain(grace_seconds);
  impl_->service.stopping = true;  // those that still wait are told, searches end
  if (left > 0) {
    impl_->service.loop.stop();
    impl_->http->drain(1);
  }
  impl_->http->stop();
  return left;
}

}  // namespace steer
