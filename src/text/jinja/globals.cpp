// The names every template can use: range, dict, namespace, cycler, joiner, raise_exception, strftime_now.

#include <algorithm>

#include "text/jinja/function.hpp"

namespace steer::text::detail::jinja {
namespace {

class Builtin final : public Object {
 public:
  explicit Builtin(const Function& function) : function_(function) {}
  std::string_view type_name() const override { return "function"; }
  bool callable() const override { return true; }
  Value call(Machine& machine, Call& call) override { return invoke(machine, function_, call); }

 private:
  const Function& function_;
};

// dict(): from a mapping or pairs, and names.
std::vector<std::pair<Value, Value>> items_of(Machine& machine, Call& call) {
  if (call.args.size() > 1) raise("dict expected at most 1 argument, got {}", call.args.size());
  std::vector<std::pair<Value, Value>> out;
  if (!call.args.empty()) {
    if (const auto* dict = call.args[0].dict()) {
      out = dict->items;
    } else {
      for (const Value& pair : collect(machine, call.args[0])) {
        const std::vector<Value> parts = collect(machine, pair);
        if (parts.size() != 2) raise("dictionary update sequence element has length {}; 2 is required", parts.size());
        put(machine, out, parts[0], parts[1]);
      }
    }
  }
  for (auto& [name, value] : call.named) put(machine, out, machine.string(name), std::move(value));
  return out;
}
Value make_dict(Machine& machine, Call& call) { return machine.dict(items_of(machine, call)); }

class Namespace final : public Container {
 public:
  explicit Namespace(std::vector<std::pair<Value, Value>> items) : items_(std::move(items)) {
    for (const auto& [key, value] : items_)
      if (key.string()) check(key.string()->text.bytes());
  }
  std::string_view type_name() const override { return "TemplateNamespace"; }
  Value attribute(Machine&, std::string_view name) override {
    const auto found = find(name);
    return found == items_.end() ? Value() : found->second;
  }
  bool set_attribute(std::string_view name, const Value& value) override {
    check(name);
    if (const auto found = find(name); found != items_.end())
      found->second = value;
    else
      items_.emplace_back(Value::text(name), value);
    return true;
  }
  MarkedText repr(Machine& machine) const override {
    MarkedText out("<Namespace ");
    out.append(jinja::repr(machine, machine.dict(items_)));
    out.append(">");
    return out;
  }
  void clear() override { items_.clear(); }

 private:
  static void check(std::string_view name) {
    if (name.starts_with('_')) raise("a namespace cannot hold the name '{}', which begins with an underscore", name);
  }
  std::vector<std::pair<Value, Value>>::iterator find(std::string_view name) {
    return std::ranges::find_if(
        items_, [&](const auto& item) { return item.first.string() && item.first.string()->text.bytes() == name; });
  }
  std::vector<std::pair<Value, Value>> items_;
};
Value make_namespace(Machine& machine, Call& call) {
  return Value(std::shared_ptr<Object>(machine.keep(std::make_shared<Namespace>(items_of(machine, call)))));
}

Value range(Machine& machine, Call& call) {
  const bool one = call.args[1].missing();
  const std::int64_t start = one ? 0 : integer_of(call.args[0], "range");
  return make_range(machine, start, integer_of(call.args[one ? 0 : 1], "range"), integer_argument(call, 2, 1, "range"));
}

class Cycler final : public Object {
 public:
  Cycler(Value items) : items_(std::move(items)) {}
  std::string_view type_name() const override { return "Cycler"; }
  int depth() const override { return items_.depth() + 1; }
  Value attribute(Machine& machine, std::string_view name) override {
    if (name == "current") return items_.sequence()->items[at_];
    if (name == "pos") return Value(static_cast<std::int64_t>(at_));
    if (name == "items") return items_;
    if (name == "next" || name == "reset") {
      machine.charge(sizeof(Step));
      return Value(std::shared_ptr<Object>(std::make_shared<Step>(self_.lock(), name == "next")));
    }
    return {};
  }
  void remember(const std::shared_ptr<Cycler>& self) { self_ = self; }

 private:
  class Step final : public Object {
   public:
    Step(std::shared_ptr<Cycler> cycler, bool next) : cycler_(std::move(cycler)), next_(next) {}
    std::string_view type_name() const override { return "method"; }
    bool callable() const override { return true; }
    int depth() const override { return cycler_->depth() + 1; }
    Value call(Machine&, Call& call) override {
      if (!call.args.empty() || !call.named.empty()) raise("a cycler's next() and reset() take no arguments");
      const auto& items = cycler_->items_.sequence()->items;
      const Value current = items[cycler_->at_];
      cycler_->at_ = next_ ? (cycler_->at_ + 1) % items.size() : 0;
      return next_ ? current : Value(None{});
    }

   private:
    std::shared_ptr<Cycler> cycler_;
    bool next_;
  };
  Value items_;
  std::size_t at_ = 0;
  std::weak_ptr<Cycler> self_;
};
Value make_cycler(Machine& machine, Call& call) {
  if (call.args.empty()) raise("at least one item has to be provided");
  if (!call.named.empty()) raise("cycler() got an unexpected keyword argument '{}'", call.named[0].first);
  auto cycler = std::make_shared<Cycler>(machine.tuple(std::move(call.args)));
  cycler->remember(cycler);
  machine.charge(sizeof(Cycler));
  return Value(std::shared_ptr<Object>(std::move(cycler)));
}

class Joiner final : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  std::string_view type_name() const override { return "Joiner"; }
  bool callable() const override { return true; }
  int depth() const override { return separator_.depth() + 1; }
  Value attribute(Machine&, std::string_view name) override {
    if (name == "sep") return separator_;
    if (name == "used") return Value(used_);
    return {};
  }
  Value call(Machine&, Call&) override { return std::exchange(used_, true) ? separator_ : Value::text(""); }

 private:
  Value separator_;
  bool used_ = false;
};
Value make_joiner(Machine& machine, Call& call) {
  machine.charge(sizeof(Joiner));
  return Value(
      std::shared_ptr<Object>(std::make_shared<Joiner>(call.args[0].missing() ? Value::text(", ") : call.args[0])));
}

Value raise_exception(Machine& machine, Call& call) { raise("{}", str(machine, call.args[0]).bytes()); }

Value strftime_now(Machine& machine, Call& call) {
  return machine.string(format_time(machine.now, text_argument(call, 0, "strftime_now").bytes()));
}

constexpr Function functions[] = {
    {"range", {"start", "stop", "step"}, 1, range},
    {"dict", {}, Function::any_arguments, make_dict},
    {"namespace", {}, Function::any_arguments, make_namespace},
    {"cycler", {}, Function::any_arguments, make_cycler},
    {"joiner", {"sep"}, 0, make_joiner},
    {"raise_exception", {"message"}, 1, raise_exception},
    {"strftime_now", {"format"}, 1, strftime_now},
};

}  // namespace

Value global(std::string_view name) {
  static const auto values = [] {
    std::vector<std::pair<std::string_view, Value>> out;
    for (const Function& function : functions)
      out.emplace_back(function.name, Value(std::shared_ptr<Object>(std::make_shared<Builtin>(function))));
    return out;
  }();
  if (name == "lipsum") unsupported("the function lipsum");
  const auto found = std::ranges::find(values, name, &std::pair<std::string_view, Value>::first);
  return found == values.end() ? Value() : found->second;
}

}  // namespace steer::text::detail::jinja
