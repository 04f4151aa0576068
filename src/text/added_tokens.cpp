#include "text/added_tokens.hpp"

#include <algorithm>

#include "text/unicode.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail {
namespace {

char32_t code_before(std::string_view text, std::size_t end) {
  std::size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return utf8_step(text, at).code;
}

std::size_t spaces_before(std::string_view text, std::size_t at) {
  while (at > 0 && is_white_space(code_before(text, at))) {
    do --at;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  }
  return at;
}

std::size_t spaces_after(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const Utf8Step step = utf8_step(text, at);
    if (!is_white_space(step.code)) break;
    at += step.length;
  }
  return at;
}

bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
  return (begin == 0 || !is_word(code_before(text, begin))) &&
         (end == text.size() || !is_word(utf8_step(text, end).code));
}

}  // namespace

void AddedTokens::build() {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
  std::sort(tokens_.begin(), tokens_.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
  by_first_byte_ = {};
  for (std::uint32_t i = 0; i < tokens_.size(); ++i) {
    Range& range = by_first_byte_[static_cast<unsigned char>(tokens_[i].content[0])];
    if (range.begin == range.end) range.begin = i;
    range.end = i + 1;
  }
}

// Narrows the range of tokens that agree with the text byte by byte. In sorted order a token comes first among all
// that it is a prefix of. Special tokens must end by `special_end`.
const AddedToken* AddedTokens::longest_at(std::string_view text, std::size_t at, std::size_t special_end) const {
  const Range first = by_first_byte_[static_cast<unsigned char>(text[at])];
  auto low = tokens_.begin() + first.begin, high = tokens_.begin() + first.end;
  const AddedToken* best = nullptr;
  for (std::size_t depth = 1; low != high; ++depth) {
    for (; low != high && low->content.size() == depth; ++low)
      if (!low->special || at + depth <= special_end) best = &*low;
    if (low == high) break;
    if (at + depth >= text.size()) break;
    const char next = text[at + depth];
    // Tokens left in the range are longer than depth.
    low = std::partition_point(low, high, [&](const AddedToken& token) {
      return static_cast<unsigned char>(token.content[depth]) < static_cast<unsigned char>(next);
    });
    high = std::partition_point(low, high, [&](const AddedToken& token) { return token.content[depth] == next; });
  }
  return best;
}

void AddedTokens::split(std::string_view text, bool parse_special, Untrusted untrusted,
                        std::vector<Part>& parts) const {
  auto next = untrusted.begin();
  std::size_t done = 0;
  for (std::size_t at = 0; !tokens_.empty() && at < text.size();) {
    const Range first = by_first_byte_[static_cast<unsigned char>(text[at])];
    while (next != untrusted.end() && static_cast<std::size_t>(next->second) <= at) ++next;
    const std::size_t special_end = next == untrusted.end() ? text.size() : static_cast<std::size_t>(next->first);
    const AddedToken* token = first.begin == first.end ? nullptr : longest_at(text, at, special_end);
    if (!token) {
      ++at;
      continue;
    }
    std::size_t begin = at, end = at + token->content.size();
    at = end;
    if (token->special && !parse_special) continue;
    if (token->single_word && !stands_alone(text, begin, end)) continue;
    if (token->lstrip) begin = spaces_before(text, begin);
    if (token->rstrip) end = spaces_after(text, end);
    begin = std::max(begin, done);
    if (begin > done) parts.push_back({nullptr, done, begin});
    parts.push_back({token, begin, std::max(begin, end)});
    done = std::max(done, end);
  }
  if (done < text.size()) parts.push_back({nullptr, done, text.size()});
}

}  // namespace steer::text::detail
