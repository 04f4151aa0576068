#include "text/regex.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <span>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "text/unicode_tables.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail {
namespace {

constexpr std::string_view kRegex = "Tokenizer::load";
// White_Space; PCRE2's \s counts U+180E as well.
constexpr std::string_view space_class =
    R"(\x09-\x0D\x20\x85\xA0\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
constexpr std::string_view not_space_class =
    R"(\x00-\x08\x0E-\x1F\x21-\x84\x86-\x9F\xA1-\x{167F}\x{1681}-\x{1FFF}\x{200B}-\x{2027}\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{D7FF}\x{E000}-\x{10FFFF})";

// Code points that Oniguruma's newer Unicode version counts into a property and PCRE2's may not.
std::span<const CodeRange> added_to(std::string_view property) {
  if (property == "L") return added_L;
  if (property == "N") return added_N;
  if (property == "P") return added_P;
  if (property == "M") return added_M;
  if (property == "S") return added_S;
  if (property == "Lu") return added_Lu;
  if (property == "Ll") return added_Ll;
  if (property == "Lo") return added_Lo;
  if (property == "Lm") return added_Lm;
  if (property == "Nd") return added_Nd;
  if (property == "No") return added_No;
  return {};
}

std::string spelled(std::span<const CodeRange> ranges) {
  std::string out;
  for (const CodeRange& range : ranges)
    out += format_text("\\x{{{:X}}}-\\x{{{:X}}}", static_cast<std::uint32_t>(range.first),
                       static_cast<std::uint32_t>(range.last));
  return out;
}

}  // namespace

std::string pcre2_pattern(std::string_view pattern, const std::string& name) {
  const auto unsupported = [&](std::string_view part) {
    fail(ErrorCode::unsupported, kRegex,
         "expected a regular expression steer can run as Oniguruma does but got {} in \"{}\" ({})", part, pattern,
         name);
  };
  std::string out;
  bool in_class = false;
  // A class item stands alone outside a class and joins the others inside one.
  const auto item = [&](std::string_view members, bool negated) {
    if (in_class)
      out += members;
    else
      out += format_text("[{}{}]", negated ? "^" : "", members);
  };
  for (std::size_t at = 0; at < pattern.size(); ++at) {
    const char c = pattern[at];
    if (c == '\\' && at + 1 < pattern.size()) {
      const char kind = pattern[++at];
      if (kind == 'p' || kind == 'P') {
        std::string_view property = pattern.substr(at + 1, 1);
        if (property == "{") {
          const std::size_t close = pattern.find('}', at);
          if (close == std::string_view::npos) unsupported("an unclosed \\p{");
          property = pattern.substr(at + 2, close - at - 2);
          at = close;
        } else {
          ++at;
        }
        bool negated = kind == 'P';
        if (property.starts_with('^')) {
          negated = !negated;
          property.remove_prefix(1);
        }
        const auto added = added_to(property);
        if (added.empty()) {
          out += format_text("\\{}{{{}}}", negated ? 'P' : 'p', property);
        } else {
          if (negated && in_class) unsupported(format_text("\\P{{{}}} inside a class", property));
          item(format_text("\\p{{{}}}{}", property, spelled(added)), negated);
        }
      } else if (kind == 's') {
        item(space_class, false);
      } else if (kind == 'S') {
        item(in_class ? not_space_class : space_class, true);
      } else if (kind == 'd' || kind == 'D') {
        if (kind == 'D' && in_class) unsupported("\\D inside a class");
        item("\\p{Nd}" + spelled(added_Nd), kind == 'D');
      } else if (kind == 'w' || kind == 'W') {
        if (kind == 'W' && in_class) unsupported("\\W inside a class");
        item(spelled(word_ranges), kind == 'W');
      } else if (std::string_view("bBhHGKRXykgZ").find(kind) != std::string_view::npos) {
        unsupported(format_text("\\{}", kind));  // other meaning, or other definition, in the two engines
      } else {
        out += {'\\', kind};
      }
      continue;
    }
    if (in_class) {
      if (c == '[' || (c == '&' && pattern.substr(at, 2) == "&&")) unsupported("a class inside a class");
      if (c == ']') in_class = false;
    } else if (c == '[') {
      in_class = true;
      out += c;
      if (pattern.substr(at + 1, 1) == "^") out += pattern[++at];
      if (pattern.substr(at + 1, 1) == "]") out += pattern[++at];
      continue;
    }
    out += c;
  }
  return out;
}

Regex::Regex(std::string_view pattern, const std::string& name) : pattern_(pattern) {
  const std::string translated = pcre2_pattern(pattern, name);
  int error = 0;
  PCRE2_SIZE at = 0;
  // Oniguruma's ^ and $ match at every line.
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr);
  if (!code) {
    unsigned char message[256] = "";
    pcre2_get_error_message(error, message, sizeof message);
    fail(ErrorCode::unsupported, kRegex, "expected a regular expression PCRE2 can compile but got \"{}\": {} ({})",
         pattern, reinterpret_cast<const char*>(message), name);
  }
  code_ = {code, [](const void* p) { pcre2_code_free(const_cast<pcre2_code*>(static_cast<const pcre2_code*>(p))); }};
  jit_ = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
}

Regex::Matcher::Matcher(const Regex& regex)
    : regex_(&regex), match_data_(pcre2_match_data_create(1, nullptr), [](void* p) {
        pcre2_match_data_free(static_cast<pcre2_match_data*>(p));
      }) {
  require(match_data_ != nullptr, ErrorCode::argument, "Tokenizer::encode",
          "expected memory for matching but got none");
}

bool Regex::Matcher::find(std::string_view text, std::size_t from, ByteRange& match) {
  const auto* code = static_cast<const pcre2_code*>(regex_->code_.get());
  auto* data = static_cast<pcre2_match_data*>(match_data_.get());
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  int result = PCRE2_ERROR_JIT_STACKLIMIT;
  if (regex_->jit_) result = pcre2_jit_match(code, subject, text.size(), from, 0, data, nullptr);
  // The interpreter keeps its stack on the heap, so it takes what overflows the JIT's 32 KiB.
  if (result == PCRE2_ERROR_JIT_STACKLIMIT)
    result = pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data, nullptr);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  require(result >= 0, ErrorCode::argument, "Tokenizer::encode",
          "expected the pattern \"{}\" to match within PCRE2's limits but got its error {}; cut the text",
          regex_->pattern_, result);
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data);
  match = {static_cast<std::uint32_t>(ends[0]), static_cast<std::uint32_t>(ends[1])};
  return true;
}

}  // namespace steer::text::detail
