#pragma once
// A request's JSON, field by field: wrong types, values out of range and names nobody knows are the sender's errors, by
// name. A field that is null counts as absent, as in OpenAI's API.

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "serve/api_error.hpp"

namespace steer::serve::detail {

class Fields {
 public:
  /// @param path  of the object within the request, for messages; empty: the request itself.
  /// @throws ApiError(400) unless it is an object.
  explicit Fields(const nlohmann::json& object, std::string path = {});

  bool has(std::string_view key);
  /// @throws ApiError(400) when absent.
  const nlohmann::json& at(std::string_view key);
  /// Null when absent.
  const nlohmann::json* find(std::string_view key);

  std::string text(std::string_view key);
  std::string text(std::string_view key, std::string fallback);
  bool boolean(std::string_view key, bool fallback);
  double number(std::string_view key, double low, double high);
  double number(std::string_view key, double fallback, double low, double high);
  std::int64_t integer(std::string_view key, std::int64_t low, std::int64_t high);
  std::int64_t integer(std::string_view key, std::int64_t fallback, std::int64_t low, std::int64_t high);
  std::vector<std::int64_t> integers(std::string_view key, std::int64_t low, std::int64_t high);
  const nlohmann::json& array(std::string_view key);
  Fields object(std::string_view key);

  /// Fields that others have, and which say nothing here.
  void ignore(std::initializer_list<std::string_view> keys);
  /// @throws ApiError(400) where one of them is given: something that was asked for would silently not happen.
  void refuse(std::initializer_list<std::string_view> keys, std::string_view why);
  /// Call last. @throws ApiError(400) that names a field nobody asked for.
  void done() const;

  /// The name of a field within the request.
  std::string name(std::string_view key) const;
  /// @throws ApiError(400) always.
  [[noreturn]] void fail(std::string_view key, const std::string& message) const;

 private:
  const nlohmann::json& object_;
  std::string path_;
  std::set<std::string, std::less<>> known_;
};

/// The body as JSON. @throws ApiError(400).
nlohmann::json parse_body(const std::string& body);

/// The bytes of standard base64, padded or not. @throws ApiError(400).
std::string decode_base64(std::string_view text, const std::string& param);
std::string encode_base64(std::string_view bytes);

}  // namespace steer::serve::detail
