#pragma once
// What Python's operators and built-in functions do with values.

#include <optional>

#include "text/jinja/machine.hpp"
#include "text/jinja/value.hpp"

namespace steer::text::detail::jinja {

/// As Python calls it: "str", "list", ...
std::string_view type_name(const Value& value);
bool truth(const Value& value);
/// @throws TemplateFailure in the words of an undefined value.
void refuse_undefined(const Value& value);

/// An int or a float; a bool counts as an int.
struct Number {
  bool is_real;
  std::int64_t integer;  ///< where not is_real
  double real;           ///< in either case
};
std::optional<Number> number_of(const Value& value);
/// @throws TemplateFailure unless it is an int or a bool; `what` names the place.
std::int64_t integer_of(const Value& value, std::string_view what);

bool equal(Machine& machine, const Value& a, const Value& b);
/// a < b. @throws TemplateFailure for types without an order.
bool less(Machine& machine, const Value& a, const Value& b, std::string_view sign = "<");
bool contains(Machine& machine, const Value& container, const Value& item);
/// @throws TemplateFailure for what cannot be a dict's key.
void require_hashable(const Value& value);
const Value* find(Machine& machine, const Dict& dict, const Value& key);
/// Sets a key of a dict that is being made.
void put(Machine& machine, std::vector<std::pair<Value, Value>>& items, Value key, Value value);

enum class Operator { add, subtract, multiply, divide, floor_divide, modulo, power };
Value arithmetic(Machine& machine, Operator op, const Value& a, const Value& b);
Value negative(const Value& value);
Value positive(const Value& value);

/// str() and repr().
MarkedText str(Machine& machine, const Value& value);
MarkedText repr(Machine& machine, const Value& value);
std::string float_repr(double number);
/// HTML's five special characters replaced, as markupsafe does.
MarkedText escaped(Machine& machine, const Value& value);

/// len(). @throws TemplateFailure for what has none.
std::int64_t length(Machine& machine, const Value& value);

/// iter(): what a `for` reads from. Reading an iterator uses it up.
class Iteration {
 public:
  /// @throws TemplateFailure for what cannot be iterated over.
  Iteration(Machine& machine, Value value);
  /// A missing value at the end.
  Value next();
  std::optional<std::int64_t> known_length() const;

 private:
  Machine* machine_;
  Value value_;
  std::size_t at_ = 0;
};
bool iterable(const Value& value);
std::vector<Value> collect(Machine& machine, const Value& value);

/// `value.name` and `value[key]` as jinja2's sandbox looks them up; Undefined where there is none.
Value attribute(Machine& machine, const Value& value, std::string_view name);
Value item(Machine& machine, const Value& value, const Value& key);
/// `value[start:stop:step]`; missing bounds are open.
Value slice(Machine& machine, const Value& value, const Value& start, const Value& stop, const Value& step);
Value call(Machine& machine, const Value& callee, Call& arguments);

/// Python's range, as long as the sandbox lets it be.
Value make_range(Machine& machine, std::int64_t start, std::int64_t stop, std::int64_t step);

/// Code points of a text.
std::int64_t count_codes(std::string_view text);

}  // namespace steer::text::detail::jinja
