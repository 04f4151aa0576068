#pragma once
// One rendering: its variables, and what it has used of its limits.

#include <chrono>
#include <deque>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/failure.hpp"
#include "text/jinja/value.hpp"

namespace steer::text::detail::jinja {

struct Expression;
struct Program;

/// What a rendering may use. A conversation of a hundred messages takes a few thousand steps.
struct Limits {
  std::int64_t steps = 20'000'000;            ///< expressions evaluated, items passed over, 64 bytes of text looked at
  std::size_t memory = std::size_t{1} << 27;  ///< bytes of all values ever made
  int depth = 1000;                           ///< of calls within calls, macros and loops included
  int nesting = 100;                          ///< of lists within lists
};

/// Names set in one block. A macro keeps the scope it was defined in.
struct Scope {
  Scope* parent = nullptr;
  bool captured = false;
  std::vector<std::pair<int, Value>> names;

  Value* find(int name) {
    for (auto& [id, value] : names)
      if (id == name) return &value;
    return nullptr;
  }
  void set(int name, Value value) {
    if (Value* found = find(name))
      *found = std::move(value);
    else
      names.emplace_back(name, std::move(value));
  }
};

class Machine {
 public:
  Machine(const Program& program, const Limits& limits, std::chrono::sys_seconds now)
      : now(now), program_(program), limits_(limits) {}
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  const std::chrono::sys_seconds now;
  int line = 0;  ///< of the template, for messages

  /// @throws TemplateFailure once the limit is passed, in all of these.
  void step(std::size_t cost = 1) {
    steps_ += static_cast<std::int64_t>(cost);
    if (steps_ > limits_.steps) raise("more than {} steps", limits_.steps);
  }
  /// Looking at this many bytes of text.
  void look(std::size_t bytes) { step(1 + bytes / 64); }
  void charge(std::size_t bytes) {
    memory_ += bytes;
    if (memory_ > limits_.memory) raise("more than {} MiB of values", limits_.memory >> 20);
  }

  Value string(MarkedText text, bool markup = false);
  Value string(std::string_view bytes) { return string(MarkedText(bytes)); }
  Value sequence(Sequence::Type type, std::vector<Value> items, std::string name = {});
  Value list(std::vector<Value> items) { return sequence(Sequence::Type::list, std::move(items)); }
  Value tuple(std::vector<Value> items) { return sequence(Sequence::Type::tuple, std::move(items)); }
  /// What jinja2 makes as a generator called `name`.
  Value iterator(std::vector<Value> items, std::string_view name) {
    return sequence(Sequence::Type::iterator, std::move(items), std::string(name));
  }
  Value dict(std::vector<std::pair<Value, Value>> items);
  /// An object that can hold others, itself included: it is emptied when the rendering ends.
  template <class T>
  std::shared_ptr<T> keep(std::shared_ptr<T> object) {
    charge(sizeof(T) + 64);
    kept_.push_back(object);
    return object;
  }

  Value evaluate(const Expression& expression);

  /// The value of a name as seen from the present scope, a built-in one, or Undefined.
  Value lookup(int name);
  Scope* scope() const { return scope_; }
  void set(int name, Value value) { scope_->set(name, std::move(value)); }
  void capture();

  /// A scope within `parent` as long as it lives.
  class Enter {
   public:
    Enter(Machine& machine, Scope* parent) : machine_(machine), before_(machine.scope_) { machine.enter(parent); }
    explicit Enter(Machine& machine) : Enter(machine, machine.scope_) {}
    ~Enter() { machine_.leave(before_); }
    Enter(const Enter&) = delete;
    Enter& operator=(const Enter&) = delete;

   private:
    Machine& machine_;
    Scope* before_;
  };
  /// Counts a level of recursion.
  class Deeper {
   public:
    explicit Deeper(Machine& machine) : machine_(machine) {
      if (++machine.depth_ > machine.limits_.depth) {
        --machine.depth_;
        raise("calls nested deeper than {}", machine.limits_.depth);
      }
    }
    ~Deeper() { --machine_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    Machine& machine_;
  };

 private:
  void enter(Scope* parent);
  void leave(Scope* before);
  int nested(int depth) const;

  const Program& program_;
  const Limits limits_;
  std::int64_t steps_ = 0;
  std::size_t memory_ = 0;
  int depth_ = 0;
  std::deque<Scope> scopes_;
  std::vector<Scope*> free_;
  Scope* scope_ = nullptr;
  std::vector<std::shared_ptr<class Container>> kept_;
};

/// An object that holds values which can be set after it was made.
class Container : public Object {
 public:
  virtual void clear() = 0;
};

}  // namespace steer::text::detail::jinja
