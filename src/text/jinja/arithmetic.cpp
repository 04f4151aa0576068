// Python's arithmetic, with integers of 64 bits: beyond them a template is refused, never wrong.

#include <cmath>

#include "text/jinja/function.hpp"
#include "text/jinja/python.hpp"

namespace steer::text::detail::jinja {
namespace {

constexpr std::string_view sign_of(Operator op) {
  constexpr std::string_view signs[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
  return signs[static_cast<int>(op)];
}

[[noreturn]] void too_large() { unsupported("an integer of more than 64 bits"); }
[[noreturn]] void by_zero() { raise("division by zero"); }

std::int64_t floor_quotient(std::int64_t a, std::int64_t b) {
  if (b == 0) by_zero();
  if (b == -1) {
    std::int64_t out;
    if (__builtin_sub_overflow(std::int64_t{0}, a, &out)) too_large();
    return out;
  }
  return a / b - ((a % b != 0 && (a % b < 0) != (b < 0)) ? 1 : 0);
}

std::int64_t modulo(std::int64_t a, std::int64_t b) {
  if (b == 0) by_zero();
  if (b == -1) return 0;
  const std::int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

double modulo(double a, double b) {
  if (b == 0) by_zero();
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

double floor_quotient(double a, double b) {
  const double rest = modulo(a, b), quotient = (a - rest) / b;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double whole = std::floor(quotient);
  return quotient - whole > 0.5 ? whole + 1 : whole;
}

Value power(const Number& a, const Number& b) {
  if (!a.is_real && !b.is_real && b.integer >= 0) {
    std::int64_t out = 1, base = a.integer;
    for (std::int64_t e = b.integer; e > 0; e >>= 1) {
      if ((e & 1) && __builtin_mul_overflow(out, base, &out)) too_large();
      if (e > 1 && __builtin_mul_overflow(base, base, &base)) too_large();
    }
    return Value(out);
  }
  if (a.real == 0 && b.real < 0) raise("0.0 cannot be raised to a negative power");
  if (a.real < 0 && std::isfinite(b.real) && b.real != std::floor(b.real)) unsupported("complex numbers");
  const double out = std::pow(a.real, b.real);
  if (std::isinf(out) && std::isfinite(a.real) && std::isfinite(b.real)) raise("Numerical result out of range");
  return Value(out);
}

Value numbers(Operator op, const Number& a, const Number& b) {
  if (op == Operator::power) return power(a, b);
  if (op == Operator::divide) {
    if (b.real == 0) by_zero();
    return Value(a.real / b.real);
  }
  if (a.is_real || b.is_real) {
    switch (op) {
      case Operator::add:
        return Value(a.real + b.real);
      case Operator::subtract:
        return Value(a.real - b.real);
      case Operator::multiply:
        return Value(a.real * b.real);
      case Operator::floor_divide:
        return Value(floor_quotient(a.real, b.real));
      default:
        return Value(modulo(a.real, b.real));
    }
  }
  std::int64_t out = 0;
  bool over = false;
  switch (op) {
    case Operator::add:
      over = __builtin_add_overflow(a.integer, b.integer, &out);
      break;
    case Operator::subtract:
      over = __builtin_sub_overflow(a.integer, b.integer, &out);
      break;
    case Operator::multiply:
      over = __builtin_mul_overflow(a.integer, b.integer, &out);
      break;
    case Operator::floor_divide:
      return Value(floor_quotient(a.integer, b.integer));
    default:
      return Value(modulo(a.integer, b.integer));
  }
  if (over) too_large();
  return Value(out);
}

Value add_strings(Machine& machine, const Value& a, const Value& b) {
  const bool markup = a.string()->markup || b.string()->markup;
  MarkedText out = markup ? escaped(machine, a) : a.string()->text;
  out.append(markup ? escaped(machine, b) : b.string()->text);
  return machine.string(std::move(out), markup);
}

Value repeated(Machine& machine, const Value& value, std::int64_t times) {
  const auto count = static_cast<std::size_t>(times < 0 ? 0 : times);
  if (const auto* string = value.string()) {
    MarkedText out;
    if (string->text.empty() || count == 0) return machine.string(MarkedText(), string->markup);
    if (count > MarkedText::longest / string->text.size()) raise("a text of more than 16 MiB");
    out.reserve(string->text.size() * count);
    machine.charge(string->text.size() * count);
    for (std::size_t i = 0; i < count; ++i) out.append(string->text);
    return machine.string(std::move(out), string->markup);
  }
  const auto& items = value.sequence()->items;
  if (!items.empty() && count > (std::size_t{1} << 24) / items.size()) raise("a list of more than 16 million items");
  machine.charge(items.size() * count * sizeof(Value));
  std::vector<Value> out;
  for (std::size_t i = 0; i < count && !items.empty(); ++i) out.insert(out.end(), items.begin(), items.end());
  return machine.sequence(value.sequence()->is_tuple() ? Sequence::Type::tuple : Sequence::Type::list, std::move(out));
}

bool repeats(const Value& value) {
  const auto* sequence = value.sequence();
  return value.string() || (sequence && (sequence->is_tuple() || sequence->type == Sequence::Type::list));
}

Value add_sequences(Machine& machine, const Sequence& a, const Sequence& b) {
  machine.charge((a.items.size() + b.items.size()) * sizeof(Value));
  std::vector<Value> items = a.items;
  items.insert(items.end(), b.items.begin(), b.items.end());
  return machine.sequence(a.is_tuple() ? Sequence::Type::tuple : Sequence::Type::list, std::move(items));
}

}  // namespace

Value arithmetic(Machine& machine, Operator op, const Value& a, const Value& b) {
  if (op == Operator::modulo && a.string())
    return machine.string(percent_format(machine, *a.string(), b), a.string()->markup);
  for (const Value* value : {&a, &b}) refuse_undefined(*value);
  const auto x = number_of(a), y = number_of(b);
  if (x && y) return numbers(op, *x, *y);
  if (op == Operator::add) {
    if (a.string() && b.string()) return add_strings(machine, a, b);
    const auto *first = a.sequence(), *second = b.sequence();
    if (first && second && repeats(a) && repeats(b) && first->is_tuple() == second->is_tuple())
      return add_sequences(machine, *first, *second);
    if (repeats(a)) raise("can only concatenate {0} (not \"{1}\") to {0}", type_name(a), type_name(b));
  }
  if (op == Operator::multiply) {
    if (y && !y->is_real && repeats(a)) return repeated(machine, a, y->integer);
    if (x && !x->is_real && repeats(b)) return repeated(machine, b, x->integer);
  }
  raise("unsupported operand type(s) for {}: '{}' and '{}'", sign_of(op), type_name(a), type_name(b));
}

Value negative(const Value& value) {
  refuse_undefined(value);
  const auto number = number_of(value);
  if (!number) raise("bad operand type for unary -: '{}'", type_name(value));
  if (number->is_real) return Value(-number->real);
  std::int64_t out;
  if (__builtin_sub_overflow(std::int64_t{0}, number->integer, &out)) too_large();
  return Value(out);
}

Value positive(const Value& value) {
  refuse_undefined(value);
  const auto number = number_of(value);
  if (!number) raise("bad operand type for unary +: '{}'", type_name(value));
  return number->is_real ? Value(number->real) : Value(number->integer);
}

}  // namespace steer::text::detail::jinja
