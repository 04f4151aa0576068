#include "text/jinja/machine.hpp"

#include <algorithm>

#include "core/format_text.hpp"
#include "text/jinja/function.hpp"
#include "text/jinja/syntax.hpp"

namespace steer::text::detail::jinja {

// Objects and scopes may hold each other in circles: emptied, all of them go.
Machine::~Machine() {
  for (const auto& object : kept_) object->clear();
  for (Scope& scope : scopes_) scope.names.clear();
}

int Machine::nested(int depth) const {
  if (depth > limits_.nesting) raise("values nested deeper than {}", limits_.nesting);
  return depth;
}

Value Machine::string(MarkedText text, bool markup) {
  charge(text.size() + 64 + text.marks().size() * sizeof(Mark));
  return Value(std::make_shared<const String>(String{std::move(text), markup}));
}

Value Machine::sequence(Sequence::Type type, std::vector<Value> items, std::string name) {
  charge(items.size() * sizeof(Value) + 64);
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  Sequence out{.type = type, .items = std::move(items), .depth = nested(depth + 1), .name = std::move(name)};
  return Value(std::make_shared<const Sequence>(std::move(out)));
}

Value Machine::dict(std::vector<std::pair<Value, Value>> items) {
  charge(items.size() * 2 * sizeof(Value) + 64);
  int depth = 0;
  for (const auto& [key, value] : items) depth = std::max({depth, key.depth(), value.depth()});
  return Value(std::make_shared<const Dict>(Dict{.items = std::move(items), .depth = nested(depth + 1)}));
}

Value Machine::evaluate(const Expression& expression) {
  step();
  const Deeper deeper(*this);
  return expression.evaluate(*this);
}

Value Machine::lookup(int name) {
  for (Scope* scope = scope_; scope; scope = scope->parent)
    if (const Value* found = scope->find(name); found && !found->missing()) return *found;
  const std::string& text = program_.names[static_cast<std::size_t>(name)];
  if (Value found = global(text); !found.missing()) return found;
  return Value::undefined(format_text("'{}' is undefined", text));
}

void Machine::capture() {
  for (Scope* scope = scope_; scope && !scope->captured; scope = scope->parent) scope->captured = true;
}

void Machine::enter(Scope* parent) {
  Scope* scope;
  if (free_.empty()) {
    charge(sizeof(Scope));
    scope = &scopes_.emplace_back();
  } else {
    scope = free_.back();
    free_.pop_back();
  }
  scope->parent = parent;
  scope_ = scope;
}

void Machine::leave(Scope* before) {
  if (!scope_->captured) {
    scope_->names.clear();
    free_.push_back(scope_);
  }
  scope_ = before;
}

}  // namespace steer::text::detail::jinja
