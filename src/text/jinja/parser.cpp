// Statements, from tokens to a Program, by the grammar of jinja2's parser.
#include "core/format_text.hpp"
#include "text/jinja/expression_parser.hpp"

namespace steer::text::detail::jinja {
namespace {

class Parser : private ExpressionParser {
 public:
  explicit Parser(std::string_view source) : ExpressionParser(source) {}

  Program run() {
    program_.body = block({});
    return std::move(program_);
  }

 private:
  // ---- statements
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
    if (ends.size() > 0) unexpected(format_text("{{% {} %}}", *(ends.end() - 1)));
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
    wrong(format_text("unknown tag '{}'", now().text));
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
    if (loops_ == 0) wrong(format_text("'{}' outside loop", now().text));
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
    if (std::ranges::find(constants, name) != std::end(constants)) wrong(format_text("can't assign to '{}'", name));
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
};

}  // namespace

Program parse(std::string_view source) { return Parser(source).run(); }

int Program::name(std::string_view text) const {
  const auto found = std::ranges::find(names, text);
  return found == names.end() ? -1 : static_cast<int>(found - names.begin());
}

}  // namespace steer::text::detail::jinja
