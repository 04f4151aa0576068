#pragma once
// The parts of a parsed template. Each knows how to evaluate or run itself (expressions.cpp, statements.cpp).

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/function.hpp"
#include "text/jinja/machine.hpp"

namespace steer::text::detail::jinja {

struct Expression {
  int line = 0;
  virtual ~Expression() = default;
  virtual Value evaluate(Machine&) const = 0;
};
using ExpressionPtr = std::unique_ptr<const Expression>;

/// The arguments of a call: `a, b=c, *d, **e`.
struct Arguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr list, dict;
  /// Evaluated, `first` before them if it is not missing. `storage` keeps the names that `dict` gave.
  Call evaluate(Machine&, Value first, std::vector<std::string>& storage) const;
};

struct Constant final : Expression {
  Value value;
  explicit Constant(Value v) : value(std::move(v)) {}
  Value evaluate(Machine&) const override { return value; }
};
struct Name final : Expression {
  int name;
  explicit Name(int n) : name(n) {}
  Value evaluate(Machine& machine) const override { return machine.lookup(name); }
};
struct Attribute final : Expression {
  ExpressionPtr base;
  std::string name;
  Value evaluate(Machine&) const override;
};
struct Item final : Expression {
  ExpressionPtr base, key;
  Value evaluate(Machine&) const override;
};
struct Slice final : Expression {
  ExpressionPtr base, start, stop, step;
  Value evaluate(Machine&) const override;
};
struct CallExpression final : Expression {
  ExpressionPtr callee;
  Arguments arguments;
  Value evaluate(Machine&) const override;
  Value evaluate_with(Machine&, std::string_view name, Value extra) const;
};
/// A filter or a test. `base` is null at the head of a filter block.
struct Apply final : Expression {
  ExpressionPtr base;
  std::string name;
  bool is_test = false;
  const Function* function = nullptr;  ///< null: none of that name, which counts only when it is reached
  Arguments arguments;
  Value evaluate(Machine&) const override;
  Value apply(Machine&, Value value) const;
};
struct Not final : Expression {
  ExpressionPtr operand;
  Value evaluate(Machine&) const override;
};
struct Sign final : Expression {
  ExpressionPtr operand;
  bool is_negative = false;
  Value evaluate(Machine&) const override;
};
/// `a and b`, `a or b`: one of the two values.
struct Junction final : Expression {
  ExpressionPtr left, right;
  bool is_and = false;
  Value evaluate(Machine&) const override;
};
struct Arithmetic final : Expression {
  Operator op = Operator::add;
  ExpressionPtr left, right;
  Value evaluate(Machine&) const override;
};
/// `a ~ b ~ c`
struct Concatenation final : Expression {
  std::vector<ExpressionPtr> parts;
  Value evaluate(Machine&) const override;
};
enum class Comparison { equal, unequal, less, less_equal, greater, greater_equal, in, not_in };
/// `a < b <= c`
struct Comparisons final : Expression {
  ExpressionPtr first;
  std::vector<std::pair<Comparison, ExpressionPtr>> rest;
  Value evaluate(Machine&) const override;
};
bool compare(Machine&, Comparison how, const Value& a, const Value& b);
/// `a if test else b`
struct Conditional final : Expression {
  ExpressionPtr test, yes, no;  ///< `no` may be null
  Value evaluate(Machine&) const override;
};
struct ListLiteral final : Expression {
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  Value evaluate(Machine&) const override;
};
struct DictLiteral final : Expression {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> items;
  Value evaluate(Machine&) const override;
};

enum class Flow { next, leave_loop, next_iteration };

struct Statement {
  int line = 0;
  virtual ~Statement() = default;
  virtual Flow run(Machine&, MarkedText& out) const = 0;
};
using Block = std::vector<std::unique_ptr<const Statement>>;
Flow run(Machine&, const Block& block, MarkedText& out);

/// What is assigned to: a name, an attribute of a namespace, or a tuple of these.
struct Target {
  int name = -1;
  std::string attribute;  ///< of the namespace `name`
  std::vector<Target> parts;
  bool is_tuple = false;
  void assign(Machine&, const Value& value) const;
};

struct Data final : Statement {
  std::string text;
  Flow run(Machine&, MarkedText& out) const override;
};
struct Print final : Statement {
  std::vector<ExpressionPtr> values;
  Flow run(Machine&, MarkedText& out) const override;
};
struct If final : Statement {
  std::vector<std::pair<ExpressionPtr, Block>> branches;  ///< the test of `else` is null
  Flow run(Machine&, MarkedText& out) const override;
};
struct For final : Statement {
  Target target;
  ExpressionPtr items, test;  ///< `test` may be null
  Block body, otherwise;
  bool recursive = false;
  int loop_name = -1;
  Flow run(Machine&, MarkedText& out) const override;
  void run_over(Machine&, Value items, Scope* scope, std::int64_t depth, MarkedText& out) const;
};
struct Assign final : Statement {
  Target target;
  ExpressionPtr value;
  Flow run(Machine&, MarkedText& out) const override;
};
/// `{% set x | filter %}...{% endset %}`, and `{% filter f %}...{% endfilter %}` where there is no target.
struct Capture final : Statement {
  std::optional<Target> target;
  ExpressionPtr filter;  ///< a chain of Apply whose innermost base is null, or null
  Block body;
  Flow run(Machine&, MarkedText& out) const override;
};
struct MacroDefinition {
  std::string name;
  std::vector<std::pair<int, std::string>> parameters;
  std::vector<ExpressionPtr> defaults;  ///< of the last parameters
  Block body;
  bool takes_caller = false, takes_names = false, takes_rest = false;
  int caller_name = -1, names_name = -1, rest_name = -1;
};
struct Macro final : Statement {
  MacroDefinition definition;
  int name = -1;
  Flow run(Machine&, MarkedText& out) const override;
};
/// `{% call(args) f() %}...{% endcall %}`
struct CallBlock final : Statement {
  MacroDefinition definition;
  ExpressionPtr call;
  Flow run(Machine&, MarkedText& out) const override;
};
/// A block with a scope of its own: with, generation, block.
struct Scoped final : Statement {
  std::vector<std::pair<Target, ExpressionPtr>> set;
  Block body;
  Flow run(Machine&, MarkedText& out) const override;
};
struct Jump final : Statement {
  Flow flow = Flow::next;
  Flow run(Machine&, MarkedText&) const override { return flow; }
};

/// A parsed template: immutable, used by any number of renderings at once.
struct Program {
  std::vector<std::string> names;  ///< by the numbers that Name and Target hold
  Block body;
  int name(std::string_view text) const;  ///< -1 if the template does not use the name
};

/// @throws TemplateFailure for what is not a template, TemplateUnsupported for what steer has not.
Program parse(std::string_view source);

}  // namespace steer::text::detail::jinja
