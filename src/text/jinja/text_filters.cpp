// jinja2's filters of text, and of single values.

#include <algorithm>
#include <charconv>

#include "core/format_text.hpp"
#include "text/jinja/function.hpp"
#include "text/jinja/python.hpp"
#include "text/jinja/unicode.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail::jinja {
namespace {

using steer::text::detail::utf8_length;

// soft_str: what is no string becomes one.
Value as_string(Machine& machine, const Value& value) {
  return value.string() ? value : machine.string(str(machine, value));
}

// A filter that is a str method on whatever it is given.
template <std::size_t N>
Value method(Machine& machine, Call& call, const char (&name)[N]) {
  const Value self = as_string(machine, call.args[0]);
  call.args[0] = self;
  return find_method(self, name)->run(machine, call);
}
Value upper(Machine& machine, Call& call) { return method(machine, call, "upper"); }
Value lower(Machine& machine, Call& call) { return method(machine, call, "lower"); }
Value capitalize(Machine& machine, Call& call) { return method(machine, call, "capitalize"); }
Value trim(Machine& machine, Call& call) { return method(machine, call, "strip"); }
Value center(Machine& machine, Call& call) {
  if (call.args[1].missing()) call.args[1] = Value(std::int64_t{80});
  call.args.emplace_back();
  return method(machine, call, "center");
}

// Words begin at the start and behind white space, '-', '(', '{', '[' and '<'.
Value title(Machine& machine, Call& call) {
  const Value self = as_string(machine, call.args[0]);
  const MarkedText& text = self.string()->text;
  machine.look(text.size() * 8);
  MarkedText out;
  std::string piece;
  bool begins = true;
  const std::string_view bytes = text.bytes();
  std::size_t word = 0;
  for (std::size_t at = 0; at < bytes.size(); at += utf8_length(bytes[at])) {
    const char32_t code = steer::text::detail::utf8_step(bytes, at).code;
    if (is_space(code) ||
        std::string_view("-({[<").find(static_cast<char>(code < 0x80 ? code : 0)) != std::string_view::npos) {
      out.append(text, at, at + utf8_length(bytes[at]));
      begins = true;
      continue;
    }
    if (begins) word = at + utf8_length(bytes[at]);
    piece.clear();
    if (begins)
      append_case(piece, Case::upper, bytes, at);
    else
      append_case(piece, Case::lower, bytes.substr(word), at - word);
    out.append(piece, text.source_at(at));
    begins = false;
  }
  return machine.string(std::move(out));
}

Value string(Machine& machine, Call& call) { return as_string(machine, call.args[0]); }
Value safe(Machine& machine, Call& call) { return machine.string(str(machine, call.args[0]), true); }
Value escape(Machine& machine, Call& call) { return machine.string(escaped(machine, call.args[0]), true); }
Value force_escape(Machine& machine, Call& call) {
  return machine.string(escaped(machine, machine.string(str(machine, call.args[0]))), true);
}

Value replace(Machine& machine, Call& call) {
  for (std::size_t i = 0; i < 3; ++i) call.args[i] = machine.string(str(machine, call.args[i]));
  if (call.args[3].is_none()) call.args[3] = {};
  return find_method(call.args[0], "replace")->run(machine, call);
}

// str.splitlines of the text with a newline at its end, every line but the first indented.
Value indent(Machine& machine, Call& call) {
  if (!call.args[0].string()) {
    refuse_undefined(call.args[0]);
    raise("indent: unsupported operand type(s) for +=: '{}' and 'str'", type_name(call.args[0]));
  }
  MarkedText by;
  if (call.args[1].string())
    by = call.args[1].string()->text;
  else
    by.append(std::string(
        static_cast<std::size_t>(std::clamp<std::int64_t>(integer_argument(call, 1, 4, "indent"), 0, 1 << 20)), ' '));
  const bool first = flag_argument(call, 2, false), blank = flag_argument(call, 3, false);
  MarkedText text = call.args[0].string()->text;
  text.append("\n");
  Call split{{machine.string(std::move(text)), Value(false)}, {}};
  const Value lines = find_method(split.args[0], "splitlines")->run(machine, split);
  MarkedText out;
  bool is_first = true;
  for (const Value& line : lines.sequence()->items) {
    const MarkedText& content = line.string()->text;
    if (!is_first) out.append("\n");
    if (is_first ? first : blank || !content.empty()) out.append(by);
    out.append(content);
    is_first = false;
  }
  return machine.string(std::move(out), call.args[0].string()->markup);
}

Value truncate(Machine& machine, Call& call) {
  const Value self = call.args[0];
  if (!self.string()) raise("object of type '{}' cannot be truncated", type_name(self));
  const std::int64_t limit = integer_argument(call, 1, 255, "truncate"),
                     leeway = integer_argument(call, 4, 5, "truncate");
  const MarkedText end = call.args[3].missing() ? MarkedText("...") : text_argument(call, 3, "truncate");
  const std::int64_t kept = limit - count_codes(end.bytes());
  if (kept < 0) raise("expected length >= {}, got {}", count_codes(end.bytes()), limit);
  if (leeway < 0) raise("expected leeway >= 0, got {}", leeway);
  if (length(machine, self) <= limit + leeway) return self;
  Value cut = slice(machine, self, {}, Value(kept), {});
  if (!flag_argument(call, 2, false)) {
    const MarkedText& text = cut.string()->text;
    if (const std::size_t space = text.bytes().rfind(' '); space != std::string_view::npos)
      cut = machine.string(text.slice(0, space), cut.string()->markup);
  }
  return arithmetic(machine, Operator::add, cut, machine.string(end));
}

Value wordcount(Machine& machine, Call& call) {
  const Value self = as_string(machine, call.args[0]);
  const std::string_view text = self.string()->text.bytes();
  machine.look(text.size() * 4);
  std::int64_t words = 0;
  bool inside = false;
  for (std::size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const bool is_word = steer::text::detail::is_word(steer::text::detail::utf8_step(text, at).code);
    words += is_word && !inside;
    inside = is_word;
  }
  return Value(words);
}

Value format(Machine& machine, Call& call) {
  const Value self = as_string(machine, call.args[0]);
  if (call.args.size() > 1 && !call.named.empty())
    raise("can't handle positional and keyword arguments at the same time");
  Value given;
  if (call.named.empty()) {
    given = machine.tuple({call.args.begin() + 1, call.args.end()});
  } else {
    std::vector<std::pair<Value, Value>> names;
    for (auto& [name, value] : call.named) names.emplace_back(machine.string(name), value);
    given = machine.dict(std::move(names));
  }
  return machine.string(percent_format(machine, *self.string(), given), self.string()->markup);
}

Value to_json_filter(Machine& machine, Call& call) {
  return machine.string(to_json(machine, call.args[0], flag_argument(call, 1, false), call.args[2], call.args[3],
                                flag_argument(call, 4, false)));
}

void quote_url(std::string_view text, bool in_query, MarkedText& out) {
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~").find(c) != std::string_view::npos || (c == '/' && !in_query);
    if (plain)
      out.append(std::string_view(&c, 1));
    else if (c == ' ' && in_query)
      out.append("+");
    else
      out.append(format_text("%{:02X}", static_cast<unsigned char>(c)));
  }
}
Value urlencode(Machine& machine, Call& call) {
  const Value& self = call.args[0];
  MarkedText out;
  if (self.string() || !iterable(self)) {
    quote_url(str(machine, self).bytes(), false, out);
    return machine.string(std::move(out));
  }
  std::vector<Value> pairs;
  if (const auto* dict = self.dict())
    for (const auto& [key, value] : dict->items) pairs.push_back(machine.tuple({key, value}));
  else
    pairs = collect(machine, self);
  for (const Value& pair : pairs) {
    const std::vector<Value> parts = collect(machine, pair);
    if (parts.size() != 2) raise("urlencode: expected pairs");
    if (!out.empty()) out.append("&");
    quote_url(str(machine, parts[0]).bytes(), true, out);
    out.append("=");
    quote_url(str(machine, parts[1]).bytes(), true, out);
  }
  return machine.string(std::move(out));
}

// Comments and tags taken out, white space made single: markupsafe's striptags.
Value striptags(Machine& machine, Call& call) {
  std::string text(str(machine, call.args[0]).bytes());
  machine.look(text.size());
  for (const auto& [open, close] : {std::pair<std::string_view, std::string_view>{"<!--", "-->"}, {"<", ">"}}) {
    std::string kept;
    std::size_t at = 0;
    for (std::size_t begin; (begin = text.find(open, at)) != std::string::npos;) {
      const std::size_t end = text.find(close, begin);
      if (end == std::string::npos) break;
      kept.append(text, at, begin - at);
      at = end + close.size();
    }
    text = kept.append(text, at);
  }
  if (text.find('&') != std::string::npos) unsupported("striptags of text with HTML entities");
  Call split{{machine.string(text), {}, {}}, {}};
  const Value words = find_method(split.args[0], "split")->run(machine, split);
  Call join{{machine.string(" "), words}, {}};
  return find_method(join.args[0], "join")->run(machine, join);
}

Value default_value(Machine&, Call& call) {
  const bool use = call.args[0].undefined() || (flag_argument(call, 2, false) && !truth(call.args[0]));
  if (!use) return call.args[0];
  return call.args[1].missing() ? Value::text("") : call.args[1];
}

}  // namespace

std::span<const Function> text_filters() {
  static constexpr Function filters[] = {
      {"upper", {"s"}, 1, upper},
      {"lower", {"s"}, 1, lower},
      {"capitalize", {"s"}, 1, capitalize},
      {"title", {"s"}, 1, title},
      {"trim", {"value", "chars"}, 1, trim},
      {"center", {"value", "width"}, 1, center},
      {"string", {"object"}, 1, string},
      {"safe", {"value"}, 1, safe},
      {"escape", {"s"}, 1, escape},
      {"e", {"s"}, 1, escape},
      {"forceescape", {"value"}, 1, force_escape},
      {"replace", {"s", "old", "new", "count"}, 3, replace},
      {"indent", {"s", "width", "first", "blank"}, 1, indent},
      {"truncate", {"s", "length", "killwords", "end", "leeway"}, 1, truncate},
      {"wordcount", {"s"}, 1, wordcount},
      {"format", {}, Function::any_arguments, format},
      {"tojson", {"x", "ensure_ascii", "indent", "separators", "sort_keys"}, 1, to_json_filter},
      {"urlencode", {"value"}, 1, urlencode},
      {"striptags", {"value"}, 1, striptags},
      {"default", {"value", "default_value", "boolean"}, 1, default_value},
      {"d", {"value", "default_value", "boolean"}, 1, default_value},
  };
  return filters;
}

}  // namespace steer::text::detail::jinja
