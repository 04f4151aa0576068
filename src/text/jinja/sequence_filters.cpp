// jinja2's filters of sequences and dicts as a whole.

#include <algorithm>

#include "text/jinja/function.hpp"

namespace steer::text::detail::jinja {
namespace {

Value lower_case(Machine& machine, const Value& value) {
  if (!value.string()) return value;
  Call call{{value}, {}};
  return find_method(value, "lower")->run(machine, call);
}

}  // namespace

Value key_of(Machine& machine, const Value& value, const Value& attribute, bool case_sensitive, const Value& fallback) {
  Value out = value;
  const auto step_to = [&](const Value& key) {
    out = item(machine, out, key);
    if (out.undefined() && !fallback.missing() && !fallback.is_none()) out = fallback;
  };
  if (const auto* path = attribute.string()) {
    std::string_view rest = path->text.bytes();
    while (true) {
      const std::size_t dot = rest.find('.');
      const std::string_view part = rest.substr(0, dot);
      const bool digits =
          !part.empty() && part.size() < 18 && std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
      step_to(digits ? Value(static_cast<std::int64_t>(std::stoll(std::string(part)))) : machine.string(part));
      if (dot == std::string_view::npos) break;
      rest.remove_prefix(dot + 1);
    }
  } else if (!attribute.missing() && !attribute.is_none()) {
    step_to(attribute);
  }
  return case_sensitive ? out : lower_case(machine, out);
}

namespace {

Value length_filter(Machine& machine, Call& call) { return Value(length(machine, call.args[0])); }
Value list(Machine& machine, Call& call) { return machine.list(collect(machine, call.args[0])); }

Value first(Machine& machine, Call& call) {
  Value found = Iteration(machine, call.args[0]).next();
  return found.missing() ? Value::undefined("No first item, sequence was empty.") : found;
}
Value last(Machine& machine, Call& call) {
  const auto* sequence = call.args[0].sequence();
  if (sequence && sequence->type == Sequence::Type::iterator) raise("'generator' object is not reversible");
  std::vector<Value> items = collect(machine, call.args[0]);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value reverse(Machine& machine, Call& call) {
  const Value& value = call.args[0];
  if (value.string()) return slice(machine, value, {}, {}, Value(std::int64_t{-1}));
  std::vector<Value> items = collect(machine, value);
  std::ranges::reverse(items);
  const auto* sequence = value.sequence();
  if (value.undefined() || (sequence && sequence->type == Sequence::Type::iterator))
    return machine.list(std::move(items));
  return machine.iterator(std::move(items), "reverse");
}

Value join(Machine& machine, Call& call) {
  const MarkedText separator = call.args[1].missing() ? MarkedText() : str(machine, call.args[1]);
  MarkedText out;
  bool first_item = true;
  Iteration items(machine, call.args[0]);
  for (Value value = items.next(); !value.missing(); value = items.next()) {
    if (!first_item) out.append(separator);
    first_item = false;
    out.append(str(machine, key_of(machine, value, call.args[2], true)));
  }
  return machine.string(std::move(out));
}

Value sum(Machine& machine, Call& call) {
  Value total = call.args[2].missing() ? Value(std::int64_t{0}) : call.args[2];
  if (total.string()) raise("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& value : collect(machine, call.args[0]))
    total = arithmetic(machine, Operator::add, total, key_of(machine, value, call.args[1], true));
  return total;
}

// ---- order
struct Keyed {
  Value key, value;
};
// Python's sort is stable, also in reverse.
void sort(Machine& machine, std::vector<Keyed>& items, bool reversed) {
  std::stable_sort(items.begin(), items.end(), [&](const Keyed& a, const Keyed& b) {
    return reversed ? less(machine, b.key, a.key) : less(machine, a.key, b.key);
  });
}

Value sort_filter(Machine& machine, Call& call) {
  const bool case_sensitive = flag_argument(call, 2, false);
  std::vector<Value> attributes;  // several may be named, with commas
  if (call.args[3].string()) {
    Call split{{call.args[3], machine.string(","), {}}, {}};
    attributes = find_method(split.args[0], "split")->run(machine, split).sequence()->items;
  } else {
    attributes = {call.args[3]};
  }
  std::vector<Keyed> items;
  for (const Value& value : collect(machine, call.args[0])) {
    std::vector<Value> keys;
    for (const Value& attribute : attributes) keys.push_back(key_of(machine, value, attribute, case_sensitive));
    items.push_back({machine.list(std::move(keys)), value});
  }
  sort(machine, items, flag_argument(call, 1, false));
  std::vector<Value> out;
  for (Keyed& keyed : items) out.push_back(std::move(keyed.value));
  return machine.list(std::move(out));
}

Value extreme(Machine& machine, Call& call, bool largest) {
  const bool case_sensitive = flag_argument(call, 1, false);
  Value best, best_key;
  for (const Value& value : collect(machine, call.args[0])) {
    const Value key = key_of(machine, value, call.args[2], case_sensitive);
    if (!best.missing() && !(largest ? less(machine, best_key, key, ">") : less(machine, key, best_key))) continue;
    best = value;
    best_key = key;
  }
  return best.missing() ? Value::undefined("No aggregated item, sequence was empty.") : best;
}
Value minimum(Machine& machine, Call& call) { return extreme(machine, call, false); }
Value maximum(Machine& machine, Call& call) { return extreme(machine, call, true); }

Value unique(Machine& machine, Call& call) {
  const bool case_sensitive = flag_argument(call, 1, false);
  std::vector<Value> seen, out;
  for (const Value& value : collect(machine, call.args[0])) {
    const Value key = key_of(machine, value, call.args[2], case_sensitive);
    require_hashable(key);
    if (std::ranges::any_of(seen, [&](const Value& other) { return equal(machine, other, key); })) continue;
    seen.push_back(key);
    out.push_back(value);
  }
  return machine.iterator(std::move(out), "unique");
}

Value groupby(Machine& machine, Call& call) {
  const bool case_sensitive = flag_argument(call, 3, false);
  std::vector<Keyed> items;
  for (const Value& value : collect(machine, call.args[0]))
    items.push_back({key_of(machine, value, call.args[1], case_sensitive, call.args[2]), value});
  sort(machine, items, false);
  std::vector<Value> out;
  for (std::size_t begin = 0; begin < items.size();) {
    std::size_t end = begin;
    std::vector<Value> group;
    for (; end < items.size() && equal(machine, items[end].key, items[begin].key); ++end)
      group.push_back(items[end].value);
    if (end == begin) group.push_back(items[end++].value);  // a NaN, which equals nothing
    const Value key = key_of(machine, items[begin].value, call.args[1], true, call.args[2]);
    out.push_back(machine.sequence(Sequence::Type::group, {key, machine.list(std::move(group))}));
    begin = end;
  }
  return machine.list(std::move(out));
}

const Dict& dict_of(const Value& value, std::string_view filter) {
  refuse_undefined(value);
  if (!value.dict()) raise("{}: '{}' object has no attribute 'items'", filter, type_name(value));
  return *value.dict();
}

Value dictsort(Machine& machine, Call& call) {
  const bool case_sensitive = flag_argument(call, 1, false);
  const std::string_view by = call.args[2].missing() ? "key" : text_argument(call, 2, "dictsort").bytes();
  if (by != "key" && by != "value") raise("You can only sort by either \"key\" or \"value\"");
  std::vector<Keyed> items;
  for (const auto& [key, value] : dict_of(call.args[0], "dictsort").items)
    items.push_back({key_of(machine, by == "key" ? key : value, {}, case_sensitive), machine.tuple({key, value})});
  sort(machine, items, flag_argument(call, 3, false));
  std::vector<Value> out;
  for (Keyed& keyed : items) out.push_back(std::move(keyed.value));
  return machine.list(std::move(out));
}

Value items(Machine& machine, Call& call) {
  std::vector<Value> out;
  if (!call.args[0].undefined()) {
    if (!call.args[0].dict()) raise("Can only get item pairs from a mapping.");
    for (const auto& [key, value] : call.args[0].dict()->items) out.push_back(machine.tuple({key, value}));
  }
  return machine.iterator(std::move(out), "items");
}

// ---- rows and columns
Value batch(Machine& machine, Call& call) {
  const std::int64_t size = integer_of(call.args[1], "batch");
  const Value& fill = call.args[2];
  std::vector<Value> out, row;
  for (const Value& value : collect(machine, call.args[0])) {
    if (static_cast<std::int64_t>(row.size()) == size) out.push_back(machine.list(std::exchange(row, {})));
    row.push_back(value);
  }
  if (!row.empty()) {
    const auto missing = size - static_cast<std::int64_t>(row.size());
    if (!fill.missing() && !fill.is_none() && missing > 0) {
      machine.charge(static_cast<std::size_t>(std::min<std::int64_t>(missing, 1 << 30)) * sizeof(Value));
      row.insert(row.end(), static_cast<std::size_t>(missing), fill);
    }
    out.push_back(machine.list(std::move(row)));
  }
  return machine.iterator(std::move(out), "batch");
}

Value slices(Machine& machine, Call& call) {
  const std::vector<Value> all = collect(machine, call.args[0]);
  const std::int64_t count = integer_of(call.args[1], "slice"), size = static_cast<std::int64_t>(all.size());
  if (count == 0) raise("integer division or modulo by zero");
  const Value& fill = call.args[2];
  std::vector<Value> out;
  std::int64_t begin = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const bool longer = i < size % count;
    const std::int64_t end = begin + size / count + longer;
    std::vector<Value> part(all.begin() + begin, all.begin() + end);
    if (!longer && !fill.missing() && !fill.is_none()) part.push_back(fill);
    out.push_back(machine.list(std::move(part)));
    begin = end;
  }
  return machine.iterator(std::move(out), "slice");
}

}  // namespace

std::span<const Function> sequence_filters() {
  static constexpr Function filters[] = {
      {"length", {"object"}, 1, length_filter},
      {"count", {"object"}, 1, length_filter},
      {"list", {"value"}, 1, list},
      {"first", {"seq"}, 1, first},
      {"last", {"seq"}, 1, last},
      {"reverse", {"value"}, 1, reverse},
      {"join", {"value", "d", "attribute"}, 1, join},
      {"sum", {"iterable", "attribute", "start"}, 1, sum},
      {"sort", {"value", "reverse", "case_sensitive", "attribute"}, 1, sort_filter},
      {"min", {"value", "case_sensitive", "attribute"}, 1, minimum},
      {"max", {"value", "case_sensitive", "attribute"}, 1, maximum},
      {"unique", {"value", "case_sensitive", "attribute"}, 1, unique},
      {"groupby", {"value", "attribute", "default", "case_sensitive"}, 2, groupby},
      {"dictsort", {"value", "case_sensitive", "by", "reverse"}, 1, dictsort},
      {"items", {"value"}, 1, items},
      {"batch", {"value", "linecount", "fill_with"}, 2, batch},
      {"slice", {"value", "slices", "fill_with"}, 2, slices},
  };
  return filters;
}

}  // namespace steer::text::detail::jinja
