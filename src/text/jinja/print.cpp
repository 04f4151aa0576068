// str() and repr() of values.

#include <charconv>
#include <cmath>

#include "core/format_text.hpp"
#include "text/jinja/python.hpp"
#include "text/jinja/unicode.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail::jinja {
namespace {

std::string escape_of(char32_t code) {
  const auto number = static_cast<std::uint32_t>(code);
  if (number < 0x100) return format_text("\\x{:02x}", number);
  return number < 0x10000 ? format_text("\\u{:04x}", number) : format_text("\\U{:08x}", number);
}

void repr_string(Machine& machine, const MarkedText& text, MarkedText& out) {
  machine.look(text.size());
  const std::string_view bytes = text.bytes();
  const bool has_single = bytes.find('\'') != std::string_view::npos,
             has_double = bytes.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out.append(std::string_view(&quote, 1));
  for (std::size_t at = 0; at < bytes.size();) {
    const auto step = steer::text::detail::utf8_step(bytes, at);
    const std::int32_t source = text.source_at(at);
    const char32_t code = step.code;
    if (code == static_cast<char32_t>(quote) || code == '\\')
      out.append(format_text("\\{}", static_cast<char>(code)), source);
    else if (code == '\n' || code == '\r' || code == '\t')
      out.append(code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t", source);
    else if (is_printable(code))
      out.append(text, at, at + step.length);
    else
      out.append(escape_of(code), source);
    at += step.length;
  }
  out.append(std::string_view(&quote, 1));
}

void repr_into(Machine& machine, const Value& value, MarkedText& out);

void repr_items(Machine& machine, const std::vector<Value>& items, MarkedText& out) {
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.append(", ");
    repr_into(machine, items[i], out);
  }
}

void repr_sequence(Machine& machine, const Sequence& sequence, MarkedText& out) {
  using Type = Sequence::Type;
  const auto wrapped = [&](std::string_view begin, std::string_view end) {
    out.append(begin);
    repr_items(machine, sequence.items, out);
    out.append(end);
  };
  switch (sequence.type) {
    case Type::list:
      return wrapped("[", "]");
    case Type::tuple:
    case Type::group:
      return wrapped("(", sequence.items.size() == 1 ? ",)" : ")");
    case Type::range:
      return out.append(sequence.name);
    case Type::keys:
      return wrapped("dict_keys([", "])");
    case Type::values:
      return wrapped("dict_values([", "])");
    case Type::items:
      return wrapped("dict_items([", "])");
    case Type::iterator:
      unsupported("printing the generator that {} makes; put |list after it", sequence.name);
  }
}

void repr_into(Machine& machine, const Value& value, MarkedText& out) {
  machine.step();
  const Machine::Deeper deeper(machine);
  if (const auto* flag = value.boolean()) return out.append(*flag ? "True" : "False");
  if (const auto* number = value.integer()) return out.append(format_text("{}", *number));
  if (const auto* number = value.real()) return out.append(float_repr(*number));
  if (const auto* string = value.string()) {
    if (string->markup) out.append("Markup(");
    repr_string(machine, string->text, out);
    if (string->markup) out.append(")");
    return;
  }
  if (const auto* sequence = value.sequence()) return repr_sequence(machine, *sequence, out);
  if (const auto* dict = value.dict()) {
    out.append("{");
    for (std::size_t i = 0; i < dict->items.size(); ++i) {
      if (i > 0) out.append(", ");
      repr_into(machine, dict->items[i].first, out);
      out.append(": ");
      repr_into(machine, dict->items[i].second, out);
    }
    return out.append("}");
  }
  if (value.object()) return out.append(value.object()->repr(machine));
  out.append(value.is_none() ? "None" : "Undefined");
}

}  // namespace

// The shortest digits that give the number back; an exponent below 1e-4 and from 1e16 on.
std::string float_repr(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::scientific).ptr;
  std::string text(buffer, end);
  std::string sign;
  if (text[0] == '-') {
    sign = "-";
    text.erase(0, 1);
  }
  const std::size_t e = text.find('e');
  const int exponent = std::stoi(text.substr(e + 1));
  std::string digits = text.substr(0, 1) + (e > 2 ? text.substr(2, e - 2) : "");
  if (exponent < -4 || exponent >= 16) {
    const std::string tail = digits.size() > 1 ? "." + digits.substr(1) : "";
    return format_text("{}{}{}e{}{:02d}", sign, digits[0], tail, exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() < whole) digits.append(whole - digits.size(), '0');
  return sign + digits.substr(0, whole) + "." + (digits.size() > whole ? digits.substr(whole) : "0");
}

MarkedText str(Machine& machine, const Value& value) {
  if (const auto* string = value.string()) {
    machine.charge(string->text.size());
    return string->text;
  }
  if (value.undefined() || value.missing()) return {};
  return repr(machine, value);
}

MarkedText repr(Machine& machine, const Value& value) {
  MarkedText out;
  repr_into(machine, value, out);
  return out;
}

MarkedText escaped(Machine& machine, const Value& value) {
  const MarkedText text = str(machine, value);
  if (value.string() && value.string()->markup) return text;
  MarkedText out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text.bytes()[at];
    const std::string_view name = c == '&'    ? "&amp;"
                                  : c == '<'  ? "&lt;"
                                  : c == '>'  ? "&gt;"
                                  : c == '"'  ? "&#34;"
                                  : c == '\'' ? "&#39;"
                                              : "";
    if (name.empty())
      out.append(text, at, at + 1);
    else
      out.append(name, text.source_at(at));
  }
  machine.charge(out.size());
  return out;
}

}  // namespace steer::text::detail::jinja
