#include "text/jinja/function.hpp"

#include <algorithm>

namespace steer::text::detail::jinja {
namespace {

const Function* within(std::span<const Function> table, std::string_view name) {
  const auto found = std::ranges::find(table, name, &Function::name);
  return found == table.end() ? nullptr : &*found;
}

template <std::size_t N>
bool among(const std::string_view (&names)[N], std::string_view name) {
  return std::ranges::find(names, name) != std::end(names);
}

// What list, tuple and dict have besides.
Value list_count(Machine& machine, Call& call) {
  std::int64_t count = 0;
  for (const Value& item : call.args[0].sequence()->items) count += equal(machine, item, call.args[1]);
  return Value(count);
}
Value list_index(Machine& machine, Call& call) {
  const auto& items = call.args[0].sequence()->items;
  const auto size = static_cast<std::int64_t>(items.size());
  const auto bound = [&](std::size_t at, std::int64_t open) {
    const std::int64_t given = integer_argument(call, at, open, "index");
    return std::clamp<std::int64_t>(given < 0 ? given + size : given, 0, size);
  };
  for (std::int64_t i = bound(2, 0), end = bound(3, size); i < end; ++i)
    if (equal(machine, items[static_cast<std::size_t>(i)], call.args[1])) return Value(i);
  raise("{} is not in list", repr(machine, call.args[1]).bytes());
}
Value list_copy(Machine& machine, Call& call) { return machine.list(call.args[0].sequence()->items); }

Value dict_get(Machine& machine, Call& call) {
  if (const Value* found = find(machine, *call.args[0].dict(), call.args[1])) return *found;
  return call.args[2].missing() ? Value(None{}) : call.args[2];
}
Value dict_view(Machine& machine, const Dict& dict, Sequence::Type type) {
  std::vector<Value> items;
  for (const auto& [key, value] : dict.items)
    items.push_back(type == Sequence::Type::keys     ? key
                    : type == Sequence::Type::values ? value
                                                     : machine.tuple({key, value}));
  return machine.sequence(type, std::move(items));
}
Value dict_keys(Machine& machine, Call& call) { return dict_view(machine, *call.args[0].dict(), Sequence::Type::keys); }
Value dict_values(Machine& machine, Call& call) {
  return dict_view(machine, *call.args[0].dict(), Sequence::Type::values);
}
Value dict_items(Machine& machine, Call& call) {
  return dict_view(machine, *call.args[0].dict(), Sequence::Type::items);
}
Value dict_copy(Machine& machine, Call& call) { return machine.dict(call.args[0].dict()->items); }

constexpr Function sequence_methods[] = {{"count", {"self", "value"}, 2, list_count},
                                         {"index", {"self", "value", "start", "stop"}, 2, list_index},
                                         {"copy", {"self"}, 1, list_copy}};
constexpr Function dict_methods[] = {{"get", {"self", "key", "default"}, 2, dict_get},
                                     {"keys", {"self"}, 1, dict_keys},
                                     {"values", {"self"}, 1, dict_values},
                                     {"items", {"self"}, 1, dict_items},
                                     {"copy", {"self"}, 1, dict_copy}};

// What Python has and a template could ask for, but not here.
constexpr std::string_view other_string_methods[] = {"casefold",     "encode",    "expandtabs", "format_map",
                                                     "isidentifier", "maketrans", "translate"};
constexpr std::string_view other_number_attributes[] = {
    "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator", "from_bytes", "fromhex", "hex", "imag",
    "is_integer",       "numerator", "real",       "to_bytes"};
constexpr std::string_view other_filters[] = {"pprint", "random", "urlize", "wordwrap", "xmlattr"};

}  // namespace

void bind(const Function& function, Call& call) {
  const auto end = std::ranges::find(function.parameters, std::string_view());
  const auto count = static_cast<std::size_t>(end - function.parameters.begin());
  if (call.args.size() > count)
    raise("{}() takes {} arguments but {} were given", function.name, count, call.args.size());
  call.args.resize(count);
  for (auto& [name, value] : call.named) {
    const auto at =
        static_cast<std::size_t>(std::ranges::find(function.parameters, name) - function.parameters.begin());
    if (at >= count) raise("{}() got an unexpected keyword argument '{}'", function.name, name);
    if (!call.args[at].missing()) raise("{}() got multiple values for argument '{}'", function.name, name);
    call.args[at] = std::move(value);
  }
  call.named.clear();
  for (std::size_t i = 0; i < static_cast<std::size_t>(function.required); ++i)
    if (call.args[i].missing()) raise("{}() missing a required argument: '{}'", function.name, function.parameters[i]);
}

const Function* find_filter(std::string_view name) {
  for (const auto table : {text_filters(), number_filters(), sequence_filters(), choosing_filters()})
    if (const Function* found = within(table, name)) return found;
  if (among(other_filters, name)) unsupported("the filter {}", name);
  return nullptr;
}

const Function* find_test(std::string_view name) { return within(tests(), name); }

const Function* find_method(const Value& self, std::string_view name) {
  if (self.string()) {
    if (among(other_string_methods, name)) unsupported("str.{}", name);
    return within(string_methods(), name);
  }
  if (self.dict()) {
    if (name == "fromkeys") unsupported("dict.fromkeys");
    return within(dict_methods, name);
  }
  if (const auto* sequence = self.sequence()) {
    if (sequence->type == Sequence::Type::list) return within(sequence_methods, name);
    if (sequence->is_tuple()) return within(std::span(sequence_methods).first(2), name);
  }
  if (number_of(self) && among(other_number_attributes, name)) unsupported("{}.{}", type_name(self), name);
  return nullptr;
}

const MarkedText& text_argument(const Call& call, std::size_t at, std::string_view what) {
  const auto* string = call.args[at].string();
  if (!string) raise("{}: expected str, not {}", what, type_name(call.args[at]));
  return string->text;
}

}  // namespace steer::text::detail::jinja
