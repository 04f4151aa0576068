#include "eval/judge/http_post.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>

// As the distribution builds the library: the header and the library must agree.
#ifndef CPPHTTPLIB_OPENSSL_SUPPORT
#define CPPHTTPLIB_OPENSSL_SUPPORT
#define CPPHTTPLIB_ZLIB_SUPPORT
#endif
#include <httplib.h>

#include <steer/core/error.hpp>

#include "core/ascii.hpp"
#include "core/format_text.hpp"

namespace steer::eval::detail {
namespace {

using namespace std::chrono_literals;

/// The name of a query's parameter that looks like a secret.
std::optional<std::string> secret_in(std::string_view query) {
  while (!query.empty()) {
    const auto end = query.find('&');
    const std::string name(query.substr(0, std::min(end, query.find('='))));
    for (const char* part : {"key", "token", "secret", "passw", "sig", "auth", "credential"})
      if (ascii_lower(name).find(part) != std::string::npos) return name;
    if (end == std::string_view::npos) break;
    query.remove_prefix(end + 1);
  }
  return std::nullopt;
}

}  // namespace

Endpoint parse_endpoint(const std::string& url) {
  constexpr std::string_view kWhere = "HttpJudge", kPath = "/chat/completions";
  const std::string scheme = url.substr(0, url.find("://"));
  const bool http = ascii_lower(scheme) == "http" || ascii_lower(scheme) == "https";
  require(http && url.size() > scheme.size() + 3, ErrorCode::config, kWhere,
          "expected a URL that starts with http:// or https:// but got \"{}\"",
          url.find('@') == std::string::npos ? url.substr(0, 80) : "one of another form");
  std::string rest = url.substr(scheme.size() + 3);
  if (const auto fragment = rest.find('#'); fragment != std::string::npos) rest.resize(fragment);
  const auto slash = rest.find_first_of("/?");
  const std::string authority = rest.substr(0, slash);
  require(authority.find('@') == std::string::npos, ErrorCode::config, kWhere,
          "expected a URL without user and password but it has some before the host \"{}\"; put the key into the "
          "environment variable instead",
          authority.substr(authority.rfind('@') + 1));
  for (const char c : url)
    require(static_cast<unsigned char>(c) > ' ' && c != 0x7f, ErrorCode::config, kWhere,
            "expected a URL without spaces and line ends (host \"{}\")", authority.substr(0, authority.find(c)));
  require(!authority.empty(), ErrorCode::config, kWhere, "expected a host in the URL \"{}\"", url.substr(0, 80));
  std::string path = slash == std::string::npos ? "" : rest.substr(slash), query;
  if (const auto mark = path.find('?'); mark != std::string::npos) {
    query = path.substr(mark);
    path.resize(mark);
  }
  if (const auto secret = secret_in(std::string_view(query).substr(query.empty() ? 0 : 1)))
    fail(ErrorCode::config, kWhere,
         "expected a URL without a key but its query has \"{}\"; put the key into the environment variable instead",
         *secret);
  while (path.ends_with('/')) path.pop_back();
  if (!path.ends_with(kPath)) path += kPath;
  return {ascii_lower(scheme) + "://" + authority, path + query};
}

double retry_after(std::string_view header, std::time_t now) {
  double seconds = 0;
  const auto [end, error] = std::from_chars(header.data(), header.data() + header.size(), seconds);
  if (error == std::errc() && end == header.data() + header.size())
    return std::isfinite(seconds) ? std::max(0.0, seconds) : 0;
  // "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"
  const std::string text(header.substr(0, 64));
  std::tm time{};
  char month[4] = {};
  const auto scan = [&](const char* format, auto*... into) {
    return std::sscanf(text.c_str(), format, into...) == static_cast<int>(sizeof...(into));
  };
  if (!scan("%*[A-Za-z], %d %3s %d %d:%d:%d", &time.tm_mday, &month[0], &time.tm_year, &time.tm_hour, &time.tm_min,
            &time.tm_sec) &&
      !scan("%*[A-Za-z], %d-%3[A-Za-z]-%d %d:%d:%d", &time.tm_mday, &month[0], &time.tm_year, &time.tm_hour,
            &time.tm_min, &time.tm_sec) &&
      !scan("%*[A-Za-z] %3s %d %d:%d:%d %d", &month[0], &time.tm_mday, &time.tm_hour, &time.tm_min, &time.tm_sec,
            &time.tm_year))
    return 0;
  constexpr std::string_view kMonths = "JanFebMarAprMayJunJulAugSepOctNovDec";
  const auto place = kMonths.find(month);
  if (place == std::string_view::npos || place % 3 != 0 || std::string_view(month).size() != 3) return 0;
  time.tm_mon = static_cast<int>(place / 3);
  if (time.tm_year < 70)
    time.tm_year += 2000;
  else if (time.tm_year < 100)
    time.tm_year += 1900;
  if (time.tm_year > 9999) return 0;
  time.tm_year -= 1900;
  return std::max(0.0, std::difftime(timegm(&time), now));
}

struct HttpPoster::Impl {
  std::string path;
  std::size_t max_bytes;
  std::chrono::microseconds timeout;
  httplib::Client client;

  Impl(const Endpoint& endpoint, double timeout_s, std::size_t most)
      : path(endpoint.path),
        max_bytes(most),
        timeout(static_cast<std::int64_t>(timeout_s * 1e6)),
        client(endpoint.host) {
    require(client.is_valid(), ErrorCode::config, "HttpJudge", "expected a URL with a host and a port but got \"{}\"",
            endpoint.host);
    client.set_keep_alive(true);
    client.set_connection_timeout(timeout);
    client.set_read_timeout(timeout);
    client.set_write_timeout(timeout);
  }
};

namespace {

/// Cuts the client's connection when the time is up, until this dies.
class Watch {
 public:
  Watch(httplib::Client& client, std::chrono::microseconds limit)
      : thread_([this, &client, limit](const std::stop_token& stop) {
          std::unique_lock lock(mutex_);
          const auto over = [&] { return stop.stop_requested(); };
          if (wake_.wait_for(lock, stop, limit, over) || over()) return;
          passed_ = true;
          do client.stop();  // a connection that is made only now is cut as well
          while (!wake_.wait_for(lock, stop, 20ms, over) && !over());
        }) {}
  bool end() {
    thread_.request_stop();
    thread_.join();
    return passed_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable_any wake_;
  bool passed_ = false;
  std::jthread thread_;
};

}  // namespace

HttpPoster::HttpPoster(const Endpoint& endpoint, double timeout_s, std::size_t max_bytes)
    : impl_(std::make_unique<Impl>(endpoint, timeout_s, max_bytes)) {}
HttpPoster::~HttpPoster() = default;

HttpReply HttpPoster::post(const std::string& body, const std::pair<std::string, std::string>& header) {
  HttpReply reply;
  bool too_long = false;
  httplib::Request request;
  request.method = "POST";
  request.path = impl_->path;
  request.body = body;
  request.set_header("Content-Type", "application/json");
  if (!header.first.empty()) request.set_header(header.first, header.second);
  request.content_receiver = [&](const char* data, std::size_t size, std::uint64_t, std::uint64_t) {
    too_long = size > impl_->max_bytes - reply.body.size();
    if (!too_long) reply.body.append(data, size);
    return !too_long;
  };
  Watch watch(impl_->client, impl_->timeout);
  const auto response = impl_->client.send(request);
  const bool late = watch.end();
  if (too_long) {
    reply.problem = format_text("a reply of more than {} bytes", impl_->max_bytes);
  } else if (!response) {
    reply.problem = late ? format_text("no whole reply in {:g} s", static_cast<double>(impl_->timeout.count()) / 1e6)
                         : "no connection: " + httplib::to_string(response.error());
  } else {
    reply.status = response->status;
    reply.retry_after = response->get_header_value("Retry-After");
    reply.location = response->get_header_value("Location");
    if (reply.body.starts_with("\xef\xbb\xbf")) reply.body.erase(0, 3);
  }
  return reply;
}

}  // namespace steer::eval::detail
