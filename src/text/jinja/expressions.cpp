// How expressions are evaluated.

#include <algorithm>

#include "text/jinja/syntax.hpp"

namespace steer::text::detail::jinja {

Call Arguments::evaluate(Machine& machine, Value first, std::vector<std::string>& storage) const {
  Call call;
  call.args.reserve(positional.size() + 1);
  if (!first.missing()) call.args.push_back(std::move(first));
  for (const auto& argument : positional) call.args.push_back(machine.evaluate(*argument));
  for (const auto& [name, argument] : named) call.named.emplace_back(name, machine.evaluate(*argument));
  if (list)
    for (Value& value : collect(machine, machine.evaluate(*list))) call.args.push_back(std::move(value));
  if (!dict) return call;
  const Value names = machine.evaluate(*dict);
  if (!names.dict()) raise("argument after ** must be a mapping, not {}", type_name(names));
  storage.reserve(names.dict()->items.size());
  for (const auto& [key, value] : names.dict()->items) {
    if (!key.string()) raise("keywords must be strings");
    storage.emplace_back(key.string()->text.bytes());
    for (const auto& [name, given] : call.named)
      if (name == storage.back()) raise("got multiple values for keyword argument '{}'", name);
    call.named.emplace_back(storage.back(), value);
  }
  return call;
}

Value Attribute::evaluate(Machine& machine) const { return attribute(machine, machine.evaluate(*base), name); }

Value Item::evaluate(Machine& machine) const {
  const Value value = machine.evaluate(*base);
  return item(machine, value, machine.evaluate(*key));
}

Value Slice::evaluate(Machine& machine) const {
  const Value value = machine.evaluate(*base);
  const auto bound = [&](const ExpressionPtr& part) { return part ? machine.evaluate(*part) : Value(); };
  const Value first = bound(start), last = bound(stop), by = bound(step);
  return slice(machine, value, first, last, by);
}

Value CallExpression::evaluate(Machine& machine) const { return evaluate_with(machine, "", {}); }

Value CallExpression::evaluate_with(Machine& machine, std::string_view name, Value extra) const {
  const Value function = machine.evaluate(*callee);
  std::vector<std::string> storage;
  Call arguments_given = arguments.evaluate(machine, {}, storage);
  if (!extra.missing()) arguments_given.named.emplace_back(name, std::move(extra));
  machine.line = line;
  return call(machine, function, arguments_given);
}

Value Apply::evaluate(Machine& machine) const { return apply(machine, base ? machine.evaluate(*base) : Value()); }

Value Apply::apply(Machine& machine, Value value) const {
  if (!function) raise("No {} named '{}' found.", is_test ? "test" : "filter", name);
  std::vector<std::string> storage;
  Call call = arguments.evaluate(machine, std::move(value), storage);
  machine.line = line;
  return invoke(machine, *function, call);
}

Value Not::evaluate(Machine& machine) const { return Value(!truth(machine.evaluate(*operand))); }

Value Sign::evaluate(Machine& machine) const {
  const Value value = machine.evaluate(*operand);
  return is_negative ? negative(value) : positive(value);
}

Value Junction::evaluate(Machine& machine) const {
  Value value = machine.evaluate(*left);
  return truth(value) == is_and ? machine.evaluate(*right) : value;
}

Value Arithmetic::evaluate(Machine& machine) const {
  const Value a = machine.evaluate(*left);
  return arithmetic(machine, op, a, machine.evaluate(*right));
}

Value Concatenation::evaluate(Machine& machine) const {
  MarkedText out;
  for (const auto& part : parts) out.append(str(machine, machine.evaluate(*part)));
  return machine.string(std::move(out));
}

bool compare(Machine& machine, Comparison how, const Value& a, const Value& b) {
  switch (how) {
    case Comparison::equal:
      return equal(machine, a, b);
    case Comparison::unequal:
      return !equal(machine, a, b);
    case Comparison::less:
      return less(machine, a, b);
    case Comparison::less_equal:
      return less(machine, a, b, "<=") || equal(machine, a, b);
    case Comparison::greater:
      return less(machine, b, a, ">");
    case Comparison::greater_equal:
      return less(machine, b, a, ">=") || equal(machine, a, b);
    case Comparison::in:
      return contains(machine, b, a);
    case Comparison::not_in:
      return !contains(machine, b, a);
  }
  return false;
}

Value Comparisons::evaluate(Machine& machine) const {
  Value left = machine.evaluate(*first);
  for (const auto& [how, operand] : rest) {
    Value right = machine.evaluate(*operand);
    machine.line = line;
    if (!compare(machine, how, left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Conditional::evaluate(Machine& machine) const {
  if (truth(machine.evaluate(*test))) return machine.evaluate(*yes);
  if (no) return machine.evaluate(*no);
  return Value::undefined("the inline if-expression evaluated to false and no else section was defined.");
}

Value ListLiteral::evaluate(Machine& machine) const {
  std::vector<Value> values;
  values.reserve(items.size());
  for (const auto& item : items) values.push_back(machine.evaluate(*item));
  return is_tuple ? machine.tuple(std::move(values)) : machine.list(std::move(values));
}

Value DictLiteral::evaluate(Machine& machine) const {
  std::vector<std::pair<Value, Value>> values;
  for (const auto& [key, value] : items) {
    Value name = machine.evaluate(*key);
    put(machine, values, std::move(name), machine.evaluate(*value));
  }
  return machine.dict(std::move(values));
}

}  // namespace steer::text::detail::jinja
