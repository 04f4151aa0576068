// One value laid out as a format specification says: what "{:>8.3f}" asks for.

#include "text/jinja/format.hpp"

#include <algorithm>
#include <cmath>

#include "core/format_text.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail::jinja {
namespace {

constexpr std::int64_t widest = 1 << 20;

MarkedText padded(const MarkedText& text, const Layout& layout, char align) {
  const std::int64_t missing = layout.width - count_codes(text.bytes());
  if (missing <= 0) return text;
  const std::int64_t before = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  MarkedText out;
  for (std::int64_t i = 0; i < before; ++i) out.append(layout.fill);
  out.append(text);
  for (std::int64_t i = before; i < missing; ++i) out.append(layout.fill);
  return out;
}

// Sign, digits, and what the layout puts around them.
MarkedText number_text(bool negative, std::string prefix, std::string body, const Layout& layout) {
  if (!layout.grouping.empty()) {
    const std::size_t step =
        layout.type == 'x' || layout.type == 'X' || layout.type == 'o' || layout.type == 'b' ? 4 : 3;
    std::size_t whole = body.find_first_not_of("0123456789abcdefABCDEF");
    if (whole == std::string::npos || layout.type == 'e' || layout.type == 'g')
      whole = std::min(body.size(), body.find_first_of(".e"));
    for (std::size_t at = std::min(whole, body.size()); at > step; at -= step) body.insert(at - step, layout.grouping);
  }
  std::string sign = negative ? "-" : layout.sign == '-' ? "" : std::string(1, layout.sign);
  sign += prefix;
  const char align = layout.align ? layout.align : '>';
  if (align == '=') {
    const std::int64_t missing = layout.width - static_cast<std::int64_t>(sign.size() + body.size());
    if (missing > 0 && !layout.grouping.empty()) unsupported("zeros before grouped digits");
    std::string fill;
    for (std::int64_t i = 0; i < missing; ++i) fill += layout.fill;
    return MarkedText(sign + fill + body);
  }
  return padded(MarkedText(sign + body), layout, align);
}

std::string in_base(std::uint64_t number, unsigned base, bool upper) {
  std::string out;
  do {
    const auto digit = static_cast<char>(number % base);
    out += static_cast<char>(digit < 10 ? '0' + digit : (upper ? 'A' : 'a') + digit - 10);
    number /= base;
  } while (number);
  std::ranges::reverse(out);
  return out;
}

}  // namespace

std::int64_t digits(std::string_view text, std::size_t& at) {
  std::int64_t out = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    out = out * 10 + (text[at++] - '0');
    if (out > widest) raise("a width of more than {}", widest);
  }
  return out;
}

MarkedText integer_text(std::int64_t number, const Layout& layout) {
  const std::uint64_t size = number < 0 ? 0 - static_cast<std::uint64_t>(number) : static_cast<std::uint64_t>(number);
  switch (layout.type) {
    case 'x':
    case 'X':
      return number_text(number < 0, layout.alternate ? std::string("0") + layout.type : "",
                         in_base(size, 16, layout.type == 'X'), layout);
    case 'o':
      return number_text(number < 0, layout.alternate ? "0o" : "", in_base(size, 8, false), layout);
    case 'b':
      return number_text(number < 0, layout.alternate ? "0b" : "", in_base(size, 2, false), layout);
    default:
      return number_text(number < 0, "", in_base(size, 10, false), layout);
  }
}

MarkedText real_text(double number, const Layout& layout) {
  const bool negative = std::signbit(number) && !std::isnan(number);
  const double size = std::abs(number);
  std::string body;
  if (!std::isfinite(size)) {
    body = std::isnan(size) ? "nan" : "inf";
    if (layout.type >= 'A' && layout.type <= 'Z')
      std::ranges::transform(body, body.begin(), [](char c) { return static_cast<char>(c - 32); });
  } else if (layout.type == '\0' && layout.precision < 0) {
    body = float_repr(size);
  } else {
    if (layout.precision > 1000) raise("a precision of more than 1000");
    const int precision = layout.precision < 0 ? 6 : static_cast<int>(layout.precision);
    const double shown = layout.type == '%' ? size * 100 : size;
    std::string kind(1, layout.type == '%' || layout.type == 'F' ? 'f' : layout.type == 'n' ? 'g' : layout.type);
    if (layout.type == '\0') unsupported("a precision without a type for a float");
    body = format_text(fmt::runtime(layout.alternate ? "{:#." + std::to_string(precision) + kind + "}"
                                                     : "{:." + std::to_string(precision) + kind + "}"),
                       shown);
    if (layout.type == '%') body += '%';
  }
  return number_text(negative, "", std::move(body), layout);
}

// Text cut to the precision and laid out.
MarkedText string_text(const MarkedText& text, const Layout& layout) {
  MarkedText cut = text;
  if (layout.precision >= 0 && count_codes(text.bytes()) > layout.precision) {
    std::size_t end = 0;
    for (std::int64_t i = 0; i < layout.precision; ++i) end += steer::text::detail::utf8_length(text.bytes()[end]);
    cut = text.slice(0, end);
  }
  return padded(cut, layout, layout.align ? layout.align : '<');
}

namespace {

// [[fill]align][sign][#][0][width][grouping][.precision][type]
Layout parse_layout(std::string_view text) {
  Layout out;
  std::size_t at = 0;
  const auto aligns = [&](std::size_t i) {
    return i < text.size() && std::string_view("<>=^").find(text[i]) != std::string_view::npos;
  };
  const std::size_t first = text.empty() ? 0 : steer::text::detail::utf8_length(text[0]);
  if (!text.empty() && aligns(first)) {
    out.fill = text.substr(0, first);
    out.align = text[first];
    at = first + 1;
  } else if (aligns(0)) {
    out.align = text[at++];
  }
  if (at < text.size() && std::string_view("+- ").find(text[at]) != std::string_view::npos) out.sign = text[at++];
  if (at < text.size() && text[at] == '#') out.alternate = (++at, true);
  if (at < text.size() && text[at] == '0') {
    ++at;
    if (!out.align) {
      out.align = '=';
      out.fill = "0";
    }
  }
  out.width = digits(text, at);
  if (at < text.size() && (text[at] == ',' || text[at] == '_')) out.grouping = text[at++];
  if (at < text.size() && text[at] == '.') {
    const std::size_t begin = ++at;
    out.precision = digits(text, at);
    if (at == begin) raise("Format specifier missing precision");
  }
  if (at < text.size()) out.type = text[at++];
  if (at < text.size()) raise("Invalid format specifier '{}'", text);
  return out;
}

}  // namespace

MarkedText format_value(Machine& machine, const Value& value, std::string_view specification) {
  if (specification.empty()) return str(machine, value);
  Layout layout = parse_layout(specification);
  const auto wrong_type = [&]() {
    raise("Unknown format code '{}' for object of type '{}'", layout.type, type_name(value));
  };
  const auto is_one_of = [&](std::string_view types) {
    return !layout.type || types.find(layout.type) != std::string_view::npos;
  };
  if (const auto* string = value.string()) {
    if (!is_one_of("s")) wrong_type();
    if (layout.align == '=') {
      if (layout.fill != "0") raise("'=' alignment not allowed in string format specifier");
      layout.align = '<';
    }
    return string_text(string->text, layout);
  }
  const auto number = number_of(value);
  if (!number) raise("unsupported format string passed to {}.__format__", type_name(value));
  const bool as_real =
      number->is_real || (layout.type && std::string_view("eEfFgG%").find(layout.type) != std::string_view::npos);
  if (as_real) {
    if (!is_one_of("eEfFgGn%")) wrong_type();
    return real_text(number->real, layout);
  }
  if (layout.type == 'c') unsupported("the format code c");
  if (!is_one_of("dxXobn")) wrong_type();
  if (layout.precision >= 0) raise("Precision not allowed in integer format specifier");
  return integer_text(number->integer, layout);
}

}  // namespace steer::text::detail::jinja
