#pragma once
// What goes wrong with a request, in the shape of OpenAI's API.

#include <exception>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "serve/http.hpp"

namespace steer::serve::detail {

/// An answer instead of a result.
class ApiError : public std::exception {
 public:
  /// @param param  the field it is about; empty: none.
  /// @param code   OpenAI's word for it, where programs look at one; empty: none.
  ApiError(int status, std::string message, std::string param = {}, std::string code = {});
  const char* what() const noexcept override { return message_.c_str(); }
  int status() const { return status_; }
  /// {"error": {"message", "type", "param", "code"}}.
  nlohmann::json body() const;

 private:
  int status_;
  std::string message_, param_, code_;
};

/// What was thrown while a request was answered, as one of these: an Error of the library that speaks of what the
/// request asked for is its sender's (400), everything else the server's (500).
ApiError api_error(const std::exception_ptr& thrown);
HttpReply error_reply(const ApiError& error);

/// JSON as text; bytes that are no UTF-8 become U+FFFD.
std::string dump(const nlohmann::json& value);
HttpReply json_reply(const nlohmann::json& value);

}  // namespace steer::serve::detail
