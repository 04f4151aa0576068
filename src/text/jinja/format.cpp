// Python's two ways of formatting: "%s" % x and "{}".format(x).

#include <algorithm>
#include <cmath>

#include "text/jinja/function.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail::jinja {
namespace {

/// How one value is to be laid out.
struct Layout {
  std::string fill = " ";
  char align = '\0';  ///< '<', '>', '^' or '=' (fill between sign and digits); none: by type
  char sign = '-';    ///< '-', '+' or ' '
  bool alternate = false;
  std::int64_t width = 0, precision = -1;
  std::string grouping;  ///< "," or "_"
  char type = '\0';
};

constexpr std::int64_t widest = 1 << 20;

std::int64_t digits(std::string_view text, std::size_t& at) {
  std::int64_t out = 0;
  while (at < text.size() && text[at] >= '0' && text[at] <= '9') {
    out = out * 10 + (text[at++] - '0');
    if (out > widest) raise("a width of more than {}", widest);
  }
  return out;
}

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
    body = fmt::format(fmt::runtime(layout.alternate ? "{:#." + std::to_string(precision) + kind + "}"
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

namespace {

/// Gives `%` its arguments in order, or by name.
class PercentArguments {
 public:
  explicit PercentArguments(const Value& given) : given_(given) {
    const auto* sequence = given.sequence();
    if (sequence && sequence->is_tuple())
      items_ = sequence->items;
    else
      items_ = {given};
  }
  const Value& next() {
    if (at_ >= items_.size()) raise("not enough arguments for format string");
    return items_[at_++];
  }
  Value named(std::string_view name) {
    named_ = true;
    if (!given_.dict()) raise("format requires a mapping");
    const Value* found = given_.dict()->find(name);
    if (!found) raise("'{}'", name);
    return *found;
  }
  void finish() const {
    const bool mapping = given_.dict() || (given_.sequence() && !given_.sequence()->is_tuple());
    if (at_ < items_.size() && !named_ && !mapping) raise("not all arguments converted during string formatting");
  }

 private:
  const Value& given_;
  std::vector<Value> items_;
  std::size_t at_ = 0;
  bool named_ = false;
};

MarkedText percent_number(const Value& value, Layout layout) {
  if (const auto* undefined = value.undefined()) raise("{}", undefined->words);
  const auto number = number_of(value);
  const bool whole = std::string_view("diuxXo").find(layout.type) != std::string_view::npos;
  if (!number) {
    if (whole) raise("%{} format: a real number is required, not {}", layout.type, type_name(value));
    raise("must be real number, not {}", type_name(value));
  }
  if (!whole) {
    if (layout.precision < 0) layout.precision = 6;
    return real_text(number->real, layout);
  }
  const bool decimal = layout.type == 'd' || layout.type == 'i' || layout.type == 'u';
  if (!decimal && number->is_real) raise("%{} format: an integer is required, not float", layout.type);
  if (number->is_real && !(std::abs(number->real) < 9.2e18)) unsupported("an integer of more than 64 bits");
  if (layout.precision >= 0) unsupported("%{} with a precision", layout.type);
  if (decimal) layout.type = 'd';
  return integer_text(number->is_real ? static_cast<std::int64_t>(number->real) : number->integer, layout);
}

}  // namespace

MarkedText percent_format(Machine& machine, const String& format, const Value& given) {
  const std::string_view text = format.text.bytes();
  machine.look(text.size());
  PercentArguments arguments(given);
  MarkedText out;
  std::size_t done = 0;
  for (std::size_t at; (at = text.find('%', done)) != std::string_view::npos;) {
    machine.step();
    out.append(format.text, done, at);
    ++at;
    Value named;
    if (at < text.size() && text[at] == '(') {
      const std::size_t end = text.find(')', at);
      if (end == std::string_view::npos) raise("incomplete format key");
      named = arguments.named(text.substr(at + 1, end - at - 1));
      at = end + 1;
    }
    Layout layout;
    bool left = false, zeros = false;
    for (; at < text.size() && std::string_view("#0- +").find(text[at]) != std::string_view::npos; ++at) {
      if (text[at] == '-') left = true;
      if (text[at] == '0') zeros = true;
      if (text[at] == '#') layout.alternate = true;
      if (text[at] == '+' || (text[at] == ' ' && layout.sign != '+')) layout.sign = text[at];
    }
    if (at < text.size() && text[at] == '*') unsupported("a width given as an argument of %");
    layout.width = digits(text, at);
    if (at < text.size() && text[at] == '.') {
      ++at;
      if (at < text.size() && text[at] == '*') unsupported("a precision given as an argument of %");
      layout.precision = digits(text, at);
    }
    if (at >= text.size()) raise("incomplete format");
    layout.type = text[at++];
    done = at;
    if (layout.type == '%') {
      out.append("%");
      continue;
    }
    const Value value = named.missing() ? arguments.next() : named;
    layout.align = left ? '<' : '>';
    if (layout.type == 's' || layout.type == 'r' || layout.type == 'a') {
      MarkedText part =
          layout.type == 's' ? format.markup ? escaped(machine, value) : str(machine, value) : repr(machine, value);
      if (layout.type == 'a') unsupported("the format code %a");
      out.append(string_text(part, layout));
      continue;
    }
    if (std::string_view("diuxXoeEfFgG").find(layout.type) == std::string_view::npos) {
      if (layout.type == 'c') unsupported("the format code %c");
      raise("unsupported format character '{}'", layout.type);
    }
    if (zeros && !left) {
      layout.align = '=';
      layout.fill = "0";
    }
    out.append(percent_number(value, layout));
  }
  out.append(format.text, done, text.size());
  arguments.finish();
  return out;
}

namespace {

/// One `str.format` call: fields may stand inside the specification of others, once.
class BraceFormatter {
 public:
  BraceFormatter(Machine& machine, Call& call) : machine_(machine), call_(call) {}

  MarkedText run(const MarkedText& format, int level) {
    if (level > 2) raise("Max string recursion exceeded");
    const std::string_view text = format.bytes();
    machine_.look(text.size());
    MarkedText out;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t brace = text.find_first_of("{}", at);
      if (brace == std::string_view::npos) {
        out.append(format, at, text.size());
        break;
      }
      out.append(format, at, brace);
      at = brace + 1;
      if (at < text.size() && text[at] == text[brace]) {
        out.append(format, brace, at);
        ++at;
        continue;
      }
      if (text[brace] == '}') raise("Single '}}' encountered in format string");
      std::size_t end = at;
      for (int depth = 1; end < text.size(); ++end) {
        depth += text[end] == '{' ? 1 : text[end] == '}' ? -1 : 0;
        if (depth == 0) break;
      }
      if (end >= text.size()) raise("expected '}}' before end of string");
      out.append(field(text.substr(at, end - at), level));
      at = end + 1;
    }
    return out;
  }

 private:
  MarkedText field(std::string_view text, int level) {
    machine_.step();
    const std::size_t colon = text.find(':');
    std::string_view name = text.substr(0, colon);
    const std::string_view specification =
        colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
    char conversion = '\0';
    if (const std::size_t mark = name.find('!'); mark != std::string_view::npos) {
      if (name.size() != mark + 2) raise("end of string while looking for conversion specifier");
      conversion = name[mark + 1];
      name = name.substr(0, mark);
    }
    Value value = look_up(name);
    if (conversion == 'r')
      value = machine_.string(repr(machine_, value));
    else if (conversion == 's')
      value = machine_.string(str(machine_, value));
    else if (conversion)
      unsupported("the conversion !{} of str.format", conversion);
    const MarkedText layout = run(MarkedText(specification), level + 1);
    return format_value(machine_, value, layout.bytes());
  }

  Value look_up(std::string_view path) {
    std::size_t at = path.find_first_of(".[");
    Value value = first(path.substr(0, at));
    while (at < path.size()) {
      machine_.step();
      if (path[at] == '.') {
        const std::size_t end = std::min(path.find_first_of(".[", at + 1), path.size());
        value = attribute(machine_, value, path.substr(at + 1, end - at - 1));
        at = end;
      } else {
        const std::size_t end = path.find(']', at);
        if (end == std::string_view::npos) raise("Missing ']' in format string");
        const std::string_view key = path.substr(at + 1, end - at - 1);
        std::size_t digit = 0;
        const bool number = !key.empty() && std::ranges::all_of(key, [](char c) { return c >= '0' && c <= '9'; });
        value = item(machine_, value, number ? Value(digits(key, digit)) : machine_.string(key));
        at = end + 1;
      }
    }
    return value;
  }

  Value first(std::string_view name) {
    std::size_t digit = 0;
    if (name.empty() || std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; })) {
      if (name.empty() && numbered_)
        raise("cannot switch from manual field specification to automatic field numbering");
      if (!name.empty() && next_ > 0)
        raise("cannot switch from automatic field numbering to manual field specification");
      if (!name.empty()) numbered_ = true;
      const auto at = static_cast<std::size_t>(name.empty() ? next_++ : digits(name, digit));
      if (at >= call_.args.size()) raise("Replacement index {} out of range for positional args tuple", at);
      return call_.args[at];
    }
    for (const auto& [key, value] : call_.named)
      if (key == name) return value;
    raise("'{}'", name);
  }

  Machine& machine_;
  Call& call_;
  std::int64_t next_ = 0;
  bool numbered_ = false;
};

}  // namespace

MarkedText brace_format(Machine& machine, const MarkedText& text, Call& call) {
  return BraceFormatter(machine, call).run(text, 0);
}

}  // namespace steer::text::detail::jinja
