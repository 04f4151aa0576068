#include "eval/run/answer_text.hpp"

#include <algorithm>

namespace steer::eval::detail {

Reading Text::statement() const {
  Reading strong, weak;
  std::set<char> weak_letters;
  std::size_t strong_at = 0;
  for (std::size_t i = 0; i < size(); ++i) {
    if (tokens_[i].kind != Token::letter) continue;
    const Claim claim = claim_of(i);
    if (claim == Claim::none) continue;
    const Reading reading{true, listed(i) ? std::nullopt : valid(i)};
    if (claim == Claim::strong) {
      strong = reading;
      strong_at = i;
    } else {
      weak = reading;
      weak_letters.insert(tokens_[i].name);
    }
  }
  if (strong.decided) return retracted(strong_at) ? Reading{true, std::nullopt} : strong;
  if (weak_letters.size() == 1) return weak;
  return {};
}

Reading Text::bare(bool tagged) const {
  std::size_t i = 0;
  while (i < size() && (opener(i) || tokens_[i].kind == Token::line)) ++i;
  if (i < size() && tokens_[i].kind == Token::word &&
      (kLabel.contains(tokens_[i].text) || kAnswer.contains(tokens_[i].text)))
    for (++i; i < size() && opener(i);) ++i;
  if (i >= size() || tokens_[i].kind != Token::letter || !stands(i)) return {};
  if (!tokens_[i].upper && !closed(i)) return {};
  if (listed(i)) return {true, std::nullopt};
  const bool article = tokens_[i].name == 'A' || tokens_[i].name == 'I';
  if (followed_by_word(i) && (article || !tagged) && !reason_follows(i)) return {};
  if (negative_after(i)) return {};
  for (std::size_t other = i + 1; other < size(); ++other)  // "A: 3, B: 4" lists the choices
    if (tokens_[other].kind == Token::letter && tokens_[other].upper && tokens_[other].name != tokens_[i].name &&
        starts_choice(other))
      return {};
  return {true, valid(i)};
}

Reading Text::last_sentence() const {
  for (std::size_t i = 1; i < size(); ++i)
    if (tokens_[i].kind == Token::letter && tokens_[i].upper && stands(i) && mark(i - 1, ".!?") &&
        (i < 2 || tokens_[i - 2].kind == Token::word) &&
        (after_closers(i) >= size() || (mark(after_closers(i), ".") && after_closers(i) + 1 >= size())))
      return {true, valid(i)};
  return {};
}

Reading Text::in_brackets() const {
  std::set<char> named;
  std::size_t at = 0;
  for (std::size_t i = 0; i < size(); ++i)
    if (tokens_[i].kind == Token::letter && tokens_[i].upper) named.insert(tokens_[i].name), at = i;
  const bool marked = at > 0 && (mark(at - 1, "([") || is(at - 1, kLabel));
  return named.size() == 1 && marked && ends(after_closers(at)) ? Reading{true, valid(at)} : Reading{};
}

bool Text::blank() const {
  return std::none_of(tokens_.begin(), tokens_.end(),
                      [](const Token& t) { return t.kind == Token::word || t.kind == Token::letter; });
}

bool Text::undecided() const {
  for (std::size_t i = 0; i < size(); ++i) {
    if (tokens_[i].kind == Token::letter && (tokens_[i].upper && listed(i))) return true;
    if (tokens_[i].kind == Token::word && (tokens_[i].text == "none" || kNot.contains(tokens_[i].text))) return true;
  }
  return false;
}

bool Text::starts_with_word(const Words& words) const {
  for (const auto& token : tokens_) {
    if (token.kind == Token::word) return words.contains(token.text);
    if (token.kind == Token::letter) return false;
  }
  return false;
}

bool Text::retracts() const { return retracted(static_cast<std::size_t>(-1)); }

std::size_t Text::size() const { return tokens_.size(); }

bool Text::mark(std::size_t i, std::string_view set) const {
  return i < size() && tokens_[i].kind == Token::mark && tokens_[i].text.size() == 1 &&
         set.find(tokens_[i].text[0]) != std::string_view::npos;
}

bool Text::is(std::size_t i, const Words& words) const {
  return i < size() && tokens_[i].kind == Token::word && words.contains(tokens_[i].text);
}

bool Text::opener(std::size_t i) const { return mark(i, "([{*\"'`$\\_<") || latex(i); }

bool Text::latex(std::size_t i) const {
  static const Words kCommands{"text", "mathrm", "mathbf", "textbf", "bf", "rm", "mathit", "texttt", "mbox"};
  return i > 0 && is(i, kCommands) && mark(i - 1, "\\");
}

bool Text::boxed(std::size_t i) const {
  static const Words kBoxes{"boxed", "fbox", "framebox"};
  return i > 0 && is(i, kBoxes) && mark(i - 1, "\\");
}

std::optional<char> Text::valid(std::size_t i) const {
  return tokens_[i].name <= last_ ? std::optional(tokens_[i].name) : std::nullopt;
}

std::size_t Text::after_closers(std::size_t i) const {
  for (++i; mark(i, ")]}*\"'`$_>");) ++i;
  return i;
}

bool Text::ends(std::size_t i) const {
  return i >= size() || tokens_[i].kind == Token::line || (tokens_[i].kind == Token::mark && tokens_[i].text == "。");
}

bool Text::closed(std::size_t i) const {
  const std::size_t next = after_closers(i);
  return next > i + 1 || ends(next) || mark(next, ".:;") || (mark(next, ",") && next + 1 < size());
}

bool Text::stands(std::size_t i) const {
  if (mark(i + 1, "=^+%|>~@")) return false;
  if (i > 0 && mark(i - 1, "+^~@")) return false;
  if (mark(i + 1, "-_") && tokens_[i + 1].glued && i + 2 < size() && tokens_[i + 2].glued &&
      tokens_[i + 2].kind != Token::mark)
    return false;  // "D-day", "A-C", "B_1"
  if (i > 1 && mark(i - 1, "_-") && tokens_[i].glued && tokens_[i - 1].glued && tokens_[i - 2].kind == Token::word)
    return false;
  const std::size_t next = after_closers(i);
  if (mark(next, "=^+%")) return false;
  if (next < size() && tokens_[next].kind == Token::letter && next == i + 1) return false;  // "A B"
  return true;
}

bool Text::followed_by_word(std::size_t i) const {
  return i + 1 < size() && tokens_[i + 1].kind == Token::word && !tokens_[i + 1].wide;
}

bool Text::reason_follows(std::size_t i) const {
  static const Words kReasons{"because", "since", "as", "weil", "da", "porque", "car", "due", "given"};
  return is(i + 1, kReasons);
}

bool Text::candidate(std::size_t i) const {
  if (!stands(i)) return false;
  if (!tokens_[i].upper) return closed(i) && !followed_by_word(i);
  const std::size_t next = after_closers(i);
  if (next == i + 1 && followed_by_word(i) && !kAfterLetter.contains(tokens_[next].text)) return false;
  return true;
}

bool Text::starts_choice(std::size_t i) const {
  if (mark(i + 1, ")"))  // not "(not A)"
    for (std::size_t k = i, span = 6; k-- > 0 && span-- > 0 && !mark(k, ")");)
      if (mark(k, "(") && k + 1 != i) return false;
  return mark(i + 1, ":)") || (mark(i + 1, ".") && !ends(i + 2));
}

bool Text::sentence_end(std::size_t i) const {
  if (i >= size() || tokens_[i].kind == Token::line) return true;
  if (tokens_[i].kind != Token::mark) return false;
  return mark(i, ".!?;") || tokens_[i].text == "。" || tokens_[i].text == "、";
}

}  // namespace steer::eval::detail
