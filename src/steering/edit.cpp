#include <steer/steering/edit.hpp>

#include <algorithm>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "steering/checks.hpp"
#include "steering/edits/operation.hpp"

namespace steer {

using namespace steering::detail;

namespace {

bool tagged(Where where) { return where == Where::inside_tag || where == Where::outside_tag; }

Value parameter(const Edit& edit, std::string_view name) {
  std::string names;
  for (Field& field : edit.op->fields()) {
    if (field.name == name) return std::move(field.value);
    names += (names.empty() ? "" : ", ") + std::string(field.name);
  }
  fail(ErrorCode::argument, "Edit", "expected a parameter of {} ({}) but got \"{}\"", edit.kind(),
       names.empty() ? "none" : names, name);
}

}  // namespace

bool operator==(const Scope& a, const Scope& b) {
  return a.where == b.where && a.count == b.count && a.begin == b.begin && a.end == b.end && a.tag == b.tag &&
         a.include_bos == b.include_bos && a.tokens == b.tokens && a.except == b.except;
}

void Scope::validate(std::string_view where) const {
  require(this->where == Where::onset || count == 0, ErrorCode::argument, where,
          "expected a scope \"{}\" without count, which only \"onset\" looks at, but got {}", to_string(this->where),
          count);
  require(this->where == Where::span || (begin == 0 && end == 0), ErrorCode::argument, where,
          "expected a scope \"{}\" without begin and end, which only \"span\" looks at, but got [{}, {})",
          to_string(this->where), begin, end);
  require(tagged(this->where) || tag.empty(), ErrorCode::argument, where,
          "expected a scope \"{}\" without a tag, which only \"inside_tag\" and \"outside_tag\" look at, but got "
          "\"{}\"",
          to_string(this->where), tag);
  require(this->where != Where::onset || count > 0, ErrorCode::argument, where,
          "expected an onset of 1 or more tokens but got {}: the scope can match nothing", count);
  require(this->where != Where::span || begin < end, ErrorCode::argument, where,
          "expected a span [begin, end) that holds a position but got [{}, {}): the scope can match nothing", begin,
          end);
  require(this->where != Where::span || begin < 0 || end > 1 || include_bos, ErrorCode::argument, where,
          "expected a span beyond position 0 but got [{}, {}) without include_bos: the scope can match nothing", begin,
          end);
  require(!tagged(this->where) || !tag.empty(), ErrorCode::argument, where, "expected a tag name but got none");
  require(tag.find_first_of("<>/ \t\n") == std::string::npos, ErrorCode::argument, where,
          "expected a bare tag name such as \"thinking\" but got \"{}\"", tag);
  for (std::int64_t id : tokens)
    require(id >= 0, ErrorCode::argument, where, "expected token ids of 0 or more but got {}", id);
  for (const Scope& scope : except) {
    Scope whole = scope;  // what is taken away may well be position 0
    whole.include_bos = true;
    whole.validate(where);
  }
}

std::string Scope::describe() const {
  std::string text(to_string(where));
  if (where == Where::onset) text += format_text(" {}", count);
  if (where == Where::span) text += format_text(" [{}, {})", begin, end);
  if (where == Where::span && begin < 0) text += " from the prompt's end";
  if (tagged(where)) text += " " + tag;
  if (!tokens.empty()) text += format_text(" of token {}", fmt::join(tokens, " or "));
  if (include_bos) text += " with BOS";
  for (const Scope& scope : except) text += " but not " + scope.describe();
  return text;
}

std::string_view Edit::kind() const { return op->kind(); }

double Edit::number(std::string_view name) const {
  const Value value = parameter(*this, name);
  if (const auto* whole = std::get_if<std::int64_t>(&value)) return static_cast<double>(*whole);
  const auto* number = std::get_if<double>(&value);
  require(number, ErrorCode::argument, "Edit::number", "expected a number as \"{}\" of {} but it is something else",
          name, kind());
  return *number;
}

at::Tensor Edit::vector(std::string_view name) const {
  const Value value = parameter(*this, name);
  const auto* vector = std::get_if<at::Tensor>(&value);
  require(vector, ErrorCode::argument, "Edit::vector", "expected a vector as \"{}\" of {} but it is something else",
          name, kind());
  return *vector;
}

std::string Edit::describe() const {
  std::string text = std::string(kind()) + op->describe();
  if (unit != StrengthUnit::raw) text += format_text(" {}", to_string(unit));
  if (strength != 1) text += format_text(" x {}", strength);
  text += " at " + point.name();
  if (scope != Scope{}) text += ", " + scope.describe();
  if (when) text += ", when " + when->describe();
  return text;
}

void Edit::validate(std::string_view where) const {
  require(op != nullptr, ErrorCode::argument, where,
          "expected an edit made by a builder of Steering but got one without an operation");
  require_finite(strength, "strength", where);
  require(unit == StrengthUnit::raw || op->takes(unit), ErrorCode::argument, where,
          "expected a unit that {} can be measured in but got {}", kind(), to_string(unit));
  scope.validate(where);
  if (when) when->validate(where);
  op->validate(unit, where);
}

bool operator==(const Edit& a, const Edit& b) {
  const auto same_op = [&] {
    if (a.op == b.op) return true;
    if (!a.op || !b.op || a.kind() != b.kind()) return false;
    const auto x = a.op->fields(), y = b.op->fields();
    return std::equal(x.begin(), x.end(), y.begin(), y.end(),
                      [](const Field& p, const Field& q) { return p.name == q.name && same(p.value, q.value); });
  };
  return a.point == b.point && a.strength == b.strength && a.unit == b.unit && a.scope == b.scope && a.name == b.name &&
         a.when == b.when && same_op();
}

}  // namespace steer
