#pragma once
// What an expression can be: Python's None, bool, int, float, str, list, tuple, range, dict, the iterators and objects
// that jinja2 makes, and jinja2's Undefined. Values are immutable and shared, but for namespaces and iterators.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/marked_text.hpp"

namespace steer::text::detail::jinja {

class Machine;
class Object;
struct Call;
struct Dict;
struct Sequence;

struct None {};

/// Prints as nothing, is false and empty; anything else done with it is an error in these words.
struct Undefined {
  std::string words;
};

struct String {
  MarkedText text;
  bool markup = false;  ///< by `safe` or `escape`: strings added to it are escaped
};

class Value {
 public:
  Value() = default;  ///< no value at all: an argument that was not given, a name that is not set
  Value(None none) : held_(none) {}
  explicit Value(bool flag) : held_(flag) {}
  explicit Value(std::int64_t number) : held_(number) {}
  explicit Value(double number) : held_(number) {}
  explicit Value(std::shared_ptr<const Undefined> undefined) : held_(std::move(undefined)) {}
  explicit Value(std::shared_ptr<const String> string) : held_(std::move(string)) {}
  explicit Value(std::shared_ptr<const Sequence> sequence) : held_(std::move(sequence)) {}
  explicit Value(std::shared_ptr<const Dict> dict) : held_(std::move(dict)) {}
  explicit Value(std::shared_ptr<Object> object) : held_(std::move(object)) {}
  static Value text(std::string_view bytes);  ///< what is not UTF-8 is replaced: all texts of a program are valid
  static Value undefined(std::string words);

  bool missing() const { return std::holds_alternative<std::monostate>(held_); }
  bool is_none() const { return std::holds_alternative<None>(held_); }
  const bool* boolean() const { return std::get_if<bool>(&held_); }
  const std::int64_t* integer() const { return std::get_if<std::int64_t>(&held_); }
  const double* real() const { return std::get_if<double>(&held_); }
  const Undefined* undefined() const { return pointer<const Undefined>(); }
  const String* string() const { return pointer<const String>(); }
  const Sequence* sequence() const { return pointer<const Sequence>(); }
  const Dict* dict() const { return pointer<const Dict>(); }
  Object* object() const { return pointer<Object>(); }
  std::shared_ptr<Object> shared_object() const { return std::get<std::shared_ptr<Object>>(held_); }

  /// How deep lists, tuples and dicts are nested in it; bounded, since much of what is done with values recurses.
  int depth() const;

 private:
  template <class T>
  T* pointer() const {
    const auto* held = std::get_if<std::shared_ptr<T>>(&held_);
    return held ? held->get() : nullptr;
  }
  std::variant<std::monostate, None, bool, std::int64_t, double, std::shared_ptr<const Undefined>,
               std::shared_ptr<const String>, std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>,
               std::shared_ptr<Object>>
      held_;
};

/// Everything in order: lists, tuples, ranges, views of dicts, and iterators, which are used up as they are read.
struct Sequence {
  enum class Type { list, tuple, group, range, keys, values, items, iterator };
  Type type = Type::list;
  std::vector<Value> items;
  int depth = 1;
  std::int64_t start = 0, step = 1;  ///< of a range
  std::string name;                  ///< of a range or iterator, for printing and messages
  mutable std::size_t next = 0;      ///< of an iterator
  bool is_tuple() const { return type == Type::tuple || type == Type::group; }
};

/// Keys in the order they were first set.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  int depth = 1;
  const Value* find(std::string_view key) const;
};

/// What a function is called with.
struct Call {
  std::vector<Value> args;
  std::vector<std::pair<std::string_view, Value>> named;
};

/// Values with a behaviour of their own: namespaces, loops, macros, functions.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;
  /// A missing value if there is no such attribute.
  virtual Value attribute(Machine&, std::string_view) { return {}; }
  /// False if it takes no attributes.
  virtual bool set_attribute(std::string_view, const Value&) { return false; }
  virtual bool callable() const { return false; }
  virtual Value call(Machine&, Call&);
  /// How Python prints it; by default refused: most print their address.
  virtual MarkedText repr(Machine&) const;
  virtual int depth() const { return 0; }
};

}  // namespace steer::text::detail::jinja
