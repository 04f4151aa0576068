#pragma once
// Server-sent events: "data: {...}" and an empty line, one chunk each.

#include <nlohmann/json.hpp>
#include <string_view>

#include "serve/api_error.hpp"

namespace steer::serve::detail {

class EventStream {
 public:
  explicit EventStream(HttpStream& out) : out_(out) {}
  /// @throws ApiError(499) when nobody reads any more.
  void send(const nlohmann::json& event) { send_text(dump(event)); }
  void send_text(std::string_view data) {
    std::string chunk = "data: ";
    chunk.append(data).append("\n\n");
    if (!out_.send(chunk)) throw ApiError(499, "the client has gone");
  }
  void done() { send_text("[DONE]"); }

 private:
  HttpStream& out_;
};

/// A reply of events. `write` is called when the head is out; what it throws becomes a last event {"error": ...}.
template <class Write>
HttpReply event_reply(Write write) {
  HttpReply reply{.type = "text/event-stream; charset=utf-8"};
  reply.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  reply.stream = [write = std::move(write)](HttpStream& out) {
    EventStream events(out);
    try {
      write(events, out);
    } catch (...) {
      if (const auto error = api_error(std::current_exception()); error.status() != 499)
        out.send("data: " + dump(error.body()) + "\n\n");
    }
  };
  return reply;
}

}  // namespace steer::serve::detail
