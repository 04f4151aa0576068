#include "eval/run/answer_tokens.hpp"

#include <cstdint>
#include <set>
#include <utility>

#include "core/ascii.hpp"

namespace steer::eval::detail {
namespace {

/// One code point; broken bytes are taken one by one.
std::uint32_t decode(std::string_view text, std::size_t& at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  const int length = byte < 0x80 ? 1 : byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
  if (length == 1 || at + static_cast<std::size_t>(length) > text.size()) {
    ++at;
    return byte;
  }
  std::uint32_t point = byte & (0xFF >> (length + 1));
  for (int i = 1; i < length; ++i)
    point = point << 6 | (static_cast<unsigned char>(text[at + static_cast<std::size_t>(i)]) & 0x3F);
  at += static_cast<std::size_t>(length);
  return point;
}

bool ascii_alnum(std::uint32_t c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }
bool is_wide(std::uint32_t c) {  // CJK and Hangul: words without spaces between
  return (c >= 0x2E80 && c < 0xFF00 && !(c >= 0x3000 && c <= 0x303F)) || c >= 0x20000;
}
bool is_word(std::uint32_t c) { return ascii_alnum(c) || (c >= 0xC0 && c < 0x2000 && c != 0xD7 && c != 0xF7); }

std::string utf8_lower(std::uint32_t c, std::string_view bytes) {
  if (c < 0x80) return std::string(1, ascii_lower(static_cast<char>(c)));
  if ((c >= 0xC0 && c <= 0xDE) || (c >= 0x410 && c <= 0x42F)) {  // Latin-1 and Cyrillic capitals
    const std::uint32_t lower = c + 32;
    return {static_cast<char>(0xC0 | lower >> 6), static_cast<char>(0x80 | (lower & 0x3F))};
  }
  return std::string(bytes);
}

/// The end of a tag that only styles text, if one starts here.
std::size_t style_tag_end(std::string_view text, std::size_t at) {
  static const std::set<std::string_view> kStyles{"b",    "i",    "u",    "em", "strong", "p",
                                                  "span", "code", "mark", "br", "center"};
  if (text[at] != '<') return at;
  const std::size_t close = text.substr(at, 24).find('>');
  if (close == std::string_view::npos) return at;
  std::string name = ascii_lower(text.substr(at + 1, close - 1));
  if (name.starts_with('/')) name.erase(0, 1);
  if (name.ends_with('/')) name.pop_back();
  return kStyles.contains(name) ? at + close + 1 : at;
}

}  // namespace

std::vector<Token> tokenize(std::string_view text) {
  std::vector<Token> tokens;
  std::string word;
  std::size_t count = 0;  // characters of the word
  char only = 0;
  bool wide = false, spaced = true, word_spaced = true;
  const auto end_word = [&] {
    if (word.empty()) return;
    Token token{Token::word, std::move(word)};
    token.wide = wide;
    token.glued = !word_spaced;
    if (count == 1 && only != 0) {
      token.kind = Token::letter;
      token.upper = only >= 'A' && only <= 'Z';
      token.name = static_cast<char>(token.upper ? only : only - 32);
    }
    tokens.push_back(std::move(token));
    word.clear();
    count = 0;
    only = 0;
  };
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    if (const std::size_t end = style_tag_end(text, at); end > at) {  // <b>
      end_word();
      at = end;
      continue;
    }
    std::uint32_t c = decode(text, at);
    if (c >= 0xFF01 && c <= 0xFF5E) c -= 0xFEE0;  // full width
    if (c == 0x2018 || c == 0x2019) c = '\'';     // typographic quotes
    if (c == 0x201C || c == 0x201D) c = '"';
    if (c >= 0x2010 && c <= 0x2015) c = '-';
    const std::string_view bytes = text.substr(begin, at - begin);
    const bool apostrophe = c == '\'' && !word.empty() && !wide && at < text.size() &&
                            ((text[at] >= 'a' && text[at] <= 'z') || (text[at] >= 'A' && text[at] <= 'Z'));
    if (is_word(c) || is_wide(c) || apostrophe) {
      if (!word.empty() && wide != is_wide(c)) {
        end_word();
        spaced = false;
      }
      if (word.empty()) word_spaced = spaced;
      spaced = false;
      wide = is_wide(c);
      word += utf8_lower(c, bytes);
      only = count++ == 0 && c < 0x80 && !(c >= '0' && c <= '9') ? static_cast<char>(c) : 0;
      continue;
    }
    end_word();
    const bool was_spaced = std::exchange(spaced, false);
    if (c == '\n') {
      tokens.push_back({Token::line, "\n"});
      spaced = true;
    } else if (c == ' ' || c == '\t' || c == '\r' || c == 0xA0 || c == 0x3000 || c == 0xFEFF || c == 0x200B) {
      spaced = true;
    } else {
      tokens.push_back({Token::mark, c < 0x80 ? std::string(1, static_cast<char>(c)) : std::string(bytes)});
      tokens.back().glued = !was_spaced;
    }
  }
  end_word();
  return tokens;
}

}  // namespace steer::eval::detail
