#include "eval/run/prose.hpp"

#include <algorithm>
#include <cctype>

namespace steer::eval::detail {

bool word_character(unsigned char c) { return std::isalnum(c) || c == '\'' || c == '-' || c >= 0x80; }

std::string prose_of(std::string_view response) {
  std::string text;
  bool answer = false;
  for (std::size_t at = 0; at < response.size();) {
    const std::size_t close = response[at] == '<' ? response.substr(at, 40).find('>') : std::string_view::npos;
    if (close == std::string_view::npos) {
      if (!answer) text += response[at];
      ++at;
      continue;
    }
    std::string name;
    for (const char c : response.substr(at + 1, close - 1))
      if (!std::isspace(static_cast<unsigned char>(c)))
        name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (name == "answer") answer = true;
    if (name == "/answer") answer = false;
    text += ' ';
    at += close + 1;
  }
  return text;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto end = [&] {
    const bool letters =
        std::any_of(word.begin(), word.end(), [](unsigned char c) { return std::isalnum(c) || c >= 0x80; });
    if (letters) words.push_back(word);
    word.clear();
  };
  for (const char c : text)
    if (word_character(static_cast<unsigned char>(c)))
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    else
      end();
  end();
  return words;
}

}  // namespace steer::eval::detail
