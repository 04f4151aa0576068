#include "text/jinja/value.hpp"

#include "text/jinja/failure.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail::jinja {

Value Value::text(std::string_view bytes) {
  std::string valid;
  utf8_append_lossy(valid, bytes);
  return Value(std::make_shared<const String>(String{MarkedText(valid), false}));
}

Value Value::undefined(std::string words) {
  return Value(std::make_shared<const Undefined>(Undefined{std::move(words)}));
}

int Value::depth() const {
  if (const auto* items = sequence()) return items->depth;
  if (const auto* items = dict()) return items->depth;
  if (const auto* held = object()) return held->depth();
  return 0;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : items)
    if (const auto* text = name.string(); text && text->text.bytes() == key) return &value;
  return nullptr;
}

Value Object::call(Machine&, Call&) { raise("'{}' object is not callable", type_name()); }
MarkedText Object::repr(Machine&) const { unsupported("printing an object of type {}", type_name()); }

}  // namespace steer::text::detail::jinja
