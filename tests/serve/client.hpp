#pragma once
// A client that may misbehave: bytes over a socket.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace steer_test {

struct HttpAnswer {
  int status = 0;  ///< 0: the connection ended without an answer
  std::string head, body;
  nlohmann::json json() const { return nlohmann::json::parse(body); }
  /// What follows "data: " in each event.
  std::vector<std::string> events() const {
    std::vector<std::string> result;
    for (std::size_t at = body.find("data: "); at != std::string::npos; at = body.find("data: ", at + 1)) {
      if (at > 0 && body[at - 1] != '\n') continue;
      result.push_back(body.substr(at + 6, body.find("\n\n", at) - at - 6));
    }
    return result;
  }
};

class Wire {
 public:
  explicit Wire(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) {
      ::close(socket_);
      throw std::runtime_error("no connection");
    }
  }
  ~Wire() { close(); }
  Wire(const Wire&) = delete;
  Wire(Wire&& other) noexcept : socket_(std::exchange(other.socket_, -1)) {}

  bool send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const auto sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  /// Some bytes, none at the end of the stream or when none came for so long.
  std::string receive(double seconds = 60) const {
    pollfd entry{socket_, POLLIN, 0};
    if (::poll(&entry, 1, static_cast<int>(seconds * 1000)) <= 0) return {};
    char buffer[1 << 16];
    const auto got = ::recv(socket_, buffer, sizeof buffer, 0);
    return got > 0 ? std::string(buffer, static_cast<std::size_t>(got)) : std::string();
  }
  /// Whether the other side closes within so many seconds.
  bool closed_within(double seconds) const {
    const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    char byte;
    while (std::chrono::steady_clock::now() < until) {
      pollfd entry{socket_, POLLIN, 0};
      if (::poll(&entry, 1, 50) > 0 && ::recv(socket_, &byte, 1, 0) <= 0) return true;
    }
    return false;
  }
  void half_close() const { ::shutdown(socket_, SHUT_WR); }
  void close() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  /// As the kernel does for a process that was killed with data unread.
  void reset() {
    const linger now{1, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close();
  }
  /// All of an answer, its chunks joined.
  HttpAnswer answer() const {
    std::string all;
    for (std::string some = receive(); !some.empty(); some = receive()) all += some;
    HttpAnswer result;
    const auto end = all.find("\r\n\r\n");
    if (end == std::string::npos || !all.starts_with("HTTP/1.1 ")) return result;
    result.status = std::stoi(all.substr(9, 3));
    result.head = all.substr(0, end);
    result.body = all.substr(end + 4);
    if (result.head.find("Transfer-Encoding: chunked") != std::string::npos) result.body = joined(result.body);
    return result;
  }

 private:
  static std::string joined(std::string_view chunks) {
    std::string body;
    while (!chunks.empty()) {
      const auto line = chunks.find("\r\n");
      if (line == std::string_view::npos) break;
      const auto size = std::stoul(std::string(chunks.substr(0, line)), nullptr, 16);
      if (size == 0) break;
      body += chunks.substr(line + 2, size);
      chunks.remove_prefix(std::min(line + 4 + size, chunks.size()));
    }
    return body;
  }
  int socket_;
};

inline std::string request_text(std::string_view method, std::string_view path, std::string_view body = {},
                                std::string_view headers = {}) {
  std::string text = std::string(method) + " " + std::string(path) + " HTTP/1.1\r\nHost: localhost\r\n";
  text += headers;
  if (method == "POST") text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  return text + "\r\n" + std::string(body);
}

inline HttpAnswer call(int port, std::string_view method, std::string_view path, std::string_view body = {},
                       std::string_view headers = {}) {
  const Wire wire(port);
  wire.send(request_text(method, path, body, headers));
  return wire.answer();
}

inline HttpAnswer post(int port, std::string_view path, const nlohmann::json& body) {
  return call(port, "POST", path, body.dump());
}

}  // namespace steer_test
