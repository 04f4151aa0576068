// Expressions, from tokens to nodes, by the grammar of jinja2's parser.
#include "text/jinja/expression_parser.hpp"

#include "core/format_text.hpp"

namespace steer::text::detail::jinja {

bool ExpressionParser::tuple_ends(Words ends) const {
  return now().type == Type::variable_end || now().type == Type::block_end || now().type == Type::end || is_sign(")") ||
         at_any(ends);
}

ExpressionPtr ExpressionParser::tuple_expression(bool with_conditional, Words ends, bool in_parentheses) {
  auto tuple = make<ListLiteral>();
  tuple->is_tuple = true;
  bool comma = false;
  while (true) {
    if (!tuple->items.empty()) expect_sign(",");
    if (tuple_ends(ends)) break;
    tuple->items.push_back(with_conditional ? expression() : disjunction());
    if (!is_sign(",")) break;
    comma = true;
  }
  if (comma) return tuple;
  if (tuple->items.empty()) {
    if (!in_parentheses) unexpected("an expression");
    return tuple;
  }
  return std::move(tuple->items[0]);
}

ExpressionPtr ExpressionParser::expression() {
  const Level level(*this);
  const std::size_t known = unknown_.size();
  ExpressionPtr value = disjunction();
  while (is_word("if")) {
    unknown_.resize(known);
    link();
    auto node = make<Conditional>();
    take();
    const bool soft = std::exchange(soft_, true);
    node->yes = std::move(value);
    node->test = disjunction();
    if (skip_word("else")) node->no = expression();
    soft_ = soft;
    value = std::move(node);
  }
  return value;
}

template <class Operand>
ExpressionPtr ExpressionParser::junction(std::string_view word, bool is_and, Operand operand) {
  ExpressionPtr left = operand();
  while (is_word(word)) {
    link();
    auto node = make<Junction>();
    take();
    node->is_and = is_and;
    node->left = std::move(left);
    node->right = operand();
    left = std::move(node);
  }
  return left;
}

ExpressionPtr ExpressionParser::disjunction() {
  return junction("or", false, [&] { return junction("and", true, [&] { return negation(); }); });
}

ExpressionPtr ExpressionParser::negation() {
  if (!is_word("not")) return comparison();
  const Level level(*this);
  auto node = make<Not>();
  take();
  node->operand = negation();
  return node;
}

std::optional<Comparison> ExpressionParser::comparison_sign() {
  static constexpr std::pair<std::string_view, Comparison> signs[] = {
      {"==", Comparison::equal},      {"!=", Comparison::unequal}, {"<", Comparison::less},
      {"<=", Comparison::less_equal}, {">", Comparison::greater},  {">=", Comparison::greater_equal}};
  for (const auto& [text, how] : signs)
    if (skip_sign(text)) return how;
  if (skip_word("in")) return Comparison::in;
  if (is_word("not") && ahead().type == Type::name && ahead().text == "in") {
    take();
    take();
    return Comparison::not_in;
  }
  return std::nullopt;
}

ExpressionPtr ExpressionParser::comparison() {
  auto node = make<Comparisons>();
  node->first = sum();
  while (const auto how = comparison_sign()) node->rest.emplace_back(*how, sum());
  if (node->rest.empty()) return std::move(node->first);
  return node;
}

template <class Operand>
ExpressionPtr ExpressionParser::arithmetic(std::initializer_list<std::pair<std::string_view, Operator>> signs,
                                           Operand operand) {
  ExpressionPtr left = operand();
  while (true) {
    const auto found = std::ranges::find_if(signs, [&](const auto& sign) { return is_sign(sign.first); });
    if (found == signs.end()) return left;
    link();
    auto node = make<Arithmetic>();
    take();
    node->op = found->second;
    node->left = std::move(left);
    node->right = operand();
    left = std::move(node);
  }
}

ExpressionPtr ExpressionParser::sum() {
  return arithmetic({{"+", Operator::add}, {"-", Operator::subtract}}, [&] { return concatenation(); });
}

ExpressionPtr ExpressionParser::concatenation() {
  auto node = make<Concatenation>();
  node->parts.push_back(product());
  while (skip_sign("~")) node->parts.push_back(product());
  if (node->parts.size() == 1) return std::move(node->parts[0]);
  return node;
}

ExpressionPtr ExpressionParser::product() {
  return arithmetic(
      {{"*", Operator::multiply}, {"/", Operator::divide}, {"//", Operator::floor_divide}, {"%", Operator::modulo}},
      [&] {
        return arithmetic({{"**", Operator::power}}, [&] { return unary(true); });
      });
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const Level level(*this);
  ExpressionPtr value;
  if (is_sign("-") || is_sign("+")) {
    auto node = make<Sign>();
    node->is_negative = take().text == "-";
    node->operand = unary(false);
    value = std::move(node);
  } else {
    value = primary();
  }
  value = postfix(std::move(value));
  return with_filters ? filters_and_tests(std::move(value)) : std::move(value);
}

ExpressionPtr ExpressionParser::constant(Value value) {
  auto node = std::make_unique<Constant>(std::move(value));
  node->line = now().line;
  take();
  return node;
}

ExpressionPtr ExpressionParser::primary() {
  switch (now().type) {
    case Type::name:
      return name();
    case Type::string: {
      std::string text = take().text;
      while (now().type == Type::string) text += take().text;
      return std::make_unique<Constant>(Value::text(text));
    }
    case Type::integer:
      return constant(Value(now().integer));
    case Type::real:
      return constant(Value(now().real));
    default:
      break;
  }
  if (skip_sign("(")) {
    ExpressionPtr inner = tuple_expression(true, {}, true);
    expect_sign(")");
    return inner;
  }
  if (is_sign("[")) return list();
  if (is_sign("{")) return dict();
  unexpected("an expression");
}

ExpressionPtr ExpressionParser::name() {
  static const std::pair<std::string_view, Value> constants[] = {{"true", Value(true)},   {"True", Value(true)},
                                                                 {"false", Value(false)}, {"False", Value(false)},
                                                                 {"none", None{}},        {"None", None{}}};
  for (const auto& [word, value] : constants)
    if (is_word(word)) return constant(value);
  static constexpr std::string_view special[] = {"caller", "kwargs", "varargs"};
  for (std::size_t i = 0; i < std::size(special); ++i)
    if (is_word(special[i])) spoken_[i] = true;
  const int line = now().line;
  auto node = std::make_unique<Name>(number(expect_name()));
  node->line = line;
  return node;
}

ExpressionPtr ExpressionParser::list() {
  auto node = make<ListLiteral>();
  take();
  while (!is_sign("]")) {
    if (!node->items.empty()) expect_sign(",");
    if (is_sign("]")) break;
    node->items.push_back(expression());
  }
  take();
  return node;
}

ExpressionPtr ExpressionParser::dict() {
  auto node = make<DictLiteral>();
  take();
  while (!is_sign("}")) {
    if (!node->items.empty()) expect_sign(",");
    if (is_sign("}")) break;
    ExpressionPtr key = expression();
    expect_sign(":");
    node->items.emplace_back(std::move(key), expression());
  }
  take();
  return node;
}

// Attributes, subscripts and calls behind a value.
ExpressionPtr ExpressionParser::postfix(ExpressionPtr value) {
  for (;; link()) {
    if (is_sign("."))
      value = attribute(std::move(value));
    else if (is_sign("["))
      value = subscript(std::move(value));
    else if (is_sign("("))
      value = call(std::move(value));
    else
      return value;
  }
}

ExpressionPtr ExpressionParser::attribute(ExpressionPtr base) {
  take();
  if (now().type == Type::integer) {
    auto node = make<Item>();
    node->base = std::move(base);
    node->key = constant(Value(now().integer));
    return node;
  }
  auto node = make<Attribute>();
  node->base = std::move(base);
  if (now().type != Type::name) unexpected("a name or a number");
  node->name = take().text;
  return node;
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr base) {
  take();
  auto part = [&](ExpressionPtr& into) {
    if (!is_sign(":") && !is_sign("]") && !is_sign(",")) into = expression();
  };
  auto node = make<Slice>();
  if (is_sign(",")) unexpected("an expression");
  part(node->start);
  if (is_sign(":")) {
    take();
    part(node->stop);
    if (skip_sign(":")) part(node->step);
    if (is_sign(",")) unsupported("line {}: several slices in one subscript", now().line);
    expect_sign("]");
    node->base = std::move(base);
    return node;
  }
  auto single = make<Item>();
  single->base = std::move(base);
  single->key = std::move(node->start);
  if (is_sign(",") || !single->key) {  // x[] asks for the empty tuple
    auto tuple = make<ListLiteral>();
    tuple->is_tuple = true;
    if (single->key) tuple->items.push_back(std::move(single->key));
    while (skip_sign(",")) tuple->items.push_back(expression());
    single->key = std::move(tuple);
  }
  expect_sign("]");
  return single;
}

ExpressionPtr ExpressionParser::call(ExpressionPtr callee) {
  auto node = make<CallExpression>();
  node->callee = std::move(callee);
  node->arguments = arguments();
  return node;
}

Arguments ExpressionParser::arguments() {
  Arguments out;
  expect_sign("(");
  const auto ensure = [&](bool ok) {
    if (!ok) wrong("invalid syntax for function call expression");
  };
  for (bool first = true; !is_sign(")"); first = false) {
    if (!first) {
      expect_sign(",");
      if (is_sign(")")) break;
    }
    if (skip_sign("*")) {
      ensure(!out.list && !out.dict);
      out.list = expression();
    } else if (skip_sign("**")) {
      ensure(!out.dict);
      out.dict = expression();
    } else if (now().type == Type::name && ahead().type == Type::sign && ahead().text == "=") {
      ensure(!out.dict);
      std::string name = take().text;
      take();
      out.named.emplace_back(std::move(name), expression());
    } else {
      ensure(!out.list && !out.dict && out.named.empty());
      out.positional.push_back(expression());
    }
  }
  take();
  return out;
}

// ---- filters and tests
ExpressionPtr ExpressionParser::filters_and_tests(ExpressionPtr value) {
  for (;; link()) {
    if (is_sign("|"))
      value = filters(std::move(value));
    else if (is_word("is"))
      value = test(std::move(value));
    else if (is_sign("("))
      value = call(std::move(value));
    else
      return value;
  }
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr value) {
  for (; is_sign("|"); link()) {
    take();
    value = filter(std::move(value));
  }
  return value;
}

std::string ExpressionParser::dotted_name() {
  std::string out = expect_name();
  while (skip_sign(".")) out += "." + expect_name();
  return out;
}

// Unknown names are errors of the tag, but for those that stand under a condition.
void ExpressionParser::resolve(Apply& node) {
  node.function = node.is_test ? find_test(node.name) : find_filter(node.name);
  if (!node.function && !soft_)
    unknown_.push_back(
        format_text("line {}: No {} named '{}'.", now().line, node.is_test ? "test" : "filter", node.name));
}

ExpressionPtr ExpressionParser::filter(ExpressionPtr base) {
  auto node = make<Apply>();
  node->base = std::move(base);
  node->name = dotted_name();
  resolve(*node);
  if (is_sign("(")) node->arguments = arguments();
  return node;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr base) {
  auto node = make<Apply>();
  take();
  const bool negated = skip_word("not");
  node->is_test = true;
  node->base = std::move(base);
  node->name = dotted_name();
  resolve(*node);
  const auto type = now().type;
  if (is_sign("(")) {
    node->arguments = arguments();
  } else if (type == Type::string || type == Type::integer || type == Type::real || is_sign("[") || is_sign("{") ||
             (type == Type::name && !at_any({"else", "or", "and"}))) {
    if (is_word("is")) wrong("You cannot chain multiple tests with is");
    const Level level(*this);
    node->arguments.positional.push_back(postfix(primary()));
  }
  if (!negated) return node;
  auto inverse = make<Not>();
  inverse->operand = std::move(node);
  return inverse;
}

}  // namespace steer::text::detail::jinja
