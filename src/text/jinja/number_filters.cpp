// jinja2's filters that make or change numbers.

#include <charconv>
#include <cmath>

#include "core/ascii.hpp"
#include "core/format_text.hpp"
#include "text/jinja/function.hpp"
#include "text/jinja/unicode.hpp"

namespace steer::text::detail::jinja {
namespace {

std::string_view stripped(std::string_view text) {
  text = text.substr(0, end_without_space(text));
  return text.substr(begin_without_space(text));
}

// Digits without the underscores that Python allows between them; nothing where they stand elsewhere.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '_') {
      out += text[at];
      continue;
    }
    const auto alnum = [&](std::size_t i) {
      return i < text.size() && std::isalnum(static_cast<unsigned char>(text[i]));
    };
    if (at == 0 || !alnum(at - 1) || !alnum(at + 1)) return std::nullopt;
  }
  return out;
}

// int(text, base)
std::optional<std::int64_t> parse_integer(std::string_view text, std::int64_t base) {
  text = stripped(text);
  if ((base < 2 && base != 0) || base > 36) raise("int() base must be >= 2 and <= 36, or 0");
  const bool minus = text.starts_with('-');
  if (minus || text.starts_with('+')) text.remove_prefix(1);
  const char kind = text.size() > 2 && text[0] == '0' ? static_cast<char>(text[1] | 0x20) : '\0';
  const std::int64_t spelled = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
  if (spelled && (base == 0 || base == spelled)) {
    base = spelled;
    text.remove_prefix(2);
    if (text.starts_with('_')) text.remove_prefix(1);
  } else if (base == 0) {
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != std::string_view::npos)
      return std::nullopt;
    base = 10;
  }
  const auto digits = without_underscores(text);
  if (!digits || digits->empty() || !std::isalnum(static_cast<unsigned char>((*digits)[0]))) return std::nullopt;
  const std::string signed_digits = (minus ? "-" : "") + *digits;
  std::int64_t out = 0;
  const auto result =
      std::from_chars(signed_digits.data(), signed_digits.data() + signed_digits.size(), out, static_cast<int>(base));
  if (result.ptr != signed_digits.data() + signed_digits.size()) return std::nullopt;
  if (result.ec != std::errc()) unsupported("an integer of more than 64 bits");
  return out;
}

// float(text)
std::optional<double> parse_real(std::string_view text) {
  text = stripped(text);
  const bool minus = text.starts_with('-');
  if (minus || text.starts_with('+')) text.remove_prefix(1);
  const auto digits = without_underscores(text);
  if (!digits || digits->empty()) return std::nullopt;
  const std::string lower = ascii_lower(*digits);
  double out = 0;
  if (lower == "inf" || lower == "infinity") {
    out = INFINITY;
  } else if (lower == "nan") {
    out = NAN;
  } else {
    if (!std::isdigit(static_cast<unsigned char>(lower[0])) && lower[0] != '.') return std::nullopt;
    const auto result = std::from_chars(lower.data(), lower.data() + lower.size(), out);
    if (result.ptr != lower.data() + lower.size()) return std::nullopt;
    if (result.ec == std::errc::result_out_of_range)
      out = lower.find("e-") != std::string::npos ? 0.0 : INFINITY;
    else if (result.ec != std::errc())
      return std::nullopt;
  }
  return minus ? -out : out;
}

std::optional<std::int64_t> truncated(double real) {
  if (!std::isfinite(real)) return std::nullopt;
  if (std::abs(real) >= 9.2e18) unsupported("an integer of more than 64 bits");
  return static_cast<std::int64_t>(real);
}

Value to_int(Machine& machine, Call& call) {
  const Value& value = call.args[0];
  refuse_undefined(value);
  const Value fallback = call.args[1].missing() ? Value(std::int64_t{0}) : call.args[1];
  if (const auto* string = value.string()) {
    machine.look(string->text.size());
    if (const auto whole = parse_integer(string->text.bytes(), integer_argument(call, 2, 10, "int")))
      return Value(*whole);
    const auto real = parse_real(string->text.bytes());
    const auto whole = real ? truncated(*real) : std::nullopt;
    return whole ? Value(*whole) : fallback;
  }
  const auto number = number_of(value);
  if (!number) return fallback;
  if (!number->is_real) return Value(number->integer);
  if (std::isinf(number->real)) raise("cannot convert float infinity to integer");
  const auto whole = truncated(number->real);
  return whole ? Value(*whole) : fallback;
}

Value to_float(Machine& machine, Call& call) {
  const Value& value = call.args[0];
  refuse_undefined(value);
  std::optional<double> real;
  if (const auto* string = value.string()) {
    machine.look(string->text.size());
    real = parse_real(string->text.bytes());
  } else if (const auto number = number_of(value)) {
    real = number->real;
  }
  if (real) return Value(*real);
  return call.args[1].missing() ? Value(0.0) : call.args[1];
}

Value absolute(Machine&, Call& call) {
  refuse_undefined(call.args[0]);
  const auto number = number_of(call.args[0]);
  if (!number) raise("bad operand type for abs(): '{}'", type_name(call.args[0]));
  if (number->is_real) return Value(std::abs(number->real));
  return number->integer < 0 ? negative(Value(number->integer)) : Value(number->integer);
}

// round() of a float: correctly rounded decimal digits, halves to the even one.
double rounded(double value, std::int64_t precision) {
  if (!std::isfinite(value) || precision > 300) return value;
  if (precision < -300) return std::copysign(0.0, value);
  if (precision >= 0) return std::strtod(format_text("{:.{}f}", value, precision).c_str(), nullptr);
  const double scale = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(value / scale) * scale;
}

Value round(Machine&, Call& call) {
  refuse_undefined(call.args[0]);
  const auto number = number_of(call.args[0]);
  if (!number) raise("type {} doesn't define __round__ method", type_name(call.args[0]));
  const std::int64_t precision = integer_argument(call, 1, 0, "round");
  const std::string_view how = call.args[2].missing() ? "common" : text_argument(call, 2, "round").bytes();
  if (how != "common" && how != "ceil" && how != "floor") raise("method must be common, ceil or floor");
  if (how == "common") {
    if (number->is_real) return Value(rounded(number->real, precision));
    if (precision >= 0) return Value(number->integer);
    if (precision < -18) return Value(std::int64_t{0});
    std::int64_t scale = 1;
    for (std::int64_t i = 0; i < -precision; ++i) scale *= 10;
    std::int64_t quotient = number->integer / scale, rest = number->integer % scale;
    const std::int64_t twice = rest < 0 ? -rest - (scale + rest) : rest - (scale - rest);  // 2|rest| - scale
    if (twice > 0 || (twice == 0 && quotient % 2 != 0)) quotient += number->integer < 0 ? -1 : 1;
    return Value(quotient * scale);
  }
  if (precision > 18 || precision < -18) unsupported("round with a precision of {}", precision);
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = number->real * scale;
  const double whole = how == "ceil" ? std::ceil(scaled) : std::floor(scaled);
  return Value(whole / scale);
}

Value file_size(Machine& machine, Call& call) {
  Call value{{call.args[0], {}}, {}};
  const double bytes = *to_float(machine, value).real();
  const bool binary = flag_argument(call, 1, false);
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return machine.string("1 Byte");
  if (bytes < base) return machine.string(format_text("{} Bytes", static_cast<std::int64_t>(bytes)));
  double unit = base;
  const std::string_view prefixes = binary ? "KMGTPEZY" : "kMGTPEZY";
  for (std::size_t i = 0;; ++i) {
    unit *= base;
    if (bytes < unit || i + 1 == prefixes.size())
      return machine.string(format_text("{:.1f} {}{}", base * bytes / unit, prefixes[i], binary ? "iB" : "B"));
  }
}

}  // namespace

std::span<const Function> number_filters() {
  static constexpr Function filters[] = {
      {"int", {"value", "default", "base"}, 1, to_int},
      {"float", {"value", "default"}, 1, to_float},
      {"abs", {"x"}, 1, absolute},
      {"round", {"value", "precision", "method"}, 1, round},
      {"filesizeformat", {"value", "binary"}, 1, file_size},
  };
  return filters;
}

}  // namespace steer::text::detail::jinja
