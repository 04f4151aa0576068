// From tokens to a Program, by the grammar of jinja2's parser.

#include <algorithm>
#include <array>

#include "text/jinja/lexer.hpp"
#include "text/jinja/syntax.hpp"

namespace steer::text::detail::jinja {
namespace {

constexpr int deepest = 200;      // blocks in blocks and brackets in brackets
constexpr int most_links = 4000;  // operators, filters, attributes and calls of one tag: they nest to the left

using Type = Token::Type;
using Words = std::initializer_list<std::string_view>;

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}

  Program run() {
    program_.body = block({});
    return std::move(program_);
  }

 private:
  // ---- tokens
  const Token& now() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& take() {
    const Token& token = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool is_sign(std::string_view sign) const { return now().type == Type::sign && now().text == sign; }
  bool is_word(std::string_view word) const { return now().type == Type::name && now().text == word; }
  bool skip_sign(std::string_view sign) {
    const bool found = is_sign(sign);
    if (found) take();
    return found;
  }
  bool skip_word(std::string_view word) {
    const bool found = is_word(word);
    if (found) take();
    return found;
  }
  [[noreturn]] void wrong(std::string_view what) const { raise("line {}: {}", now().line, what); }
  [[noreturn]] void unexpected(std::string_view wanted) const {
    static constexpr std::string_view kinds[] = {"text", "{{", "}}", "{%", "%}"};
    const std::string got = now().type == Type::end ? "the end of the template"
                            : static_cast<std::size_t>(now().type) < std::size(kinds)
                                ? std::string(kinds[static_cast<std::size_t>(now().type)])
                                : fmt::format("'{}'", now().text);
    raise("line {}: expected {} but got {}", now().line, wanted, got);
  }
  void expect_sign(std::string_view sign) {
    if (!skip_sign(sign)) unexpected(fmt::format("'{}'", sign));
  }
  void expect(Type type, std::string_view what) {
    if (now().type != type) unexpected(what);
    take();
  }
  std::string expect_name() {
    if (now().type != Type::name) unexpected("a name");
    if (now().text[0] >= '0' && now().text[0] <= '9') unexpected("a name");
    return take().text;
  }
  void end_tag() {
    expect(Type::block_end, "'%}'");
    refuse_unknown();
  }
  void refuse_unknown() const {
    if (!unknown_.empty()) throw TemplateFailure(unknown_.front());
  }

  // Numbers of names are places in the program's list.
  int number(const std::string& name) {
    const auto found = std::ranges::find(program_.names, name);
    if (found == program_.names.end()) {
      program_.names.push_back(name);
      return static_cast<int>(program_.names.size()) - 1;
    }
    return static_cast<int>(found - program_.names.begin());
  }

  // Counts recursion, so that brackets in a hostile template do not overflow the stack.
  class Level {
   public:
    explicit Level(Parser& parser) : parser_(parser) {
      if (++parser.level_ > deepest) parser.wrong(fmt::format("nested deeper than {}", deepest));
    }
    ~Level() { --parser_.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Parser& parser_;
  };
  void link() {
    if (++links_ > most_links) wrong(fmt::format("more than {} operators in one tag", most_links));
  }

  template <class T>
  std::unique_ptr<T> make() const {
    auto node = std::make_unique<T>();
    node->line = now().line;
    return node;
  }

  // ---- statements
  bool at_any(Words words) const {
    return now().type == Type::name && std::ranges::find(words, std::string_view(now().text)) != words.end();
  }

  /// Statements up to a tag that begins with one of `ends`, which becomes the present token; none: up to the end.
  Block block(Words ends) {
    const Level level(*this);
    Block out;
    while (now().type != Type::end) {
      switch (now().type) {
        case Type::data: {
          auto data = make<Data>();
          data->text = take().text;
          out.push_back(std::move(data));
          break;
        }
        case Type::variable_begin: {
          links_ = 0;
          take();
          auto print = make<Print>();
          print->values.push_back(tuple_expression(true, {}));
          expect(Type::variable_end, "'}}'");
          refuse_unknown();
          out.push_back(std::move(print));
          break;
        }
        default: {
          expect(Type::block_begin, "'{%'");
          links_ = 0;
          if (at_any(ends)) return out;
          out.push_back(statement());
          end_tag();
        }
      }
    }
    if (ends.size() > 0) unexpected(fmt::format("{{% {} %}}", *(ends.end() - 1)));
    return out;
  }
  /// The body of a tag: from behind its '%}' up to a tag that begins with one of `ends`.
  Block body(Words ends) {
    skip_sign(":");
    end_tag();
    return block(ends);
  }
  Block body_to(std::string_view end) {
    Block out = body({end});
    take();
    return out;
  }

  std::unique_ptr<const Statement> statement() {
    if (now().type != Type::name) unexpected("the name of a tag");
    using Parse = std::unique_ptr<const Statement> (Parser::*)();
    static constexpr std::pair<std::string_view, Parse> tags[] = {{"for", &Parser::parse_for},
                                                                  {"if", &Parser::parse_if},
                                                                  {"set", &Parser::parse_set},
                                                                  {"macro", &Parser::parse_macro},
                                                                  {"call", &Parser::parse_call},
                                                                  {"filter", &Parser::parse_filter_block},
                                                                  {"with", &Parser::parse_with},
                                                                  {"print", &Parser::parse_print},
                                                                  {"generation", &Parser::parse_generation},
                                                                  {"block", &Parser::parse_named_block},
                                                                  {"break", &Parser::parse_break},
                                                                  {"continue", &Parser::parse_continue}};
    for (const auto& [name, parse] : tags)
      if (is_word(name)) {
        const bool soft = std::exchange(soft_, false);
        auto out = (this->*parse)();
        soft_ = soft;
        return out;
      }
    for (const std::string_view name : {"extends", "include", "import", "from", "autoescape"})
      if (is_word(name)) unsupported("line {}: the tag {{% {} %}}", now().line, name);
    wrong(fmt::format("unknown tag '{}'", now().text));
  }

  std::unique_ptr<const Statement> parse_for() {
    auto node = make<For>();
    take();
    node->target = target({"in"}, false);
    if (!skip_word("in")) unexpected("'in'");
    node->items = tuple_expression(false, {"recursive"});
    if (skip_word("if")) node->test = expression();
    node->recursive = skip_word("recursive");
    node->loop_name = number("loop");
    ++loops_;
    node->body = body({"else", "endfor"});
    --loops_;
    if (take().text == "else") node->otherwise = body_to("endfor");
    return node;
  }

  std::unique_ptr<const Statement> parse_if() {
    auto node = make<If>();
    take();
    soft_ = true;
    while (true) {
      ExpressionPtr test = tuple_expression(false, {});
      Block yes = body({"elif", "else", "endif"});
      node->branches.emplace_back(std::move(test), std::move(yes));
      const std::string word = take().text;
      if (word == "elif") continue;
      if (word == "else") node->branches.emplace_back(nullptr, body_to("endif"));
      return node;
    }
  }

  std::unique_ptr<const Statement> parse_set() {
    const int line = take().line;
    Target to = target({}, true);
    if (skip_sign("=")) {
      auto node = make<Assign>();
      node->target = std::move(to);
      node->value = tuple_expression(true, {});
      return node;
    }
    auto node = std::make_unique<Capture>();
    node->line = line;
    node->target = std::move(to);
    if (is_sign("|")) node->filter = filters(nullptr);
    node->body = body_to("endset");
    return node;
  }

  std::unique_ptr<const Statement> parse_filter_block() {
    auto node = make<Capture>();
    take();
    node->filter = filters(filter(nullptr));
    node->body = body_to("endfilter");
    return node;
  }

  // The parameters of a macro or a call block.
  void signature(MacroDefinition& macro) {
    expect_sign("(");
    while (!is_sign(")")) {
      if (!macro.parameters.empty()) expect_sign(",");
      const std::string name = expect_name();
      macro.parameters.emplace_back(number(name), name);
      if (skip_sign("="))
        macro.defaults.push_back(expression());
      else if (!macro.defaults.empty())
        wrong("non-default argument follows default argument");
    }
    take();
  }
  // A macro takes a caller, names or more values than it names if its body speaks of them.
  void macro_body(MacroDefinition& macro, std::string_view end) {
    macro.caller_name = number("caller");
    macro.names_name = number("kwargs");
    macro.rest_name = number("varargs");
    auto outer = std::exchange(spoken_, {});
    const int loops = std::exchange(loops_, 0);
    macro.body = body_to(end);
    loops_ = loops;
    macro.takes_caller = spoken_[0];
    macro.takes_names = spoken_[1];
    macro.takes_rest = spoken_[2];
    for (const auto& [name, text] : macro.parameters) {
      if (text == "caller") macro.takes_caller = false;
      if (text == "kwargs") macro.takes_names = false;
      if (text == "varargs") macro.takes_rest = false;
    }
    for (std::size_t i = 0; i < outer.size(); ++i) outer[i] = outer[i] || spoken_[i];
    spoken_ = outer;
  }

  std::unique_ptr<const Statement> parse_macro() {
    auto node = make<Macro>();
    take();
    node->definition.name = expect_name();
    node->name = number(node->definition.name);
    signature(node->definition);
    macro_body(node->definition, "endmacro");
    return node;
  }

  std::unique_ptr<const Statement> parse_call() {
    auto node = make<CallBlock>();
    take();
    if (is_sign("(")) signature(node->definition);
    node->call = expression();
    if (!dynamic_cast<const CallExpression*>(node->call.get())) wrong("expected call");
    node->definition.name = "caller";
    macro_body(node->definition, "endcall");
    return node;
  }

  std::unique_ptr<const Statement> parse_with() {
    auto node = make<Scoped>();
    take();
    while (now().type != Type::block_end) {
      if (!node->set.empty()) expect_sign(",");
      Target to = target({}, false);
      expect_sign("=");
      node->set.emplace_back(std::move(to), expression());
    }
    node->body = body_to("endwith");
    return node;
  }

  std::unique_ptr<const Statement> parse_print() {
    auto node = make<Print>();
    take();
    while (now().type != Type::block_end) {
      if (!node->values.empty()) expect_sign(",");
      node->values.push_back(expression());
    }
    return node;
  }

  std::unique_ptr<const Statement> parse_generation() {
    auto node = make<Scoped>();
    take();
    const int loops = std::exchange(loops_, 0);
    node->body = body_to("endgeneration");
    loops_ = loops;
    return node;
  }

  std::unique_ptr<const Statement> parse_named_block() {
    auto node = make<Scoped>();
    take();
    const std::string name = expect_name();
    while (skip_word("scoped") || skip_word("required")) {
    }
    node->body = body_to("endblock");
    skip_word(name);
    return node;
  }

  std::unique_ptr<const Statement> jump(Flow flow) {
    auto node = make<Jump>();
    if (loops_ == 0) wrong(fmt::format("'{}' outside loop", now().text));
    take();
    node->flow = flow;
    return node;
  }
  std::unique_ptr<const Statement> parse_break() { return jump(Flow::leave_loop); }
  std::unique_ptr<const Statement> parse_continue() { return jump(Flow::next_iteration); }

  // ---- targets of assignments
  Target one_target(bool with_namespace) {
    const Level level(*this);
    if (skip_sign("(")) {
      Target out = target({}, with_namespace);
      expect_sign(")");
      return out;
    }
    static constexpr std::string_view constants[] = {"true", "false", "none", "True", "False", "None"};
    Target out;
    const std::string name = expect_name();
    if (std::ranges::find(constants, name) != std::end(constants)) wrong(fmt::format("can't assign to '{}'", name));
    out.name = number(name);
    if (with_namespace && skip_sign(".")) out.attribute = expect_name();
    return out;
  }
  Target target(Words ends, bool with_namespace) {
    Target out;
    while (true) {
      if (!out.parts.empty()) expect_sign(",");
      if (tuple_ends(ends)) break;
      out.parts.push_back(one_target(with_namespace));
      if (!is_sign(",")) break;
      out.is_tuple = true;
    }
    if (out.is_tuple) return out;
    if (out.parts.empty()) unexpected("a name to assign to");
    Target only = std::move(out.parts[0]);
    return only;
  }

  // ---- expressions, from the loosest binding to the tightest
  bool tuple_ends(Words ends) const {
    return now().type == Type::variable_end || now().type == Type::block_end || now().type == Type::end ||
           is_sign(")") || at_any(ends);
  }

  ExpressionPtr tuple_expression(bool with_conditional, Words ends, bool in_parentheses = false) {
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

  ExpressionPtr expression() {
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
  ExpressionPtr junction(std::string_view word, bool is_and, Operand operand) {
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
  ExpressionPtr disjunction() {
    return junction("or", false, [&] { return junction("and", true, [&] { return negation(); }); });
  }
  ExpressionPtr negation() {
    if (!is_word("not")) return comparison();
    const Level level(*this);
    auto node = make<Not>();
    take();
    node->operand = negation();
    return node;
  }

  std::optional<Comparison> comparison_sign() {
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
  ExpressionPtr comparison() {
    auto node = make<Comparisons>();
    node->first = sum();
    while (const auto how = comparison_sign()) node->rest.emplace_back(*how, sum());
    if (node->rest.empty()) return std::move(node->first);
    return node;
  }

  template <class Operand>
  ExpressionPtr arithmetic(std::initializer_list<std::pair<std::string_view, Operator>> signs, Operand operand) {
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
  ExpressionPtr sum() {
    return arithmetic({{"+", Operator::add}, {"-", Operator::subtract}}, [&] { return concatenation(); });
  }
  ExpressionPtr concatenation() {
    auto node = make<Concatenation>();
    node->parts.push_back(product());
    while (skip_sign("~")) node->parts.push_back(product());
    if (node->parts.size() == 1) return std::move(node->parts[0]);
    return node;
  }
  ExpressionPtr product() {
    return arithmetic(
        {{"*", Operator::multiply}, {"/", Operator::divide}, {"//", Operator::floor_divide}, {"%", Operator::modulo}},
        [&] {
          return arithmetic({{"**", Operator::power}}, [&] { return unary(true); });
        });
  }

  ExpressionPtr unary(bool with_filters) {
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

  ExpressionPtr constant(Value value) {
    auto node = std::make_unique<Constant>(std::move(value));
    node->line = now().line;
    take();
    return node;
  }

  ExpressionPtr primary() {
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

  ExpressionPtr name() {
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

  ExpressionPtr list() {
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
  ExpressionPtr dict() {
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
  ExpressionPtr postfix(ExpressionPtr value) {
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
  ExpressionPtr attribute(ExpressionPtr base) {
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
  ExpressionPtr subscript(ExpressionPtr base) {
    take();
    auto part = [&](ExpressionPtr& into) {
      if (!is_sign(":") && !is_sign("]") && !is_sign(",")) into = expression();
    };
    auto node = make<Slice>();
    if (is_sign("]")) unexpected("an expression");
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
    if (is_sign(",")) {
      auto tuple = make<ListLiteral>();
      tuple->is_tuple = true;
      tuple->items.push_back(std::move(single->key));
      while (skip_sign(",")) tuple->items.push_back(expression());
      single->key = std::move(tuple);
    }
    expect_sign("]");
    return single;
  }
  ExpressionPtr call(ExpressionPtr callee) {
    auto node = make<CallExpression>();
    node->callee = std::move(callee);
    node->arguments = arguments();
    return node;
  }
  Arguments arguments() {
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
  ExpressionPtr filters_and_tests(ExpressionPtr value) {
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
  ExpressionPtr filters(ExpressionPtr value) {
    for (; is_sign("|"); link()) {
      take();
      value = filter(std::move(value));
    }
    return value;
  }
  std::string dotted_name() {
    std::string out = expect_name();
    while (skip_sign(".")) out += "." + expect_name();
    return out;
  }
  // Unknown names are errors of the tag, but for those that stand under a condition.
  void resolve(Apply& node) {
    node.function = node.is_test ? find_test(node.name) : find_filter(node.name);
    if (!node.function && !soft_)
      unknown_.push_back(
          fmt::format("line {}: No {} named '{}'.", now().line, node.is_test ? "test" : "filter", node.name));
  }
  ExpressionPtr filter(ExpressionPtr base) {
    auto node = make<Apply>();
    node->base = std::move(base);
    node->name = dotted_name();
    resolve(*node);
    if (is_sign("(")) node->arguments = arguments();
    return node;
  }
  ExpressionPtr test(ExpressionPtr base) {
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

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  Program program_;
  int level_ = 0;
  int loops_ = 0;
  int links_ = 0;
  bool soft_ = false;                 ///< under a condition
  std::vector<std::string> unknown_;  ///< filters and tests of this tag that nobody knows
  std::array<bool, 3> spoken_ = {};   ///< of caller, kwargs, varargs
};

}  // namespace

Program parse(std::string_view source) { return Parser(source).run(); }

int Program::name(std::string_view text) const {
  const auto found = std::ranges::find(names, text);
  return found == names.end() ? -1 : static_cast<int>(found - names.begin());
}

}  // namespace steer::text::detail::jinja
