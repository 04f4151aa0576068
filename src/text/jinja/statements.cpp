// How statements are run: what they print is appended to `out`.

#include <algorithm>

#include "core/format_text.hpp"
#include "text/jinja/syntax.hpp"

namespace steer::text::detail::jinja {
namespace {

/// What a `for` calls `loop`. Reads one item ahead only when asked, as what a template sees then must not change.
class Loop final : public Container {
 public:
  Loop(const For& statement, Machine& machine, const Value& items, Scope* scope, std::int64_t depth)
      : statement_(statement), scope_(scope), items_(Iteration(machine, items)), depth_(depth) {
    if (!statement.test) length_ = items_->known_length();
  }

  std::string_view type_name() const override { return "LoopContext"; }

  /// The next item, or a missing value.
  Value advance(Machine& machine) {
    Value item = ahead_ ? std::move(*ahead_) : pull(machine);
    ahead_.reset();
    if (item.missing()) return item;
    ++index_;
    before_ = std::exchange(current_, item);
    return item;
  }

  Value attribute(Machine& machine, std::string_view name) override {
    if (name == "index") return Value(index_ + 1);
    if (name == "index0") return Value(index_);
    if (name == "first") return Value(index_ == 0);
    if (name == "last") return Value(peek(machine).missing());
    if (name == "length" || name == "__len__") return Value(length(machine));
    if (name == "revindex") return Value(length(machine) - index_);
    if (name == "revindex0") return Value(length(machine) - index_ - 1);
    if (name == "depth") return Value(depth_ + 1);
    if (name == "depth0") return Value(depth_);
    if (name == "previtem") return index_ == 0 ? Value::undefined("there is no previous item") : before_;
    if (name == "nextitem") return peek(machine).missing() ? Value::undefined("there is no next item") : peek(machine);
    if (name == "cycle") return method(machine, &Loop::cycle);
    if (name == "changed") return method(machine, &Loop::changed);
    return {};
  }

  bool callable() const override { return true; }
  Value call(Machine& machine, Call& call) override {
    if (!statement_.recursive) raise("The loop must have the 'recursive' marker to be called recursively.");
    if (finished_) raise("a loop called after its end");
    if (call.args.size() != 1 || !call.named.empty()) raise("a loop is called with one iterable");
    MarkedText out;
    statement_.run_over(machine, call.args[0], scope_, depth_ + 1, out);
    return machine.string(std::move(out));
  }

  MarkedText repr(Machine& machine) const override {
    auto& self = const_cast<Loop&>(*this);
    return MarkedText(format_text("<LoopContext {}/{}>", index_ + 1, self.length(machine)));
  }

  void finish() {
    finished_ = true;
    clear();
  }
  void clear() override {
    items_.reset();
    rest_.clear();
    ahead_.reset();
    before_ = current_ = last_changed_ = {};
  }

 private:
  class Method final : public Object {
   public:
    using Body = Value (Loop::*)(Machine&, Call&);
    Method(Loop& loop, Body body) : loop_(loop), body_(body) {}
    std::string_view type_name() const override { return "method"; }
    bool callable() const override { return true; }
    Value call(Machine& machine, Call& call) override { return (loop_.*body_)(machine, call); }

   private:
    Loop& loop_;
    Body body_;
  };
  // The rendering keeps every loop until it ends, so a method may outlive its loop's run.
  Value method(Machine& machine, Method::Body body) {
    machine.charge(sizeof(Method));
    return Value(std::shared_ptr<Object>(std::make_shared<Method>(*this, body)));
  }

  Value cycle(Machine&, Call& call) {
    if (call.args.empty()) raise("no items for cycling given");
    return call.args[static_cast<std::size_t>(index_) % call.args.size()];
  }
  Value changed(Machine& machine, Call& call) {
    const Value values = machine.tuple(std::move(call.args));
    if (equal(machine, last_changed_, values)) return Value(false);
    last_changed_ = values;
    return Value(true);
  }

  Value pull(Machine& machine) {
    if (next_rest_ < rest_.size()) return rest_[next_rest_++];
    while (items_) {
      Value item = items_->next();
      if (item.missing()) break;
      if (!statement_.test) return item;
      const Machine::Enter enter(machine, scope_);
      statement_.target.assign(machine, item);
      if (truth(machine.evaluate(*statement_.test))) return item;
    }
    return {};
  }
  const Value& peek(Machine& machine) {
    if (!ahead_) ahead_ = pull(machine);
    return *ahead_;
  }
  std::int64_t length(Machine& machine) {
    if (length_) return *length_;
    std::vector<Value> rest;
    for (Value item = pull(machine); !item.missing(); item = pull(machine)) {
      machine.charge(sizeof(Value));
      rest.push_back(std::move(item));
    }
    rest_ = std::move(rest);
    next_rest_ = 0;
    items_.reset();
    length_ = static_cast<std::int64_t>(rest_.size()) + index_ + 1 + (ahead_ && !ahead_->missing());
    return *length_;
  }

  const For& statement_;
  Scope* scope_;
  std::optional<Iteration> items_;
  std::vector<Value> rest_;  // what finding the length has read ahead
  std::size_t next_rest_ = 0;
  std::optional<Value> ahead_;
  Value before_, current_, last_changed_;
  std::optional<std::int64_t> length_;
  std::int64_t index_ = -1, depth_;
  bool finished_ = false;
};

class MacroValue final : public Object {
 public:
  MacroValue(const MacroDefinition& definition, Scope* scope) : definition_(definition), scope_(scope) {}
  std::string_view type_name() const override { return "Macro"; }
  bool callable() const override { return true; }
  MarkedText repr(Machine&) const override { return MarkedText(format_text("<Macro '{}'>", definition_.name)); }

  Value attribute(Machine& machine, std::string_view name) override {
    if (name == "name") return machine.string(definition_.name);
    if (name == "arguments") {
      std::vector<Value> names;
      for (const auto& [id, text] : definition_.parameters) names.push_back(machine.string(text));
      return machine.tuple(std::move(names));
    }
    if (name == "catch_kwargs") return Value(definition_.takes_names);
    if (name == "catch_varargs") return Value(definition_.takes_rest);
    if (name == "caller") return Value(definition_.takes_caller);
    return {};
  }

  Value call(Machine& machine, Call& call) override {
    const Machine::Enter enter(machine, scope_);
    set_parameters(machine, call);
    MarkedText out;
    run(machine, definition_.body, out);
    return machine.string(std::move(out));
  }

 private:
  void set_parameters(Machine& machine, Call& call) const {
    const auto& parameters = definition_.parameters;
    std::vector<std::size_t> open;  // parameters without a value
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      Value value;
      if (i < call.args.size())
        value = call.args[i];
      else
        value = take(call, parameters[i].second);
      if (value.missing()) {
        open.push_back(i);
        value = Value::undefined(format_text("parameter '{}' was not provided", parameters[i].second));
      }
      machine.set(parameters[i].first, std::move(value));
    }
    if (definition_.takes_caller) {
      Value caller = take(call, "caller");
      machine.set(definition_.caller_name,
                  caller.missing() || caller.is_none() ? Value::undefined("No caller defined") : caller);
    }
    if (definition_.takes_names) {
      std::vector<std::pair<Value, Value>> names;
      for (auto& [name, value] : call.named) names.emplace_back(machine.string(name), std::move(value));
      machine.set(definition_.names_name, machine.dict(std::move(names)));
    } else if (!call.named.empty()) {
      raise("macro '{}' takes no keyword argument '{}'", definition_.name, call.named[0].first);
    }
    if (definition_.takes_rest) {
      std::vector<Value> rest;
      for (std::size_t i = parameters.size(); i < call.args.size(); ++i) rest.push_back(call.args[i]);
      machine.set(definition_.rest_name, machine.tuple(std::move(rest)));
    } else if (call.args.size() > parameters.size()) {
      raise("macro '{}' takes not more than {} argument(s)", definition_.name, parameters.size());
    }
    // Defaults are evaluated inside, in order: one may use the parameters before it.
    const std::size_t first_default = parameters.size() - definition_.defaults.size();
    for (const std::size_t i : open)
      if (i >= first_default)
        machine.set(parameters[i].first, machine.evaluate(*definition_.defaults[i - first_default]));
  }

  static Value take(Call& call, std::string_view name) {
    const auto found = std::ranges::find(call.named, name, &std::pair<std::string_view, Value>::first);
    if (found == call.named.end()) return {};
    Value value = std::move(found->second);
    call.named.erase(found);
    return value;
  }

  const MacroDefinition& definition_;
  Scope* scope_;
};

Value macro_value(Machine& machine, const MacroDefinition& definition) {
  machine.capture();
  machine.charge(sizeof(MacroValue) + 64);
  return Value(std::shared_ptr<Object>(std::make_shared<MacroValue>(definition, machine.scope())));
}

}  // namespace

Flow run(Machine& machine, const Block& block, MarkedText& out) {
  const Machine::Deeper deeper(machine);
  for (const auto& statement : block) {
    machine.step();
    machine.line = statement->line;
    if (const Flow flow = statement->run(machine, out); flow != Flow::next) return flow;
  }
  return Flow::next;
}

void Target::assign(Machine& machine, const Value& value) const {
  if (is_tuple) {
    const std::vector<Value> values = collect(machine, value);
    if (values.size() > parts.size()) raise("too many values to unpack (expected {})", parts.size());
    if (values.size() < parts.size())
      raise("not enough values to unpack (expected {}, got {})", parts.size(), values.size());
    for (std::size_t i = 0; i < parts.size(); ++i) parts[i].assign(machine, values[i]);
  } else if (attribute.empty()) {
    machine.set(name, value);
  } else {
    const Value space = machine.lookup(name);
    if (!space.object() || !space.object()->set_attribute(attribute, value))
      raise("cannot assign attribute on non-namespace object");
  }
}

Flow Data::run(Machine&, MarkedText& out) const {
  out.append(text);
  return Flow::next;
}

Flow Print::run(Machine& machine, MarkedText& out) const {
  for (const auto& value : values) {
    const Value printed = machine.evaluate(*value);
    if (const auto* string = printed.string())
      out.append(string->text);
    else
      out.append(str(machine, printed));
  }
  return Flow::next;
}

Flow If::run(Machine& machine, MarkedText& out) const {
  for (const auto& [test, block] : branches)
    if (!test || truth(machine.evaluate(*test))) return jinja::run(machine, block, out);
  return Flow::next;
}

Flow For::run(Machine& machine, MarkedText& out) const {
  run_over(machine, machine.evaluate(*items), machine.scope(), 0, out);
  return Flow::next;
}

void For::run_over(Machine& machine, Value values, Scope* scope, std::int64_t depth, MarkedText& out) const {
  const auto loop = machine.keep(std::make_shared<Loop>(*this, machine, values, scope, depth));
  const Value loop_value{std::shared_ptr<Object>(loop)};
  bool any = false;
  for (Value item = loop->advance(machine); !item.missing(); item = loop->advance(machine)) {
    any = true;
    const Machine::Enter enter(machine, scope);
    machine.set(loop_name, loop_value);
    target.assign(machine, item);
    if (jinja::run(machine, body, out) == Flow::leave_loop) break;
  }
  loop->finish();
  if (any) return;
  const Machine::Enter enter(machine, scope);
  jinja::run(machine, otherwise, out);
}

Flow Assign::run(Machine& machine, MarkedText&) const {
  target.assign(machine, machine.evaluate(*value));
  return Flow::next;
}

namespace {

// A chain of filters from the innermost on.
Value filtered(Machine& machine, const Apply& filter, Value value) {
  if (const auto* inner = static_cast<const Apply*>(filter.base.get()))
    value = filtered(machine, *inner, std::move(value));
  return filter.apply(machine, std::move(value));
}

}  // namespace

Flow Capture::run(Machine& machine, MarkedText& out) const {
  MarkedText text;
  {
    const Machine::Enter enter(machine);
    if (const Flow flow = jinja::run(machine, body, text); flow != Flow::next) return flow;
  }
  Value value = machine.string(std::move(text));
  if (filter) value = filtered(machine, static_cast<const Apply&>(*filter), std::move(value));
  if (target)
    target->assign(machine, value);
  else
    out.append(str(machine, value));
  return Flow::next;
}

Flow Macro::run(Machine& machine, MarkedText&) const {
  machine.set(name, macro_value(machine, definition));
  return Flow::next;
}

Flow CallBlock::run(Machine& machine, MarkedText& out) const {
  const auto& called = static_cast<const CallExpression&>(*call);
  out.append(str(machine, called.evaluate_with(machine, "caller", macro_value(machine, definition))));
  return Flow::next;
}

Flow Scoped::run(Machine& machine, MarkedText& out) const {
  std::vector<Value> values;  // seen from outside
  for (const auto& [target, value] : set) values.push_back(machine.evaluate(*value));
  const Machine::Enter enter(machine);
  for (std::size_t i = 0; i < set.size(); ++i) set[i].first.assign(machine, values[i]);
  return jinja::run(machine, body, out);
}

}  // namespace steer::text::detail::jinja
