#pragma once
// Reads a JSON object key by key and refuses what nobody asked for: a misspelt key must not pass for a default.

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>

#include <steer/core/error.hpp>

namespace steer::steering::detail {

class JsonObject {
 public:
  /// @param what   what the object describes, for messages: "edit 3".
  /// @throws Error(format) unless it is an object.
  JsonObject(const nlohmann::json& json, std::string what, std::string_view where)
      : json_(json), what_(std::move(what)), where_(where) {
    require(json.is_object(), ErrorCode::format, where_, "expected {} to be a JSON object but got {}", what_,
            json.type_name());
  }

  bool has(std::string_view key) {
    known_.emplace(key);
    return json_.contains(key);
  }
  const nlohmann::json& at(std::string_view key) {
    require(has(key), ErrorCode::format, where_, "expected a key \"{}\" in {} but got none", key, what_);
    return *json_.find(key);
  }
  std::string text(std::string_view key) {
    const auto& value = at(key);
    require(value.is_string(), ErrorCode::format, where_, "expected \"{}\" of {} to be text but got {}", key, what_,
            value.type_name());
    return value.get<std::string>();
  }
  double number(std::string_view key) {
    const auto& value = at(key);
    require(value.is_number(), ErrorCode::format, where_, "expected \"{}\" of {} to be a number but got {}", key, what_,
            value.type_name());
    return value.get<double>();
  }
  std::int64_t integer(std::string_view key) {
    const auto& value = at(key);
    require(value.is_number_integer(), ErrorCode::format, where_, "expected \"{}\" of {} to be an integer but got {}",
            key, what_, value.dump());
    return value.get<std::int64_t>();
  }
  bool boolean(std::string_view key) {
    const auto& value = at(key);
    require(value.is_boolean(), ErrorCode::format, where_, "expected \"{}\" of {} to be true or false but got {}", key,
            what_, value.type_name());
    return value.get<bool>();
  }
  const nlohmann::json& array(std::string_view key) {
    const auto& value = at(key);
    require(value.is_array(), ErrorCode::format, where_, "expected \"{}\" of {} to be an array but got {}", key, what_,
            value.type_name());
    return value;
  }
  std::string text_or(std::string_view key, std::string fallback) { return has(key) ? text(key) : std::move(fallback); }
  double number_or(std::string_view key, double fallback) { return has(key) ? number(key) : fallback; }
  bool boolean_or(std::string_view key, bool fallback) { return has(key) ? boolean(key) : fallback; }
  template <class E>
  E enum_or(std::string_view key, E fallback) {
    if (!has(key)) return fallback;
    return parse_enum<E>(text(key), where_);
  }
  /// A key that may be there and says nothing steer needs.
  void ignore(std::string_view key) { known_.emplace(key); }

  /// Call last. @throws Error(format) that names a key nobody asked for.
  void done() const {
    for (const auto& [key, value] : json_.items())
      require(known_.contains(key), ErrorCode::format, where_, "expected no key \"{}\" in {}; known here: {}", key,
              what_, known());
  }

 private:
  std::string known() const {
    std::string names;
    for (const auto& key : known_) names += (names.empty() ? "" : ", ") + key;
    return names;
  }
  const nlohmann::json& json_;
  std::string what_;
  std::string_view where_;
  std::set<std::string, std::less<>> known_;
};

}  // namespace steer::steering::detail
