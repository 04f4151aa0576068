#include "io/strict_json.hpp"

#include <algorithm>

#include "io/impostors.hpp"
#include "io/json_levels.hpp"
#include "io/text_file.hpp"

namespace steer::io::detail {
namespace {

/// The first byte at which `text` opens more than `depth` levels; text.size() when it does not.
std::size_t too_deep_at(std::string_view text, std::size_t depth) {
  return std::min(text.size(), walk_levels(text, 0, [&](std::size_t level, bool) { return level > depth; }));
}

/// What stands at a byte where parsing stopped.
std::string text_at(std::string_view text, std::size_t byte) {
  if (byte >= text.size()) return "the end of the text";
  return quote(text.substr(byte, 24));
}

}  // namespace

template <class Json>
Json parse_json(std::string_view text, std::string_view where, std::string_view what, const JsonLimits& limits) {
  require(text.size() <= limits.bytes, ErrorCode::format, where,
          "expected JSON of at most {} bytes but got {} ({}); check that this is the right file", limits.bytes,
          text.size(), what);
  const auto deep = too_deep_at(text, limits.depth);
  if (deep != text.size())
    fail(ErrorCode::format, where,
         "expected JSON nested at most {} levels deep but got more at byte {} ({}); correct the file", limits.depth,
         deep, what);
  try {
    return Json::parse(text);
  } catch (const typename Json::parse_error& error) {
    refuse_json(text, error.byte, error, where, what);
  } catch (const typename Json::exception& error) {
    refuse_json(text, 0, error, where, what);
  }
}

void refuse_json(std::string_view text, std::size_t position, const nlohmann::detail::exception& error,
                 std::string_view where, std::string_view what) {
  if (dynamic_cast<const nlohmann::detail::parse_error*>(&error) == nullptr)  // a number beyond any type's range
    fail(ErrorCode::format, where, "expected JSON but got {} ({}); correct the file", quote(error.what()), what);
  if (const auto* impostor = find_impostor(text))
    fail(ErrorCode::format, where, "expected JSON but got {} ({}); {}", impostor->what, what, impostor->advice);
  const auto at = position > 0 ? position - 1 : 0;
  const auto line =
      1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(std::min(at, text.size())), '\n');
  fail(ErrorCode::format, where, "expected JSON but got a syntax error at byte {}, line {}: {} ({}); {}", at, line,
       text_at(text, at), what,
       at >= text.size() ? "the text is cut off: get or save the file again" : "correct the file or get it again");
}

template <class Json>
std::optional<Json> find_json(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.bytes || too_deep_at(text, limits.depth) != text.size()) return {};
  auto json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return json.is_discarded() ? std::nullopt : std::optional<Json>(std::move(json));
}

template <class Json>
Json read_json(const std::filesystem::path& path, std::string_view where, const JsonLimits& limits) {
  return parse_json<Json>(read_text_file(path, where, limits.bytes), where, path.string(), limits);
}

namespace {

template <class Json>
void write_brief(const Json& value, std::size_t most, std::string& out) {
  const auto add_quoted = [&](std::string_view text) {
    out += quote(text.substr(0, most > out.size() ? most - out.size() : 0));
  };
  if (out.size() >= most) return;
  if (value.is_string()) {
    add_quoted(value.template get_ref<const std::string&>());
  } else if (value.is_array()) {
    out += '[';
    bool first = true;
    for (const auto& item : value) {
      if (!std::exchange(first, false)) out += ", ";
      if (out.size() >= most) return;
      write_brief(item, most, out);
    }
    out += ']';
  } else if (value.is_object()) {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : value.items()) {
      if (!std::exchange(first, false)) out += ", ";
      if (out.size() >= most) return;
      add_quoted(key);
      out += ": ";
      write_brief(item, most, out);
    }
    out += '}';
  } else {
    out += value.dump();
  }
}

}  // namespace

template <class Json>
std::string brief(const Json& value, std::size_t most) {
  std::string text;
  write_brief(value, most, text);
  if (text.size() <= most) return text;
  text.resize(most);
  return text + "...";
}

#define STEER_JSON_OF(Json)                                                                                \
  template Json parse_json<Json>(std::string_view, std::string_view, std::string_view, const JsonLimits&); \
  template std::optional<Json> find_json<Json>(std::string_view, const JsonLimits&);                       \
  template Json read_json<Json>(const std::filesystem::path&, std::string_view, const JsonLimits&);        \
  template std::string brief<Json>(const Json&, std::size_t);
STEER_JSON_OF(nlohmann::json)
STEER_JSON_OF(nlohmann::ordered_json)
#undef STEER_JSON_OF

void JsonEvents::parse(std::string_view text) {
  text_ = text;
  nlohmann::json::sax_parse(text.begin(), text.end(), static_cast<nlohmann::json_sax<nlohmann::json>*>(this));
}

void JsonEvents::refuse(std::string_view got) const {
  std::string place;
  for (const auto& key : keys_) place += (place.empty() ? "" : " / ") + quote(key);
  fail(ErrorCode::format, where_, "expected what the format allows at {} but got {} in {}",
       place.empty() ? "the top level" : place, got, what_);
}

void JsonEvents::enter() {
  if (++level_ > depth_) refuse("deeper nesting");
}

bool JsonEvents::start_object(std::size_t) {
  enter();
  on_object();
  keys_.emplace_back();
  return true;
}

bool JsonEvents::key(string_t& text) {
  keys_.back() = std::move(text);
  return true;
}

bool JsonEvents::end_object() {
  keys_.pop_back();
  --level_;
  on_object_end();
  return true;
}

bool JsonEvents::start_array(std::size_t) {
  enter();
  on_array();
  return true;
}

bool JsonEvents::end_array() {
  --level_;
  return true;
}

bool JsonEvents::parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) {
  refuse_json(text_, position, error, where_, what_);
}

}  // namespace steer::io::detail
