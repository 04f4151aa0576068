#include "text/jinja/python.hpp"

#include <algorithm>

#include "core/format_text.hpp"
#include "text/jinja/function.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail::jinja {
namespace {

using Type = Sequence::Type;

bool is_list(const Value& value) { return value.sequence() && value.sequence()->type == Type::list; }
bool is_tuple(const Value& value) { return value.sequence() && value.sequence()->is_tuple(); }
bool is_iterator(const Sequence& sequence) { return sequence.type == Type::iterator; }
bool is_view(const Sequence& sequence) { return sequence.type >= Type::keys && sequence.type <= Type::items; }

// Kinds of sequence that compare with each other.
int family(const Sequence& sequence) { return sequence.is_tuple() ? 1 : static_cast<int>(sequence.type) + 2; }

bool equal_items(Machine& machine, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!equal(machine, a[i], b[i])) return false;
  return true;
}

}  // namespace

std::string_view type_name(const Value& value) {
  if (value.is_none()) return "NoneType";
  if (value.boolean()) return "bool";
  if (value.integer()) return "int";
  if (value.real()) return "float";
  if (value.string()) return value.string()->markup ? "Markup" : "str";
  if (value.dict()) return "dict";
  if (const auto* sequence = value.sequence()) switch (sequence->type) {
      case Type::list:
        return "list";
      case Type::tuple:
        return "tuple";
      case Type::group:
        return "_GroupTuple";
      case Type::range:
        return "range";
      case Type::keys:
        return "dict_keys";
      case Type::values:
        return "dict_values";
      case Type::items:
        return "dict_items";
      case Type::iterator:
        return "generator";
    }
  if (value.object()) return value.object()->type_name();
  return "Undefined";
}

void refuse_undefined(const Value& value) {
  if (const auto* undefined = value.undefined()) raise("{}", undefined->words);
}

bool truth(const Value& value) {
  if (const auto* flag = value.boolean()) return *flag;
  if (const auto* number = value.integer()) return *number != 0;
  if (const auto* number = value.real()) return *number != 0;
  if (const auto* string = value.string()) return !string->text.empty();
  if (const auto* sequence = value.sequence()) return is_iterator(*sequence) || !sequence->items.empty();
  if (const auto* dict = value.dict()) return !dict->items.empty();
  return value.object() != nullptr;
}

std::optional<Number> number_of(const Value& value) {
  if (const auto* flag = value.boolean()) return Number{false, *flag, static_cast<double>(*flag)};
  if (const auto* number = value.integer()) return Number{false, *number, static_cast<double>(*number)};
  if (const auto* number = value.real()) return Number{true, 0, *number};
  return std::nullopt;
}

std::int64_t integer_of(const Value& value, std::string_view what) {
  refuse_undefined(value);
  const auto number = number_of(value);
  if (!number || number->is_real) raise("{}: '{}' object cannot be interpreted as an integer", what, type_name(value));
  return number->integer;
}

bool equal(Machine& machine, const Value& a, const Value& b) {
  machine.step();
  if (const auto x = number_of(a), y = number_of(b); x && y)
    return x->is_real || y->is_real ? x->real == y->real : x->integer == y->integer;
  if (a.string() && b.string()) {
    machine.look(std::min(a.string()->text.size(), b.string()->text.size()));
    return a.string()->text.bytes() == b.string()->text.bytes();
  }
  if (const auto *x = a.sequence(), *y = b.sequence(); x && y) {
    if (x == y) return true;
    return family(*x) == family(*y) && !is_iterator(*x) && equal_items(machine, x->items, y->items);
  }
  if (const auto *x = a.dict(), *y = b.dict(); x && y) {
    if (x->items.size() != y->items.size()) return false;
    for (const auto& [key, value] : x->items) {
      const Value* other = find(machine, *y, key);
      if (!other || !equal(machine, value, *other)) return false;
    }
    return true;
  }
  if (a.object() && b.object()) return a.object() == b.object();
  return (a.is_none() && b.is_none()) || (a.undefined() && b.undefined()) || (a.missing() && b.missing());
}

bool less(Machine& machine, const Value& a, const Value& b, std::string_view sign) {
  machine.step();
  refuse_undefined(a);
  refuse_undefined(b);
  if (const auto x = number_of(a), y = number_of(b); x && y)
    return x->is_real || y->is_real ? x->real < y->real : x->integer < y->integer;
  if (a.string() && b.string()) {
    machine.look(std::min(a.string()->text.size(), b.string()->text.size()));
    return a.string()->text.bytes() < b.string()->text.bytes();  // the order of code points, as UTF-8 keeps it
  }
  if ((is_list(a) && is_list(b)) || (is_tuple(a) && is_tuple(b))) {
    const auto &x = a.sequence()->items, &y = b.sequence()->items;
    for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equal(machine, x[i], y[i])) return less(machine, x[i], y[i], sign);
    return x.size() < y.size();
  }
  raise("'{}' not supported between instances of '{}' and '{}'", sign, type_name(a), type_name(b));
}

void require_hashable(const Value& value) {
  if (value.dict() || is_list(value)) raise("unhashable type: '{}'", type_name(value));
  if (is_tuple(value))
    for (const Value& item : value.sequence()->items) require_hashable(item);
}

const Value* find(Machine& machine, const Dict& dict, const Value& key) {
  require_hashable(key);
  for (const auto& [name, value] : dict.items)
    if (equal(machine, name, key)) return &value;
  return nullptr;
}

void put(Machine& machine, std::vector<std::pair<Value, Value>>& items, Value key, Value value) {
  require_hashable(key);
  for (auto& [name, old] : items)
    if (equal(machine, name, key)) {
      old = std::move(value);
      return;
    }
  items.emplace_back(std::move(key), std::move(value));
}

bool contains(Machine& machine, const Value& container, const Value& item) {
  if (const auto* string = container.string()) {
    if (!item.string()) raise("'in <string>' requires string as left operand, not {}", type_name(item));
    machine.look(string->text.size() + item.string()->text.size());
    const std::string_view text = string->text.bytes(), part = item.string()->text.bytes();
    return part.empty() || ::memmem(text.data(), text.size(), part.data(), part.size()) != nullptr;
  }
  if (const auto* dict = container.dict()) return find(machine, *dict, item) != nullptr;
  if (container.sequence() && is_view(*container.sequence()) && container.sequence()->type != Type::values)
    require_hashable(item);
  Iteration items(machine, container);
  for (Value next = items.next(); !next.missing(); next = items.next())
    if (equal(machine, next, item)) return true;
  return false;
}

std::int64_t count_codes(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

std::int64_t length(Machine& machine, const Value& value) {
  if (const auto* string = value.string()) {
    machine.look(string->text.size());
    return count_codes(string->text.bytes());
  }
  if (const auto* sequence = value.sequence(); sequence && !is_iterator(*sequence))
    return static_cast<std::int64_t>(sequence->items.size());
  if (const auto* dict = value.dict()) return static_cast<std::int64_t>(dict->items.size());
  if (value.undefined()) return 0;
  if (value.object())
    if (const Value size = value.object()->attribute(machine, "__len__"); size.integer()) return *size.integer();
  raise("object of type '{}' has no len()", type_name(value));
}

bool iterable(const Value& value) { return value.string() || value.sequence() || value.dict() || value.undefined(); }

Iteration::Iteration(Machine& machine, Value value) : machine_(&machine), value_(std::move(value)) {
  if (!iterable(value_)) raise("'{}' object is not iterable", type_name(value_));
}

Value Iteration::next() {
  machine_->step();
  if (const auto* sequence = value_.sequence()) {
    std::size_t& at = is_iterator(*sequence) ? sequence->next : at_;
    return at < sequence->items.size() ? sequence->items[at++] : Value();
  }
  if (const auto* dict = value_.dict()) return at_ < dict->items.size() ? dict->items[at_++].first : Value();
  if (const auto* string = value_.string()) {
    if (at_ >= string->text.size()) return {};
    const std::size_t begin = at_;
    at_ += steer::text::detail::utf8_length(string->text.bytes()[at_]);
    return machine_->string(string->text.slice(begin, at_));
  }
  return {};
}

std::optional<std::int64_t> Iteration::known_length() const {
  if (value_.sequence() && is_iterator(*value_.sequence())) return std::nullopt;
  return length(*machine_, value_);
}

std::vector<Value> collect(Machine& machine, const Value& value) {
  Iteration items(machine, value);
  std::vector<Value> out;
  for (Value next = items.next(); !next.missing(); next = items.next()) {
    machine.charge(sizeof(Value));
    out.push_back(std::move(next));
  }
  return out;
}

namespace {

Value undefined_attribute(const Value& value, std::string_view name) {
  if (value.is_none()) return Value::undefined(format_text("'None' has no attribute '{}'", name));
  return Value::undefined(format_text("'{} object' has no attribute '{}'", type_name(value), name));
}

Value unsafe_attribute(const Value& value, std::string_view name) {
  return Value::undefined(format_text("access to attribute '{}' of '{}' object is unsafe.", name, type_name(value)));
}

// Names that the sandbox keeps templates from: Python's own and what changes a list or a dict.
bool is_unsafe(const Value& value, std::string_view name) {
  static constexpr std::string_view of_list[] = {"append", "clear",  "extend",  "insert",
                                                 "pop",    "remove", "reverse", "sort"};
  static constexpr std::string_view of_dict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  if (name.size() > 4 && name.starts_with("__") && name.ends_with("__")) return true;
  if (is_list(value)) return std::ranges::find(of_list, name) != std::end(of_list);
  if (value.dict()) return std::ranges::find(of_dict, name) != std::end(of_dict);
  return false;
}

class BoundMethod final : public Object {
 public:
  BoundMethod(Value self, const Function& function) : self_(std::move(self)), function_(function) {}
  std::string_view type_name() const override { return "builtin_function_or_method"; }
  bool callable() const override { return true; }
  int depth() const override { return self_.depth() + 1; }
  Value call(Machine& machine, Call& call) override {
    call.args.insert(call.args.begin(), self_);
    return invoke(machine, function_, call);
  }

 private:
  Value self_;
  const Function& function_;
};

// getattr(): missing where Python raises AttributeError.
Value python_attribute(Machine& machine, const Value& value, std::string_view name) {
  if (is_unsafe(value, name)) return unsafe_attribute(value, name);
  if (value.object()) return value.object()->attribute(machine, name);
  if (const auto* sequence = value.sequence(); sequence && sequence->type == Type::group) {
    if (name == "grouper") return sequence->items[0];
    if (name == "list") return sequence->items[1];
  }
  if (const Function* method = find_method(value, name)) {
    machine.charge(sizeof(BoundMethod));
    return Value(std::shared_ptr<Object>(std::make_shared<BoundMethod>(value, *method)));
  }
  return {};
}

std::optional<std::size_t> position(std::int64_t index, std::size_t size) {
  const auto count = static_cast<std::int64_t>(size);
  if (index < 0) index += count;
  if (index < 0 || index >= count) return std::nullopt;
  return static_cast<std::size_t>(index);
}

// Byte offset of a code point, given that it exists.
std::size_t offset_of(std::string_view text, std::size_t code) {
  if (static_cast<std::size_t>(count_codes(text)) == text.size()) return code;
  std::size_t at = 0;
  for (; code > 0; --code) at += steer::text::detail::utf8_length(text[at]);
  return at;
}

// value[key]: missing where Python raises TypeError or LookupError.
Value python_item(Machine& machine, const Value& value, const Value& key) {
  if (const auto* dict = value.dict()) {
    if (key.dict() || is_list(key)) return {};
    const Value* found = find(machine, *dict, key);
    return found ? *found : Value();
  }
  const auto index = number_of(key);
  if (!index || index->is_real) return {};
  if (const auto* sequence = value.sequence()) {
    if (is_iterator(*sequence) || is_view(*sequence)) return {};
    const auto at = position(index->integer, sequence->items.size());
    return at ? sequence->items[*at] : Value();
  }
  if (const auto* string = value.string()) {
    machine.look(string->text.size());
    const std::string_view text = string->text.bytes();
    const auto at = position(index->integer, static_cast<std::size_t>(count_codes(text)));
    if (!at) return {};
    const std::size_t begin = offset_of(text, *at);
    return machine.string(string->text.slice(begin, begin + steer::text::detail::utf8_length(text[begin])),
                          string->markup);
  }
  return {};
}

}  // namespace

Value attribute(Machine& machine, const Value& value, std::string_view name) {
  refuse_undefined(value);
  if (Value found = python_attribute(machine, value, name); !found.missing()) return found;
  if (const auto* dict = value.dict())
    if (const Value* found = dict->find(name)) return *found;
  return undefined_attribute(value, name);
}

Value item(Machine& machine, const Value& value, const Value& key) {
  refuse_undefined(value);
  if (Value found = python_item(machine, value, key); !found.missing()) return found;
  if (key.string()) {
    const std::string_view name = key.string()->text.bytes();
    if (Value found = python_attribute(machine, value, name); !found.missing()) return found;
    return undefined_attribute(value, name);
  }
  return Value::undefined(format_text("{} object has no element {}", type_name(value), repr(machine, key).bytes()));
}

Value make_range(Machine& machine, std::int64_t start, std::int64_t stop, std::int64_t step) {
  if (step == 0) raise("range() arg 3 must not be zero");
  constexpr std::int64_t most = 100000;  // the sandbox's own limit
  Sequence out{.type = Type::range, .start = start, .step = step};
  for (std::int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<std::int64_t>(out.items.size()) == most)
      raise("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", most);
    out.items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  machine.step(out.items.size());
  machine.charge(out.items.size() * sizeof(Value));
  out.name = format_text("range({}, {}{})", start, stop, step == 1 ? "" : format_text(", {}", step));
  return Value(std::make_shared<const Sequence>(std::move(out)));
}

Value slice(Machine& machine, const Value& value, const Value& start, const Value& stop, const Value& step) {
  refuse_undefined(value);
  const auto* sequence = value.sequence();
  const auto* string = value.string();
  if (!string && (!sequence || is_iterator(*sequence) || is_view(*sequence)))
    raise("'{}' object is not subscriptable with a slice", type_name(value));
  const std::int64_t size = length(machine, value);
  const auto given = [](const Value& bound) { return !bound.missing() && !bound.is_none(); };
  const auto bound_of = [](const Value& bound) {
    if (bound.undefined() || !number_of(bound) || number_of(bound)->is_real)
      raise("slice indices must be integers or None or have an __index__ method");
    return number_of(bound)->integer;
  };
  const std::int64_t by = given(step) ? bound_of(step) : 1;
  if (by == 0) raise("slice step cannot be zero");
  // Where Python's slice.indices puts a bound.
  const auto clamp = [&](const Value& bound, std::int64_t open) {
    if (!given(bound)) return open;
    std::int64_t at = bound_of(bound);
    if (at < 0) at = at < -size ? -1 : at + size;
    if (by > 0) return std::clamp<std::int64_t>(at, 0, size);
    return std::clamp<std::int64_t>(at, -1, size - 1);
  };
  const std::int64_t first = clamp(start, by > 0 ? 0 : size - 1), last = clamp(stop, by > 0 ? size : -1);
  std::vector<std::size_t> chosen;
  if (string && by == 1) {
    const std::string_view text = string->text.bytes();
    if (first >= last) return machine.string(MarkedText(), string->markup);
    const std::size_t begin = offset_of(text, static_cast<std::size_t>(first));
    const std::size_t end = begin + offset_of(text.substr(begin), static_cast<std::size_t>(last - first));
    return machine.string(string->text.slice(begin, end), string->markup);
  }
  machine.charge(static_cast<std::size_t>(size) * sizeof(std::size_t));
  for (std::int64_t i = first; by > 0 ? i < last : i > last;) {
    chosen.push_back(static_cast<std::size_t>(i));
    if (__builtin_add_overflow(i, by, &i)) break;
  }
  if (sequence && sequence->type == Type::range) {
    std::int64_t begin, end, width;
    if (__builtin_mul_overflow(first, sequence->step, &begin) || __builtin_mul_overflow(last, sequence->step, &end) ||
        __builtin_mul_overflow(by, sequence->step, &width) || __builtin_add_overflow(begin, sequence->start, &begin) ||
        __builtin_add_overflow(end, sequence->start, &end))
      unsupported("an integer of more than 64 bits");
    return make_range(machine, begin, end, width);
  }
  if (sequence) {
    std::vector<Value> items;
    for (const std::size_t at : chosen) items.push_back(sequence->items[at]);
    return machine.sequence(sequence->is_tuple() ? Type::tuple : Type::list, std::move(items));
  }
  std::vector<std::size_t> offsets{0};
  for (const std::string_view text = string->text.bytes(); offsets.back() < text.size();)
    offsets.push_back(offsets.back() + steer::text::detail::utf8_length(text[offsets.back()]));
  MarkedText out;
  for (const std::size_t at : chosen) out.append(string->text, offsets[at], offsets[at + 1]);
  return machine.string(std::move(out), string->markup);
}

Value call(Machine& machine, const Value& callee, Call& arguments) {
  refuse_undefined(callee);
  if (!callee.object()) raise("'{}' object is not callable", type_name(callee));
  const Machine::Deeper deeper(machine);
  const auto kept = callee.shared_object();
  return kept->call(machine, arguments);
}

}  // namespace steer::text::detail::jinja
