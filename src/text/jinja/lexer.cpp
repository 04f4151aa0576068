#include "text/jinja/lexer.hpp"

#include <algorithm>
#include <charconv>

#include "core/format_text.hpp"
#include "text/jinja/failure.hpp"
#include "text/jinja/unicode.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail::jinja {
namespace {

// Line ends become \n, and one at the very end is left out.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t at = 0; at < source.size(); ++at) {
    if (source[at] != '\r') {
      out += source[at];
      continue;
    }
    out += '\n';
    if (at + 1 < source.size() && source[at + 1] == '\n') ++at;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(normalized(source)) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) root();
    add(Token::Type::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void wrong(std::string_view what) const { raise("line {}: {}", line_, what); }

  bool looking_at(std::string_view words) const { return std::string_view(text_).substr(at_).starts_with(words); }
  char peek(std::size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  void advance(std::size_t by) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         text_.begin() + static_cast<std::ptrdiff_t>(at_ + by), '\n'));
    at_ += by;
  }
  void skip_space() { advance(begin_without_space(std::string_view(text_).substr(at_))); }
  void add(Token::Type type, std::string text) {
    tokens_.push_back({.type = type, .line = line_, .text = std::move(text)});
  }

  // Text up to the next tag, then the tag.
  void root() {
    const std::size_t begin = at_;
    std::size_t tag = begin;
    for (;; ++tag) {
      tag = text_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= text_.size()) {
        add(Token::Type::data, text_.substr(begin));
        at_ = text_.size();
        return;
      }
      if (const char next = text_[tag + 1]; next == '{' || next == '%' || next == '#') break;
    }
    const char kind = text_[tag + 1];
    const char sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
    data(begin, tag, sign, kind != '{');
    advance(tag - begin + (sign == '-' || sign == '+' ? 3 : 2));
    if (kind == '#') return comment();
    if (kind == '%' && raw_begin()) return raw();
    add(kind == '{' ? Token::Type::variable_begin : Token::Type::block_begin, "");
    inside(kind == '{' ? '}' : '%');
  }

  // Text [begin, end) before a tag: "-" takes the white space at its end, lstrip_blocks that before a tag on its line.
  void data(std::size_t begin, std::size_t end, char sign, bool is_block) {
    const std::string_view text = std::string_view(text_).substr(begin, end - begin);
    std::size_t kept = text.size();
    if (sign == '-') {
      kept = end_without_space(text);
    } else if (sign != '+' && is_block) {
      const std::size_t newline = text.rfind('\n');
      const std::size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      const bool starts_line = line > 0 || begin == 0 || text_[begin - 1] == '\n';
      if (starts_line && begin_without_space(text.substr(line)) == text.size() - line) kept = line;
    }
    if (kept > 0) add(Token::Type::data, std::string(text.substr(0, kept)));
  }

  // Behind a tag's closing "%}" or "#}": "-" takes all white space, trim_blocks one line end, "+" nothing.
  void after_block(char sign) {
    if (sign == '-')
      skip_space();
    else if (sign != '+' && peek() == '\n')
      advance(1);
  }

  void comment() {
    if (at_ >= text_.size()) return;
    const std::size_t end = text_.find("#}", at_);
    if (end == std::string::npos) wrong("a comment without its end #}");
    const char sign = end > at_ ? text_[end - 1] : '\0';
    advance(end + 2 - at_);
    after_block(sign);
  }

  // "{% raw %}": its end takes no line end with it.
  bool raw_begin() {
    std::size_t at = at_ + begin_without_space(std::string_view(text_).substr(at_));
    if (!std::string_view(text_).substr(at).starts_with("raw")) return false;
    at += 3;
    at += begin_without_space(std::string_view(text_).substr(at));
    const bool strips = at < text_.size() && text_[at] == '-';
    if (!std::string_view(text_).substr(at + strips).starts_with("%}")) return false;
    advance(at + strips + 2 - at_);
    if (strips) skip_space();
    return true;
  }

  void raw() {
    if (at_ >= text_.size()) return;
    const std::size_t begin = at_;
    for (std::size_t tag = begin; (tag = text_.find("{%", tag)) != std::string::npos; ++tag) {
      std::size_t at = tag + 2;
      const char sign = at < text_.size() ? text_[at] : '\0';
      if (sign == '-' || sign == '+') ++at;
      at += begin_without_space(std::string_view(text_).substr(at));
      if (!std::string_view(text_).substr(at).starts_with("endraw")) continue;
      at += 6;
      at += begin_without_space(std::string_view(text_).substr(at));
      const char close = at < text_.size() ? text_[at] : '\0';
      if (close == '-' || close == '+') ++at;
      if (!std::string_view(text_).substr(at).starts_with("%}")) continue;
      data(begin, tag, sign, true);
      advance(at + 2 - at_);
      return after_block(close);
    }
    wrong("a raw block without its end {% endraw %}");
  }

  // The tokens of a tag, up to its closing sign ('}' or '%' before the last brace).
  void inside(char close) {
    std::string open;
    while (true) {
      if (open.empty() && ends(close)) return;
      if (at_ >= text_.size()) wrong("a tag without its end");
      if (const std::size_t space = begin_without_space(std::string_view(text_).substr(at_)); space > 0) {
        advance(space);
        continue;
      }
      if (peek() >= '0' && peek() <= '9')
        number();
      else if (peek() == '\'' || peek() == '"')
        string();
      else if (const std::size_t length = name_length(); length > 0) {
        add(Token::Type::name, text_.substr(at_, length));
        advance(length);
      } else
        sign(open);
    }
  }

  bool ends(char close) {
    const std::string_view tail = close == '}' ? "}}" : "%}";
    const bool strips = peek() == '-', keeps = close == '%' && peek() == '+';
    if (!std::string_view(text_).substr(at_ + (strips || keeps)).starts_with(tail)) return false;
    add(close == '}' ? Token::Type::variable_end : Token::Type::block_end, "");
    advance(2 + (strips || keeps));
    if (close == '%')
      after_block(strips ? '-' : keeps ? '+' : '\0');
    else if (strips)
      skip_space();
    return true;
  }

  std::size_t name_length() const {
    std::size_t at = at_;
    while (at < text_.size()) {
      const auto step = steer::text::detail::utf8_step(text_, at);
      if (!steer::text::detail::is_word(step.code)) break;
      at += step.length;
    }
    return at - at_;
  }

  void sign(std::string& open) {
    static constexpr std::string_view two[] = {"//", "**", "==", "!=", ">=", "<="};
    static constexpr std::string_view one = "+-/*%~[](){}><=.:|,;";
    for (const std::string_view candidate : two)
      if (looking_at(candidate)) {
        add(Token::Type::sign, std::string(candidate));
        return advance(2);
      }
    const char c = peek();
    if (one.find(c) == std::string_view::npos) wrong(format_text("unexpected character {:?}", std::string(1, c)));
    if (c == '(') open += ')';
    if (c == '[') open += ']';
    if (c == '{') open += '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) wrong(format_text("unexpected '{}'", c));
      if (open.back() != c) wrong(format_text("unexpected '{}', expected '{}'", c, open.back()));
      open.pop_back();
    }
    add(Token::Type::sign, std::string(1, c));
    advance(1);
  }

  // Digits with single underscores between them, from `at`; the place behind them.
  template <class Digit>
  std::size_t digits(std::size_t at, Digit is_digit) const {
    while (at < text_.size() &&
           (is_digit(text_[at]) || (text_[at] == '_' && at + 1 < text_.size() && is_digit(text_[at + 1]))))
      ++at;
    return at;
  }

  void number() {
    const auto decimal = [](char c) { return c >= '0' && c <= '9'; };
    std::size_t end = digits(at_, decimal);
    bool real = false;
    if ((at_ == 0 || text_[at_ - 1] != '.')) {  // "a.1.5" is a.1 and then .5
      std::size_t fraction = end;
      if (end + 1 < text_.size() && text_[end] == '.' && decimal(text_[end + 1])) fraction = digits(end + 1, decimal);
      std::size_t exponent = fraction;
      if (exponent < text_.size() && (text_[exponent] == 'e' || text_[exponent] == 'E')) {
        ++exponent;
        if (exponent < text_.size() && (text_[exponent] == '+' || text_[exponent] == '-')) ++exponent;
        exponent = exponent < text_.size() && decimal(text_[exponent]) ? digits(exponent, decimal) : fraction;
      }
      real = exponent > end;
      if (real) end = exponent;
    }
    int base = 10;
    if (!real && text_[at_] == '0') {
      const char kind = static_cast<char>(peek(1) | 0x20);
      base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
      const auto is_digit = [&](char c) {
        const int value = c >= '0' && c <= '9'                     ? c - '0'
                          : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                                   : 99;
        return value < base;
      };
      if (base != 10) {
        const std::size_t stop = digits(at_ + 2, is_digit);
        if (stop == at_ + 2)
          base = 10;
        else
          end = stop;
      }
      if (base == 10) end = digits(at_, [](char c) { return c == '0'; });
    }
    std::string text = text_.substr(at_, end - at_);
    std::erase(text, '_');
    Token token{.type = real ? Token::Type::real : Token::Type::integer, .line = line_, .text = text};
    const char *first = text.data() + (base == 10 ? 0 : 2), *last = text.data() + text.size();
    if (real) {
      if (std::from_chars(first, last, token.real).ec != std::errc())
        unsupported("line {}: the number {}, which is beyond a float", line_, text);
    } else if (std::from_chars(first, last, token.integer, base).ec != std::errc()) {
      unsupported("line {}: the integer {} of more than 64 bits", line_, text);
    }
    tokens_.push_back(std::move(token));
    advance(end - at_);
  }

  void string() {
    const char quote = peek();
    std::size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) wrong("a string without its closing quote");
    const std::string_view body = std::string_view(text_).substr(at_ + 1, end - at_ - 1);
    add(Token::Type::string, unescaped(body));
    advance(end + 1 - at_);
  }

  // Python's escapes in a string literal; those it does not know stay as they are.
  std::string unescaped(std::string_view body) const {
    static constexpr std::string_view from = "\\'\"abfnrtv";
    static constexpr std::string_view to = "\\'\"\a\b\f\n\r\t\v";
    std::string out;
    for (std::size_t at = 0; at < body.size(); ++at) {
      if (body[at] != '\\') {
        out += body[at];
        continue;
      }
      const char kind = body[++at];
      if (const std::size_t simple = from.find(kind); simple != std::string_view::npos) {
        out += to[simple];
      } else if (kind == 'x' || kind == 'u' || kind == 'U') {
        const std::size_t length = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
        code_point(body.substr(at + 1, length), length, 16, out);
        at += length;
      } else if (kind >= '0' && kind <= '7') {
        std::size_t length = 1;
        while (length < 3 && at + length < body.size() && body[at + length] >= '0' && body[at + length] <= '7')
          ++length;
        code_point(body.substr(at, length), length, 8, out);
        at += length - 1;
      } else if (kind == 'N') {
        unsupported("line {}: a character by its name, \\N", line_);
      } else if (kind != '\n') {
        out += '\\';
        out += kind;
      }
    }
    return out;
  }

  void code_point(std::string_view digits, std::size_t length, int base, std::string& out) const {
    std::uint32_t code = 0;
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), code, base);
    if (digits.size() != length || result.ec != std::errc() || result.ptr != digits.data() + digits.size())
      wrong("a truncated escape in a string");
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) wrong("an escape in a string that is no character");
    steer::text::detail::utf8_append(out, code);
  }

  std::string text_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace steer::text::detail::jinja
