#include "serve/http_head.hpp"

#include <algorithm>
#include <cctype>

#include "core/ascii.hpp"

namespace steer::serve::detail {

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

int framing_fault(const HttpRequest& request) {
  const auto count = [&](std::string_view name) {
    return std::ranges::count_if(request.headers, [&](const auto& pair) { return ascii_alike(pair.first, name); });
  };
  const auto lengths = count("Content-Length"), codings = count("Transfer-Encoding");
  if (lengths > 1 || codings > 1 || (lengths && codings)) return 400;
  if (codings) return ascii_alike(request.header("Transfer-Encoding"), "chunked") ? 0 : 501;
  if (!lengths) return 0;
  const std::string_view length = request.header("Content-Length");
  const bool digits = !length.empty() && length.size() < 19 &&
                      std::ranges::all_of(length, [](unsigned char c) { return std::isdigit(c); });
  return digits ? 0 : 400;
}

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

std::string_view HttpRequest::header(std::string_view name) const {
  const auto found = std::ranges::find_if(headers, [&](const auto& pair) { return ascii_alike(pair.first, name); });
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

bool HttpRequest::has_header(std::string_view name) const {
  return std::ranges::any_of(headers, [&](const auto& pair) { return ascii_alike(pair.first, name); });
}

std::string_view HttpRequest::argument(std::string_view name, std::string_view fallback) const {
  const auto found = std::ranges::find(query, name, &std::pair<std::string, std::string>::first);
  return found == query.end() ? fallback : std::string_view(found->second);
}

}  // namespace steer::serve::detail
