#include "eval/report/mustache.hpp"

#include <nlohmann/json.hpp>
#include <vector>

#include <steer/core/error.hpp>

namespace steer::eval::detail {
namespace {

using nlohmann::ordered_json;
using Stack = std::vector<const ordered_json*>;

constexpr const char* kReport = "Report";

struct Tag {
  char kind = ' ';  // '#', '^', '/', '>', '{' or ' '
  std::string_view name;
  std::size_t begin = 0, end = 0;  // in the text, a standalone tag's whole line
};

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  return first == std::string_view::npos ? std::string_view()
                                         : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// The next tag from `from` on; `begin` is npos where there is none.
Tag next_tag(std::string_view text, std::size_t from) {
  Tag tag;
  tag.begin = text.find("{{", from);
  if (tag.begin == std::string_view::npos) return tag;
  const bool raw = text.substr(tag.begin).starts_with("{{{");
  const std::string_view close = raw ? "}}}" : "}}";
  const auto end = text.find(close, tag.begin);
  require(end != std::string_view::npos, ErrorCode::format, kReport, "expected \"{}\" after \"{}\" in a template",
          close, text.substr(tag.begin, 40));
  std::string_view inside = text.substr(tag.begin + close.size(), end - tag.begin - close.size());
  tag.end = end + close.size();
  tag.kind = raw ? '{' : inside.empty() ? ' ' : inside[0];
  if (tag.kind == '#' || tag.kind == '^' || tag.kind == '/' || tag.kind == '>') {
    inside.remove_prefix(1);
    const auto line = text.rfind('\n', tag.begin);
    const auto start = line == std::string_view::npos || tag.begin == 0 ? 0 : line + 1;
    const auto stop = text.find('\n', tag.end);
    if (start >= from && stop != std::string_view::npos && trimmed(text.substr(start, tag.begin - start)).empty() &&
        trimmed(text.substr(tag.end, stop - tag.end)).empty()) {
      tag.begin = start;
      tag.end = stop + 1;
    }
  } else if (!raw) {
    tag.kind = ' ';
  }
  tag.name = trimmed(inside);
  return tag;
}

const ordered_json* look_up(const Stack& stack, std::string_view name) {
  if (name == ".") return stack.back();
  for (auto at = stack.rbegin(); at != stack.rend(); ++at)
    if ((*at)->is_object())
      if (const auto found = (*at)->find(name); found != (*at)->end()) return &*found;
  return nullptr;
}

bool has_value(const ordered_json* value) {
  return value && !value->is_null() && *value != false && !(value->is_array() && value->empty()) &&
         !(value->is_string() && value->get_ref<const std::string&>().empty());
}

std::string printed(const ordered_json* value) {
  if (!value || value->is_null()) return "";
  return value->is_string() ? value->get<std::string>() : value->dump();
}

void fill(std::string& out, std::string_view text, Stack& stack, const Rendering& rendering);

/// Where the section opened by `open` is closed.
Tag closing(std::string_view text, const Tag& open) {
  int depth = 1;
  for (std::size_t at = open.end;;) {
    const Tag tag = next_tag(text, at);
    require(tag.begin != std::string_view::npos, ErrorCode::format, kReport, "expected {{{{/{}}}}} in a template",
            open.name);
    if ((tag.kind == '#' || tag.kind == '^') && tag.name == open.name) ++depth;
    if (tag.kind == '/' && tag.name == open.name && --depth == 0) return tag;
    at = tag.end;
  }
}

void fill_section(std::string& out, std::string_view inside, const Tag& open, Stack& stack,
                  const Rendering& rendering) {
  const auto* value = look_up(stack, open.name);
  if (open.kind == '^') {
    if (!has_value(value)) fill(out, inside, stack, rendering);
    return;
  }
  if (!has_value(value)) return;
  const auto with = [&](const ordered_json& element) {
    stack.push_back(&element);
    fill(out, inside, stack, rendering);
    stack.pop_back();
  };
  if (!value->is_array()) return with(*value);
  for (const auto& element : *value) with(element);
}

void fill(std::string& out, std::string_view text, Stack& stack, const Rendering& rendering) {
  std::size_t at = 0;
  for (Tag tag = next_tag(text, at); tag.begin != std::string_view::npos; tag = next_tag(text, at)) {
    out += text.substr(at, tag.begin - at);
    at = tag.end;
    if (tag.kind == '#' || tag.kind == '^') {
      const Tag close = closing(text, tag);
      fill_section(out, text.substr(tag.end, close.begin - tag.end), tag, stack, rendering);
      at = close.end;
    } else if (tag.kind == '>') {
      fill(out, rendering.partial(tag.name), stack, rendering);
    } else {
      const std::string value = printed(look_up(stack, tag.name));
      out += tag.kind == '{' ? value : rendering.escape(value);
    }
  }
  out += text.substr(at);
}

}  // namespace

std::string render(std::string_view text, const ordered_json& data, const Rendering& rendering) {
  std::string out;
  Stack stack{&data};
  fill(out, text, stack, rendering);
  return out;
}

}  // namespace steer::eval::detail
