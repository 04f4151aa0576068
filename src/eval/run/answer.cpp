#include <steer/eval/answer.hpp>

#include <cctype>
#include <string>

#include <steer/core/error.hpp>

#include "eval/run/final_letter.hpp"

namespace steer {
namespace {

constexpr std::string_view kOpen = "<answer>", kClose = "</answer>";

bool word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

std::string_view skip(std::string_view text, std::string_view characters) {
  const auto at = text.find_first_not_of(characters);
  return at == std::string_view::npos ? std::string_view() : text.substr(at);
}

class Reader {
 public:
  explicit Reader(int choices) : last_(static_cast<char>('A' + choices - 1)) {}

  /// A letter that starts the text and stands alone.
  std::optional<char> single(std::string_view text) const {
    text = skip(text, " \t\r\n(*");
    if (!letter_at(text)) return std::nullopt;
    std::string_view rest = skip(text.substr(1), " \t\r\n)*");
    // "A, B", "A/B", "A and B", "A or B": a list chooses nothing.
    if (!rest.empty() && (rest[0] == ',' || rest[0] == '/' || rest[0] == '&')) {
      rest = skip(rest.substr(1), " \t\r\n(*");
      if (letter_at(rest) || conjunction(rest)) return std::nullopt;
    } else if (conjunction(rest)) {
      return std::nullopt;
    }
    return text[0];
  }

 private:
  bool letter_at(std::string_view text) const {
    return !text.empty() && text[0] >= 'A' && text[0] <= last_ && (text.size() == 1 || !word(text[1]));
  }
  bool conjunction(std::string_view text) const {
    for (std::string_view link : {"and ", "or "})
      if (text.starts_with(link)) return letter_at(skip(text.substr(link.size()), " (*"));
    return false;
  }
  char last_;
};

std::string_view until_close(std::string_view text) { return text.substr(0, text.find(kClose)); }

}  // namespace

ParsedAnswer parse_answer(std::string_view response, int choices) {
  require(choices >= 1 && choices <= 26, ErrorCode::argument, "parse_answer", "expected 1 to 26 choices but got {}",
          choices);
  const auto tag = response.find(kOpen);
  ParsedAnswer answer{.has_tag = tag != std::string_view::npos};
  if (answer.has_tag) answer.strict = Reader(choices).single(until_close(response.substr(tag + kOpen.size())));
  answer.lenient = eval::detail::final_letter(response, choices);
  return answer;
}

}  // namespace steer
