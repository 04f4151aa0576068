#pragma once

#include <algorithm>
#include <array>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/format_text.hpp"
#include "text/jinja/lexer.hpp"
#include "text/jinja/syntax.hpp"

namespace steer::text::detail::jinja {

inline constexpr int deepest = 200;      // blocks in blocks and brackets in brackets
inline constexpr int most_links = 4000;  // operators, filters, attributes and calls of one tag: they nest to the left

/// The expressions of jinja2's grammar, and the tokens that they and the statements are made of.
class ExpressionParser {
 protected:
  using Type = Token::Type;
  using Words = std::initializer_list<std::string_view>;

  explicit ExpressionParser(std::string_view source) : tokens_(tokenize(source)) {}

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
                                : format_text("'{}'", now().text);
    raise("line {}: expected {} but got {}", now().line, wanted, got);
  }
  void expect_sign(std::string_view sign) {
    if (!skip_sign(sign)) unexpected(format_text("'{}'", sign));
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
    explicit Level(ExpressionParser& parser) : parser_(parser) {
      if (++parser.level_ > deepest) parser.wrong(format_text("nested deeper than {}", deepest));
    }
    ~Level() { --parser_.level_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    ExpressionParser& parser_;
  };
  void link() {
    if (++links_ > most_links) wrong(format_text("more than {} operators in one tag", most_links));
  }

  template <class T>
  std::unique_ptr<T> make() const {
    auto node = std::make_unique<T>();
    node->line = now().line;
    return node;
  }
  bool at_any(Words words) const {
    return now().type == Type::name && std::ranges::find(words, std::string_view(now().text)) != words.end();
  }

  // ---- expressions (expression_parser.cpp), from the loosest binding to the tightest
  bool tuple_ends(Words ends) const;
  ExpressionPtr tuple_expression(bool with_conditional, Words ends, bool in_parentheses = false);
  ExpressionPtr expression();
  template <class Operand>
  ExpressionPtr junction(std::string_view word, bool is_and, Operand operand);
  ExpressionPtr disjunction();
  ExpressionPtr negation();
  std::optional<Comparison> comparison_sign();
  ExpressionPtr comparison();
  template <class Operand>
  ExpressionPtr arithmetic(std::initializer_list<std::pair<std::string_view, Operator>> signs, Operand operand);
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr unary(bool with_filters);
  ExpressionPtr constant(Value value);
  ExpressionPtr primary();
  ExpressionPtr name();
  ExpressionPtr list();
  ExpressionPtr dict();
  ExpressionPtr postfix(ExpressionPtr value);
  ExpressionPtr attribute(ExpressionPtr base);
  ExpressionPtr subscript(ExpressionPtr base);
  ExpressionPtr call(ExpressionPtr callee);
  Arguments arguments();
  ExpressionPtr filters_and_tests(ExpressionPtr value);
  ExpressionPtr filters(ExpressionPtr value);
  std::string dotted_name();
  void resolve(Apply& node);
  ExpressionPtr filter(ExpressionPtr base);
  ExpressionPtr test(ExpressionPtr base);

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

}  // namespace steer::text::detail::jinja
