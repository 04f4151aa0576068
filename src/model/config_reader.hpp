#pragma once

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"

namespace steer::model::detail {

/// Reads a JSON object key by key and remembers which keys were asked for, so that `finish` can refuse the rest.
class ConfigReader {
 public:
  /// @param prefix  of key names in messages, e.g. "rope_scaling.".
  ConfigReader(const nlohmann::json& object, std::string where, std::string prefix = {})
      : object_(object), where_(std::move(where)), prefix_(std::move(prefix)) {}

  /// Takes note of keys that another one overrides.
  void skip(std::initializer_list<const char*> keys) {
    for (const char* key : keys) used_.insert(key);
  }
  /// True when the key is there and not null.
  bool has(const char* key) {
    used_.insert(key);
    return object_.contains(key) && !object_.at(key).is_null();
  }
  std::int64_t integer(const char* key) { return get<std::int64_t>(key, "an integer"); }
  std::int64_t integer(const char* key, std::int64_t missing) { return has(key) ? integer(key) : missing; }
  double number(const char* key) { return get<double>(key, "a number"); }
  double number(const char* key, double missing) { return has(key) ? number(key) : missing; }
  bool boolean(const char* key, bool missing) { return has(key) ? get<bool>(key, "true or false") : missing; }
  std::string text(const char* key) { return get<std::string>(key, "a string"); }
  std::string text(const char* key, std::string missing) { return has(key) ? text(key) : missing; }
  const nlohmann::json& at(const char* key) {
    need(key);
    return object_.at(key);
  }
  /// A size: at least 1 and small enough that products of a few of them cannot overflow.
  std::int64_t size(const char* key) {
    const auto value = integer(key);
    require(value >= 1 && value <= (std::int64_t{1} << 31), ErrorCode::config, where_,
            "expected {}{} to be a size of at least 1 but got {}; the file is damaged or not a model's", prefix_, key,
            value);
    return value;
  }
  /// A number of layers: each gets a description before any tensor is looked at.
  std::int64_t layers(const char* key, std::int64_t missing) {
    constexpr std::int64_t kMost = 1 << 16;
    const auto value = missing > 0 ? size(key, missing) : size(key);
    require(value <= kMost, ErrorCode::config, where_,
            "expected {}{} to be at most {} but got {}; the file is damaged or not a model's", prefix_, key, kMost,
            value);
    return value;
  }
  std::int64_t size(const char* key, std::int64_t missing) { return has(key) ? size(key) : missing; }
  /// Refuses any value but this one of a key that may be absent: steer has no code for the others.
  void only(const char* key, const nlohmann::json& value) {
    if (has(key) && object_.at(key) != value)
      fail(ErrorCode::unsupported, where_, "expected {}{} = {} but got {}; steer does not compute this variant",
           prefix_, key, value.dump(), object_.at(key).dump());
  }
  /// Refuses every key that nobody asked for, but for those listed as ignored. A value that switches nothing on (null,
  /// false, empty) and a key that the caller allows are let through with a warning.
  /// @throws Error(config) naming the others.
  void finish(std::span<const std::string_view> ignored, std::span<const std::string> allowed = {},
              std::vector<std::string>* warnings = nullptr) const {
    std::string unknown;
    for (const auto& [key, value] : object_.items()) {
      if (used_.contains(key) || value.is_null()) continue;
      if (std::find(ignored.begin(), ignored.end(), key) != ignored.end()) continue;
      const std::string shown = prefix_ + key + " = " + value.dump().substr(0, 40);
      const bool allow = std::find(allowed.begin(), allowed.end(), key) != allowed.end();
      const bool off = value == false || (value.is_string() && value.get_ref<const std::string&>().empty()) ||
                       (value.is_structured() && value.empty());
      // Saving a configuration with all its defaults writes these; they are no news.
      if (off && (key == "add_cross_attention" || key == "tie_encoder_decoder" || key == "pruned_heads")) continue;
      if (warnings && (allow || off))
        warnings->push_back(format_text("ignored {} in the configuration: {}", shown,
                                        allow ? "it was allowed" : "steer does not know it, and it is switched off"));
      else
        unknown += (unknown.empty() ? "" : ", ") + shown;
    }
    require(unknown.empty(), ErrorCode::config, where_,
            "expected only known keys but got {}; a key that steer does not know could change the model's numbers: if "
            "it does not, name it in LoadOptions::allow_unknown_config (--allow-unknown-config KEY in the programs)",
            unknown);
  }
  [[noreturn]] void contradiction(const std::string& text) const {
    fail(ErrorCode::config, where_, "expected a consistent configuration but got {}; correct the file", text);
  }
  const std::string& where() const { return where_; }
  const nlohmann::json& object() const { return object_; }

 private:
  void need(const char* key) {
    require(has(key), ErrorCode::config, where_, "expected the key {}{} but got none; the file is incomplete", prefix_,
            key);
  }
  template <class T>
  T get(const char* key, const char* kind) {
    need(key);
    const auto& value = object_.at(key);
    const bool ok = std::is_same_v<T, bool>           ? value.is_boolean()
                    : std::is_same_v<T, std::string>  ? value.is_string()
                    : std::is_same_v<T, std::int64_t> ? value.is_number_integer()
                                                      : value.is_number();
    require(ok, ErrorCode::config, where_, "expected {}{} to be {} but got {}; correct the file", prefix_, key, kind,
            value.dump().substr(0, 80));
    return value.get<T>();
  }

  const nlohmann::json& object_;
  std::string where_, prefix_;
  std::set<std::string, std::less<>> used_;
};

}  // namespace steer::model::detail
