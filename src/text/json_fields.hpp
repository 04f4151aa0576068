#pragma once
// Reads the fields of a JSON object that a file promises, with an error that names the place kTokenizerLoad it does
// not.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include <steer/core/error.hpp>

#include "io/strict_json.hpp"
#include "text/tokenizer_json.hpp"

namespace steer::text::detail {

class JsonFields {
 public:
  /// @param place  what the object is, for messages: "normalizer".
  JsonFields(const nlohmann::json& object, std::string_view place, const std::string& name)
      : object_(object), place_(place), name_(name) {
    require(object.is_object(), ErrorCode::format, kTokenizerLoad, "expected {} to be an object but got {} ({})", place,
            object.type_name(), name);
  }

  const nlohmann::json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  std::string text(const char* key) const {
    return of(key, &nlohmann::json::is_string, "a string")->get<std::string>();
  }
  std::string text(const char* key, std::string fallback) const { return find(key) ? text(key) : std::move(fallback); }
  bool flag(const char* key, bool fallback) const {
    return find(key) ? of(key, &nlohmann::json::is_boolean, "a boolean")->get<bool>() : fallback;
  }
  /// An integer in [low, high].
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) const {
    const nlohmann::json* value = of(key, &nlohmann::json::is_number_integer, "an integer");
    const bool fits = !value->is_number_unsigned() || value->get<std::uint64_t>() <= INT64_MAX;
    require(fits && value->get<std::int64_t>() >= low && value->get<std::int64_t>() <= high, ErrorCode::format,
            kTokenizerLoad, "expected {}.{} to lie in [{}, {}] but got {} ({})", place_, key, low, high,
            io::detail::brief(*value), name_);
    return value->get<std::int64_t>();
  }
  const nlohmann::json& array(const char* key) const { return *of(key, &nlohmann::json::is_array, "an array"); }
  const nlohmann::json& object(const char* key) const { return *of(key, &nlohmann::json::is_object, "an object"); }
  /// A pattern field: {"String": s} or {"Regex": s}; true for the latter.
  std::pair<std::string, bool> pattern(const char* key) const {
    const JsonFields inner(object(key), place_ + "." + key, name_);
    const bool is_regex = inner.find("Regex") != nullptr;
    return {inner.text(is_regex ? "Regex" : "String"), is_regex};
  }
  [[noreturn]] void unsupported(std::string_view what, std::string_view known) const {
    fail(ErrorCode::unsupported, kTokenizerLoad, "expected a {} that steer supports ({}) but got {} ({})", place_,
         known, what, name_);
  }

 private:
  const nlohmann::json* of(const char* key, bool (nlohmann::json::*is)() const noexcept, std::string_view kind) const {
    const nlohmann::json* value = find(key);
    require(value && (value->*is)(), ErrorCode::format, kTokenizerLoad, "expected {}.{} to be {} but got {} ({})",
            place_, key, kind, value ? value->type_name() : "nothing", name_);
    return value;
  }
  const nlohmann::json& object_;
  std::string place_;
  const std::string& name_;
};

}  // namespace steer::text::detail
