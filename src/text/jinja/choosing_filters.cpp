// jinja2's filters that apply another filter or test to every item: map, select, reject and their kin.

#include <algorithm>

#include "core/format_text.hpp"
#include "text/jinja/function.hpp"
#include "text/jinja/python.hpp"

namespace steer::text::detail::jinja {
namespace {

// An argument given by name, taken out of the call.
Value take(Call& call, std::string_view name) {
  const auto found = std::ranges::find(call.named, name, &std::pair<std::string_view, Value>::first);
  if (found == call.named.end()) return {};
  Value value = std::move(found->second);
  call.named.erase(found);
  return value;
}

const Function& named_function(const Value& name, bool is_test) {
  const std::string_view text = name.string() ? name.string()->text.bytes() : std::string_view();
  const Function* found = is_test ? find_test(text) : find_filter(text);
  if (!found) raise("No {} named '{}'.", is_test ? "test" : "filter", text);
  return *found;
}

// `function(item, *arguments from `from` on, **names)`
Value apply(Machine& machine, const Function& function, const Value& item, const Call& call, std::size_t from) {
  Call inner{{item}, call.named};
  inner.args.insert(inner.args.end(), call.args.begin() + static_cast<std::ptrdiff_t>(from), call.args.end());
  return invoke(machine, function, inner);
}

Value map(Machine& machine, Call& call) {
  std::vector<Value> out;
  if (!truth(call.args[0])) return machine.iterator(std::move(out), "map");
  const bool by_attribute = call.args.size() == 1 && std::ranges::any_of(call.named, [](const auto& named) {
                              return named.first == "attribute";
                            });
  if (by_attribute) {
    const Value attribute = take(call, "attribute"), fallback = take(call, "default");
    if (!call.named.empty()) raise("Unexpected keyword argument '{}'", call.named[0].first);
    for (const Value& item : collect(machine, call.args[0]))
      out.push_back(key_of(machine, item, attribute, true, fallback));
  } else {
    if (call.args.size() < 2) raise("map requires a filter argument");
    const Function& filter = named_function(call.args[1], false);
    for (const Value& item : collect(machine, call.args[0])) out.push_back(apply(machine, filter, item, call, 2));
  }
  return machine.iterator(std::move(out), "map");
}

Value chosen(Machine& machine, Call& call, bool wanted, bool by_attribute, std::string_view name) {
  std::vector<Value> out;
  if (!truth(call.args[0])) return machine.iterator(std::move(out), name);
  const std::size_t at = by_attribute ? 2 : 1;
  if (by_attribute && call.args.size() < 2) raise("Missing parameter for attribute name");
  const Function* test = call.args.size() > at ? &named_function(call.args[at], true) : nullptr;
  for (const Value& item : collect(machine, call.args[0])) {
    const Value key = by_attribute ? key_of(machine, item, call.args[1], true) : item;
    if (truth(test ? apply(machine, *test, key, call, at + 1) : key) == wanted) out.push_back(item);
  }
  return machine.iterator(std::move(out), name);
}
Value select(Machine& machine, Call& call) { return chosen(machine, call, true, false, "select"); }
Value reject(Machine& machine, Call& call) { return chosen(machine, call, false, false, "reject"); }
Value selectattr(Machine& machine, Call& call) { return chosen(machine, call, true, true, "selectattr"); }
Value rejectattr(Machine& machine, Call& call) { return chosen(machine, call, false, true, "rejectattr"); }

// Only attributes, never items.
Value attr(Machine& machine, Call& call) {
  const std::string_view name = text_argument(call, 1, "attr").bytes();
  refuse_undefined(call.args[0]);
  if (call.args[0].dict() && !find_method(call.args[0], name))
    return Value::undefined(format_text("'dict object' has no attribute '{}'", name));
  return attribute(machine, call.args[0], name);
}

}  // namespace

std::span<const Function> choosing_filters() {
  static constexpr Function filters[] = {
      {"map", {}, Function::any_arguments, map},
      {"select", {}, Function::any_arguments, select},
      {"reject", {}, Function::any_arguments, reject},
      {"selectattr", {}, Function::any_arguments, selectattr},
      {"rejectattr", {}, Function::any_arguments, rejectattr},
      {"attr", {"obj", "name"}, 2, attr},
  };
  return filters;
}

}  // namespace steer::text::detail::jinja
