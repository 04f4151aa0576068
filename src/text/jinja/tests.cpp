// jinja2's tests: what may stand behind `is`.

#include "text/jinja/function.hpp"
#include "text/jinja/syntax.hpp"

namespace steer::text::detail::jinja {
namespace {

template <bool (*holds)(const Value&)>
Value simple(Machine&, Call& call) {
  return Value(holds(call.args[0]));
}
template <Comparison how>
Value compared(Machine& machine, Call& call) {
  return Value(compare(machine, how, call.args[0], call.args[1]));
}

bool is_defined(const Value& value) { return !value.undefined(); }
bool is_undefined(const Value& value) { return value.undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_boolean(const Value& value) { return value.boolean(); }
bool is_true(const Value& value) { return value.boolean() && *value.boolean(); }
bool is_false(const Value& value) { return value.boolean() && !*value.boolean(); }
bool is_integer(const Value& value) { return value.integer(); }
bool is_float(const Value& value) { return value.real(); }
bool is_number(const Value& value) { return number_of(value).has_value(); }
bool is_string(const Value& value) { return value.string(); }
bool is_mapping(const Value& value) { return value.dict(); }
bool is_escaped(const Value& value) { return value.string() && value.string()->markup; }
bool is_callable(const Value& value) { return value.undefined() || (value.object() && value.object()->callable()); }
bool is_iterable(const Value& value) {
  return iterable(value) || (value.object() && value.object()->type_name() == "LoopContext");
}
// Has a length and can be subscripted.
bool is_sequence(const Value& value) {
  const auto* sequence = value.sequence();
  return value.string() || value.dict() || value.undefined() ||
         (sequence &&
          (sequence->is_tuple() || sequence->type == Sequence::Type::list || sequence->type == Sequence::Type::range));
}

Value in_case(Machine& machine, Call& call, std::string_view method) {
  Call inner{{machine.string(str(machine, call.args[0]))}, {}};
  return find_method(inner.args[0], method)->run(machine, inner);
}
Value is_lower(Machine& machine, Call& call) { return in_case(machine, call, "islower"); }
Value is_upper(Machine& machine, Call& call) { return in_case(machine, call, "isupper"); }

bool remainder_is(Machine& machine, const Value& value, const Value& by, std::int64_t wanted) {
  return equal(machine, arithmetic(machine, Operator::modulo, value, by), Value(wanted));
}
Value is_odd(Machine& machine, Call& call) {
  return Value(remainder_is(machine, call.args[0], Value(std::int64_t{2}), 1));
}
Value is_even(Machine& machine, Call& call) {
  return Value(remainder_is(machine, call.args[0], Value(std::int64_t{2}), 0));
}
Value is_divisible_by(Machine& machine, Call& call) {
  return Value(remainder_is(machine, call.args[0], call.args[1], 0));
}

// One and the same object; equal strings and numbers may or may not be in Python, so they are not asked.
Value is_same(Machine& machine, Call& call) {
  const Value &a = call.args[0], &b = call.args[1];
  if (a.is_none() || a.boolean() || b.is_none() || b.boolean())
    return Value(type_name(a) == type_name(b) && equal(machine, a, b));
  if (a.undefined() && b.undefined()) return Value(a.undefined() == b.undefined());
  if (a.object() && b.object()) return Value(a.object() == b.object());
  if (a.sequence() && b.sequence()) return Value(a.sequence() == b.sequence());
  if (a.dict() && b.dict()) return Value(a.dict() == b.dict());
  if (a.string() && a.string() == b.string()) return Value(true);
  if (type_name(a) != type_name(b) || !equal(machine, a, b)) return Value(false);
  unsupported("the test sameas of two equal values of type {}", type_name(a));
}

Value names_filter(Machine&, Call& call) {
  return Value(call.args[0].string() && find_filter(call.args[0].string()->text.bytes()) != nullptr);
}
Value names_test(Machine&, Call& call) {
  return Value(call.args[0].string() && find_test(call.args[0].string()->text.bytes()) != nullptr);
}
Value is_in(Machine& machine, Call& call) { return Value(contains(machine, call.args[1], call.args[0])); }

constexpr Function table[] = {
    {"defined", {"value"}, 1, simple<is_defined>},
    {"undefined", {"value"}, 1, simple<is_undefined>},
    {"none", {"value"}, 1, simple<is_none>},
    {"boolean", {"value"}, 1, simple<is_boolean>},
    {"true", {"value"}, 1, simple<is_true>},
    {"false", {"value"}, 1, simple<is_false>},
    {"integer", {"value"}, 1, simple<is_integer>},
    {"float", {"value"}, 1, simple<is_float>},
    {"number", {"value"}, 1, simple<is_number>},
    {"string", {"value"}, 1, simple<is_string>},
    {"mapping", {"value"}, 1, simple<is_mapping>},
    {"iterable", {"value"}, 1, simple<is_iterable>},
    {"sequence", {"value"}, 1, simple<is_sequence>},
    {"callable", {"value"}, 1, simple<is_callable>},
    {"escaped", {"value"}, 1, simple<is_escaped>},
    {"lower", {"value"}, 1, is_lower},
    {"upper", {"value"}, 1, is_upper},
    {"odd", {"value"}, 1, is_odd},
    {"even", {"value"}, 1, is_even},
    {"divisibleby", {"value", "num"}, 2, is_divisible_by},
    {"sameas", {"value", "other"}, 2, is_same},
    {"filter", {"value"}, 1, names_filter},
    {"test", {"value"}, 1, names_test},
    {"in", {"value", "seq"}, 2, is_in},
    {"eq", {"a", "b"}, 2, compared<Comparison::equal>},
    {"equalto", {"a", "b"}, 2, compared<Comparison::equal>},
    {"==", {"a", "b"}, 2, compared<Comparison::equal>},
    {"ne", {"a", "b"}, 2, compared<Comparison::unequal>},
    {"!=", {"a", "b"}, 2, compared<Comparison::unequal>},
    {"lt", {"a", "b"}, 2, compared<Comparison::less>},
    {"lessthan", {"a", "b"}, 2, compared<Comparison::less>},
    {"<", {"a", "b"}, 2, compared<Comparison::less>},
    {"le", {"a", "b"}, 2, compared<Comparison::less_equal>},
    {"<=", {"a", "b"}, 2, compared<Comparison::less_equal>},
    {"gt", {"a", "b"}, 2, compared<Comparison::greater>},
    {"greaterthan", {"a", "b"}, 2, compared<Comparison::greater>},
    {">", {"a", "b"}, 2, compared<Comparison::greater>},
    {"ge", {"a", "b"}, 2, compared<Comparison::greater_equal>},
    {">=", {"a", "b"}, 2, compared<Comparison::greater_equal>},
};

}  // namespace

std::span<const Function> tests() { return table; }

}  // namespace steer::text::detail::jinja
