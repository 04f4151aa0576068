// "%s" % x.

#include <cmath>

#include "text/jinja/format.hpp"
#include "text/jinja/python.hpp"

namespace steer::text::detail::jinja {
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
  refuse_undefined(value);
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
      layout.fill = '0';
    }
    out.append(percent_number(value, layout));
  }
  out.append(format.text, done, text.size());
  arguments.finish();
  return out;
}

}  // namespace steer::text::detail::jinja
