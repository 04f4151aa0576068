#include "text/jinja/unicode.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <span>

#include "text/utf8.hpp"

namespace steer::text::detail::jinja {
namespace {

struct CodeRange {
  char32_t first, last;
};
/// Every `stride`-th code point from `first` to `last` becomes itself plus `distance`.
struct CaseRun {
  char32_t first, last;
  std::int32_t distance;
  std::uint8_t stride;
};
struct CaseExpansion {
  char32_t code;
  char32_t to[3];
};

#include "text/jinja/case_tables.inc"

using steer::text::detail::utf8_append;
using steer::text::detail::utf8_step;

bool within(std::span<const CodeRange> table, char32_t code) {
  const auto after = std::ranges::upper_bound(table, code, {}, &CodeRange::first);
  return after != table.begin() && code <= after[-1].last;
}

bool ascii_lower(char32_t code) { return code >= 'a' && code <= 'z'; }
bool ascii_upper(char32_t code) { return code >= 'A' && code <= 'Z'; }
bool ascii_digit(char32_t code) { return code >= '0' && code <= '9'; }

void append_mapped(std::string& out, char32_t code, std::span<const CaseRun> runs,
                   std::span<const CaseExpansion> many) {
  if (const auto found = std::ranges::lower_bound(many, code, {}, &CaseExpansion::code);
      found != many.end() && found->code == code) {
    for (const char32_t to : found->to)
      if (to) utf8_append(out, to);
    return;
  }
  const auto after = std::ranges::upper_bound(runs, code, {}, &CaseRun::first);
  if (after != runs.begin() && code <= after[-1].last && (code - after[-1].first) % after[-1].stride == 0)
    code = static_cast<char32_t>(static_cast<std::int64_t>(code) + after[-1].distance);
  utf8_append(out, code);
}

bool is_case_ignorable(char32_t code) {
  if (code < 0x80) return code == '\'' || code == '.' || code == ':' || code == '^' || code == '`';
  return within(case_ignorable, code);
}

// A capital sigma is final behind a cased letter and before none, whatever ignorable lies between.
bool is_final_sigma(std::string_view whole, std::size_t at) {
  std::size_t before = at;
  bool cased = false;
  while (before > 0 && !cased) {
    do --before;
    while (before > 0 && (static_cast<unsigned char>(whole[before]) & 0xC0) == 0x80);
    const char32_t code = utf8_step(whole, before).code;
    if (is_case_ignorable(code)) continue;
    if (!is_cased(code)) return false;
    cased = true;
  }
  if (!cased) return false;
  for (std::size_t after = at + 2; after < whole.size();) {
    const auto step = utf8_step(whole, after);
    after += step.length;
    if (!is_case_ignorable(step.code)) return !is_cased(step.code);
  }
  return true;
}

}  // namespace

bool is_printable(char32_t code) { return code < 0x80 ? code >= 0x20 && code < 0x7F : !within(unprintable, code); }
bool is_cased(char32_t code) { return code < 0x80 ? ascii_lower(code) || ascii_upper(code) : within(cased, code); }
bool is_lower(char32_t code) { return code < 0x80 ? ascii_lower(code) : within(lower_case, code); }
bool is_upper(char32_t code) { return code < 0x80 ? ascii_upper(code) : within(upper_case, code); }
bool is_alpha(char32_t code) { return code < 0x80 ? ascii_lower(code) || ascii_upper(code) : within(alphabetic, code); }
bool is_decimal(char32_t code) { return code < 0x80 ? ascii_digit(code) : within(decimal_digits, code); }
bool is_digit(char32_t code) { return code < 0x80 ? ascii_digit(code) : within(digits, code); }
bool is_numeric(char32_t code) { return code < 0x80 ? ascii_digit(code) : within(numeric, code); }

void append_case(std::string& out, Case to, std::string_view whole, std::size_t at) {
  const char32_t code = utf8_step(whole, at).code;
  if (code < 0x80) {
    if (to == Case::lower)
      out += static_cast<char>(ascii_upper(code) ? code + 32 : code);
    else
      out += static_cast<char>(ascii_lower(code) ? code - 32 : code);
  } else if (to == Case::upper) {
    append_mapped(out, code, upper_runs, upper_many);
  } else if (to == Case::title) {
    append_mapped(out, code, title_runs, title_many);
  } else if (code == 0x3A3 && is_final_sigma(whole, at)) {
    utf8_append(out, 0x3C2);
  } else {
    append_mapped(out, code, lower_runs, lower_many);
  }
}

std::size_t end_without_space(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    std::size_t at = end - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    if (!is_space(utf8_step(text, at).code)) break;
    end = at;
  }
  return end;
}

std::size_t begin_without_space(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const auto step = utf8_step(text, at);
    if (!is_space(step.code)) break;
    at += step.length;
  }
  return at;
}

}  // namespace steer::text::detail::jinja
