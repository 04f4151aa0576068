#include "serve/api_error.hpp"

#include <nlohmann/json.hpp>
#include <utility>

#include <steer/core/error.hpp>

namespace steer::serve::detail {
namespace {

const char* type_of(int status) {
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

nlohmann::json or_null(const std::string& text) { return text.empty() ? nlohmann::json() : nlohmann::json(text); }

}  // namespace

ApiError::ApiError(int status, std::string message, std::string param, std::string code)
    : status_(status), message_(std::move(message)), param_(std::move(param)), code_(std::move(code)) {}

nlohmann::json ApiError::body() const {
  return {{"error",
           {{"message", message_}, {"type", type_of(status_)}, {"param", or_null(param_)}, {"code", or_null(code_)}}}};
}

ApiError api_error(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const ApiError& error) {
    return error;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::cancelled) return {503, "the server is stopping"};
    return {error.code() == ErrorCode::io ? 500 : 400, error.what()};
  } catch (const std::bad_alloc&) {
    return {500, "the server is out of memory"};
  } catch (const std::exception& error) {
    return {500, error.what()};
  }
}

HttpReply error_reply(const ApiError& error) { return {.status = error.status(), .body = dump(error.body())}; }

std::string dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

HttpReply json_reply(const nlohmann::json& value) { return {.body = dump(value)}; }

}  // namespace steer::serve::detail
