#include "serve/fields.hpp"

#include <fmt/ranges.h>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "io/strict_json.hpp"

namespace steer::serve::detail {

using nlohmann::json;

namespace {

/// A request is some levels deep; a steering with conditions in conditions some more.
constexpr std::size_t kDepth = 64;

std::string got(const json& value) { return io::detail::brief(value, 60); }

/// A key as JSON spells it, without the quotes.
std::string spelled(const std::string& key) {
  const std::string text = io::detail::brief(json(key), 60);
  return text.size() > 2 ? text.substr(1, text.size() - 2) : text;
}

}  // namespace

Fields::Fields(const json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (!object.is_object())
    throw ApiError(400,
                   format_text("expected {} to be a JSON object but got {}",
                               path_.empty() ? "the request" : format_text("\"{}\"", path_), object.type_name()),
                   path_);
}

std::string Fields::name(std::string_view key) const {
  return path_.empty() ? std::string(key) : format_text("{}.{}", path_, key);
}

void Fields::fail(std::string_view key, const std::string& message) const { throw ApiError(400, message, name(key)); }

const json* Fields::find(std::string_view key) {
  known_.emplace(key);
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}
bool Fields::has(std::string_view key) { return find(key) != nullptr; }

const json& Fields::at(std::string_view key) {
  const json* found = find(key);
  if (!found) fail(key, format_text("expected a field \"{}\" but got none", name(key)));
  return *found;
}

std::string Fields::text(std::string_view key) {
  const json& value = at(key);
  if (!value.is_string()) fail(key, format_text("expected \"{}\" to be a string but got {}", name(key), got(value)));
  return value.get<std::string>();
}
std::string Fields::text(std::string_view key, std::string fallback) { return has(key) ? text(key) : fallback; }

bool Fields::boolean(std::string_view key, bool fallback) {
  const json* value = find(key);
  if (!value) return fallback;
  if (!value->is_boolean())
    fail(key, format_text("expected \"{}\" to be true or false but got {}", name(key), got(*value)));
  return value->get<bool>();
}

double Fields::number(std::string_view key, double low, double high) {
  const json& value = at(key);
  if (!value.is_number()) fail(key, format_text("expected \"{}\" to be a number but got {}", name(key), got(value)));
  const double number = value.get<double>();
  if (!(number >= low && number <= high))
    fail(key, format_text("expected \"{}\" in [{}, {}] but got {}", name(key), low, high, got(value)));
  return number;
}
double Fields::number(std::string_view key, double fallback, double low, double high) {
  return has(key) ? number(key, low, high) : fallback;
}

std::int64_t Fields::integer(std::string_view key, std::int64_t low, std::int64_t high) {
  const json& value = at(key);
  // Some clients send 5.0; 64-bit seeds may be unsigned.
  const bool whole = value.is_number_float() && value.get<double>() == std::floor(value.get<double>()) &&
                     std::abs(value.get<double>()) < 9e15;
  if (!value.is_number_integer() && !whole)
    fail(key, format_text("expected \"{}\" to be an integer but got {}", name(key), got(value)));
  const auto number = value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{1} << 62
                          ? std::int64_t{1} << 62
                          : value.get<std::int64_t>();
  if (number < low || number > high)
    fail(key, format_text("expected \"{}\" in [{}, {}] but got {}", name(key), low, high, got(value)));
  return number;
}
std::int64_t Fields::integer(std::string_view key, std::int64_t fallback, std::int64_t low, std::int64_t high) {
  return has(key) ? integer(key, low, high) : fallback;
}

std::vector<std::int64_t> Fields::integers(std::string_view key, std::int64_t low, std::int64_t high) {
  std::vector<std::int64_t> result;
  if (!has(key)) return result;
  for (const json& value : array(key)) {
    if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX))
      fail(key, format_text("expected \"{}\" to hold integers but got {}", name(key), got(value)));
    const auto number = value.get<std::int64_t>();
    if (number < low || number > high)
      fail(key, format_text("expected \"{}\" to hold integers in [{}, {}] but got {}", name(key), low, high, number));
    result.push_back(number);
  }
  return result;
}

const json& Fields::array(std::string_view key) {
  const json& value = at(key);
  if (!value.is_array()) fail(key, format_text("expected \"{}\" to be an array but got {}", name(key), got(value)));
  return value;
}

Fields Fields::object(std::string_view key) { return Fields(at(key), name(key)); }

void Fields::ignore(std::initializer_list<std::string_view> keys) {
  for (const auto key : keys) known_.emplace(key);
}

void Fields::refuse(std::initializer_list<std::string_view> keys, std::string_view why) {
  for (const auto key : keys)
    if (const json* value = find(key); value && *value != json(false) && !(value->is_structured() && value->empty()))
      fail(key, format_text("\"{}\" is not supported: {}", name(key), why));
}

void Fields::done() const {
  for (const auto& [key, value] : object_.items())
    if (!known_.contains(key))
      throw ApiError(
          400, format_text("unrecognized field \"{}\"; known here: {}", name(spelled(key)), fmt::join(known_, ", ")),
          name(key));
}

json parse_body(const std::string& body) {
  try {
    return io::detail::parse_json(body, "Server", "the request's body", {.depth = kDepth});
  } catch (const Error& error) {
    const std::string_view text = error.what();
    throw ApiError(400, std::string(text.substr(0, text.rfind("; "))));  // what it advises is for files
  }
}

std::string decode_base64(std::string_view text, const std::string& param) {
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string bytes;
  bytes.reserve(text.size() * 3 / 4);
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    int value = -1;
    if (c >= 'A' && c <= 'Z') value = c - 'A';
    if (c >= 'a' && c <= 'z') value = c - 'a' + 26;
    if (c >= '0' && c <= '9') value = c - '0' + 52;
    if (c == '+' || c == '-') value = 62;
    if (c == '/' || c == '_') value = 63;
    if (value < 0) throw ApiError(400, format_text("expected base64 in \"{}\"", param), param);
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    if ((count += 6) >= 8) bytes += static_cast<char>(bits >> (count -= 8) & 0xff);
  }
  if (text.size() % 4 == 1) throw ApiError(400, format_text("expected base64 in \"{}\"", param), param);
  return bytes;
}

std::string encode_base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = 0; j < 3; ++j)
      bits = bits << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0U);
    for (std::size_t j = 0; j < 4; ++j) text += i + j <= bytes.size() ? kDigits[bits >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

}  // namespace steer::serve::detail
