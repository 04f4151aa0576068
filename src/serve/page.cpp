#include "serve/page.hpp"

namespace steer::serve::detail {

std::vector<Route> page_routes(Service&) {
  const auto answer = [](const HttpRequest&) {
    HttpReply reply{.type = "text/html; charset=utf-8", .body = kPage};
    // It needs nothing but this server, and no other page may frame it.
    reply.headers = {{"Content-Security-Policy",
                      "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
                      "img-src data:; frame-ancestors 'none'"}};
    return reply;
  };
  return {{.method = "GET", .path = "/", .handler = answer, .open = true}};
}

}  // namespace steer::serve::detail
