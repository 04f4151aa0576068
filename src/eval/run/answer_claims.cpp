#include <algorithm>
#include <set>

#include "eval/run/answer_text.hpp"

namespace steer::eval::detail {

bool Text::listed(std::size_t i) const {
  std::size_t next = after_closers(i);
  bool link = false;
  while (next < size()) {
    static const Words kHedges{"maybe", "perhaps", "possibly", "also", "even", "option", "both", "either", "well"};
    if (mark(next, ",;/&|+?") || is(next, kLink)) {
      link = true;
    } else if (!(link && (is(next, kHedges) || opener(next)))) {
      break;
    }
    ++next;
  }
  if (!link || next >= size() || tokens_[next].kind != Token::letter || !tokens_[next].upper) return false;
  if (tokens_[next].name == tokens_[i].name) return false;
  std::size_t beyond = after_closers(next);
  if (tokens_[next].name == 'A' || tokens_[next].name == 'I')
    if (followed_by_word(next) && !is(beyond, kAfterLetter)) return false;
  return !is(beyond, kVerb);
}

bool Text::listed_before(std::size_t i) const {
  std::size_t k = i;
  while (k > 0 && (opener(k - 1) || is(k - 1, kLabel))) --k;
  if (k == 0 || !(is(k - 1, kLink) || mark(k - 1, ",/&"))) return false;
  while (k > 0 && (is(k - 1, kLink) || mark(k - 1, ",/&)]}*\"'`"))) --k;
  return k > 0 && tokens_[k - 1].kind == Token::letter && tokens_[k - 1].upper;
}

bool Text::asked(std::size_t i) const {
  for (std::size_t k = i + 1; k < size() && k < i + 12; ++k) {
    if (mark(k, "?")) return true;
    if (sentence_end(k) || mark(k, ",:")) return false;
  }
  return false;
}

bool Text::negative_after(std::size_t i) const {
  std::size_t next = after_closers(i);
  if (!is(next, kVerb) && !is(next, kCopula)) return false;
  for (std::size_t k = next; k < std::min(next + 5, size()) && !sentence_end(k); ++k)
    if (is(k, kWrong) || is(k, kNot)) return true;
  return false;
}

bool Text::positive_after(std::size_t i) const {
  std::size_t next = after_closers(i);
  if (!is(next, kVerb) && !is(next, kCopula)) return false;
  if (negative_after(i) || listed_before(i)) return false;
  for (std::size_t k = next; k < std::min(next + 6, size()) && !sentence_end(k); ++k)
    if (is(k, kRight)) return true;
  return false;
}

bool Text::any_before(std::size_t i, const Words& words, std::size_t span) const {
  for (std::size_t k = i; k-- > 0 && span-- > 0 && !sentence_end(k);)
    if (is(k, words)) return true;
  return false;
}

bool Text::denied(std::size_t i, std::size_t span) const {
  for (std::size_t k = i; k-- > 0 && span-- > 0 && !sentence_end(k) && !mark(k, ",:");)
    if (is(k, kNot)) return true;
  return false;
}

bool Text::has(const std::string& text, std::initializer_list<std::string_view> parts) {
  return std::any_of(parts.begin(), parts.end(), [&](auto part) { return text.find(part) != std::string::npos; });
}

Text::Claim Text::claim_of(std::size_t i) const {
  if (!candidate(i) || negative_after(i) || asked(i)) return Claim::none;
  bool copula = false, separator = false, label = false, concluded = false, broke = false;
  const Claim here = positive_after(i) ? Claim::weak : Claim::none;
  const auto said = [&](Claim claim, std::size_t at) {
    return any_before(at, kHearsay, 6) && claim == Claim::strong ? hearsay(at) : claim;
  };
  for (std::size_t k = i; k-- > 0;) {
    const Token& token = tokens_[k];
    if (token.kind == Token::line) {  // "Answer:" alone on its line
      broke = true;
      continue;
    }
    if (token.kind == Token::letter) {
      // "not A but B"
      return here;
    }
    if (token.kind == Token::mark) {
      if (boxed(k)) return Claim::strong;
      if (mark(k, ":=-") || token.text == "：") {
        separator = true;
      } else if (mark(k, ">") && k > 0 && mark(k - 1, "=-")) {
        return ends(after_closers(i)) || mark(after_closers(i), ".") ? arrow(k - 1, i) : here;
      } else if (mark(k, ">") && k > 0 && mark(k - 1, ">")) {
        return ends(after_closers(i)) && (k == 1 || tokens_[k - 2].kind == Token::line) ? Claim::strong : here;
      } else if (mark(k, "#")) {
        return ends(after_closers(i)) || mark(after_closers(i), ".") ? Claim::strong : here;
      } else if (token.text == "→" || token.text == "⇒" || token.text == "∴") {
        return ends(after_closers(i)) || mark(after_closers(i), ".") ? Claim::strong : here;
      } else if (sentence_end(k)) {
        return concluded ? conclusion(i) : here;
      } else if (mark(k, ",")) {
        if (!concluded && !is_conclusion_before(k)) return here;
      } else if (!opener(k) && !mark(k, ")]}*\"")) {
        return here;
      }
      continue;
    }
    if (boxed(k)) return only_openers(k + 1, i) ? Claim::strong : here;
    if (latex(k)) continue;
    if (token.wide) return wide_claim(token.text, here);
    if (broke && !kAnswer.contains(token.text)) return here;
    if (kNot.contains(token.text)) return Claim::none;
    if (token.text == "but" || token.text == "sondern") return but(k, i) ? Claim::strong : here;
    if (kAnswer.contains(token.text)) {
      if (broke && !(separator || ends(after_closers(i)) || mark(after_closers(i), ".:)"))) return here;
      if (copula || separator || broke) return denied(k, 3) ? Claim::none : said(Claim::strong, k);
      label = true;
      continue;
    }
    if (kLabel.contains(token.text)) {
      if (copula || separator) return denied(k, 3) ? Claim::none : said(Claim::strong, k);
      label = true;
      continue;
    }
    if (kChoose.contains(token.text)) return denied(k, 4) ? Claim::none : said(Claim::strong, k);
    if ((token.text == "with" || token.text == "for" || token.text == "on") && k > 0 && is(k - 1, kChooseWith))
      return denied(k, 5) ? Claim::none : said(Claim::strong, k - 1);
    if (kThink.contains(token.text)) return denied(k, 4) ? Claim::none : hearsay(k, Claim::weak);
    if (token.text == "it" || token.text == "it's" || token.text == "that's" || token.text == "this")
      if (copula || token.text.size() > 3)
        if (terminated(i)) return hearsay(k, is_conclusion_before(k) ? Claim::strong : Claim::weak);
    if (separator && kHeading.contains(token.text) && (k == 0 || sentence_end(k - 1) || opener(k - 1)))
      return Claim::strong;
    if (kLeaves.contains(token.text) || (token.text == "with" && k > 0 && is(k - 1, {"left"})))
      return terminated(i) && !denied(k, 4) ? Claim::strong : here;
    if (kMatches.contains(token.text) && label) return terminated(i) && !denied(k, 4) ? Claim::weak : here;
    if (copula && answer_in_sentence(k)) return terminated(i) ? Claim::strong : here;
    if (kConclude.contains(token.text)) {
      concluded = true;
      if (k == 0) return conclusion(i);
      if (!copula && !label && !separator) return conclusion(i);
      continue;
    }
    if (kCopula.contains(token.text)) {
      copula = true;
      continue;
    }
    if (kFiller.contains(token.text)) continue;
    return here;
  }
  if (concluded) return conclusion(i);
  return here;
}

bool Text::answer_in_sentence(std::size_t k) const {
  if (is(k, kFiller) || is(k, kCopula) || is(k, kConclude)) return false;
  for (std::size_t span = 20; k-- > 0 && span-- > 0;) {
    if (sentence_end(k) && !mark(k, "?")) return false;
    if (is(k, kNot) || is(k, kHearsay) || tokens_[k].kind == Token::letter) return false;
    if (is(k, kAnswer)) return is(k + 1, {"to", "for", "of"}) && !any_before(k, kHearsay, 6);
  }
  return false;
}

bool Text::terminated(std::size_t i) const {
  const std::size_t next = after_closers(i);
  return sentence_end(next) || mark(next, ",:") || is(next, kAfterLetter);
}

Text::Claim Text::conclusion(std::size_t i) const {
  return terminated(i) || positive_after(i) ? Claim::strong : Claim::none;
}

bool Text::is_conclusion_before(std::size_t k) const {
  for (std::size_t span = 3; k-- > 0 && span-- > 0 && !sentence_end(k);)
    if (is(k, kConclude)) return true;
  return false;
}

bool Text::only_openers(std::size_t from, std::size_t to) const {
  for (std::size_t k = from; k < to; ++k)
    if (!opener(k)) return false;
  return true;
}

Text::Claim Text::arrow(std::size_t from, std::size_t) const {
  return from > 0 && tokens_[from - 1].kind == Token::letter ? Claim::none : Claim::strong;
}

bool Text::but(std::size_t k, std::size_t i) const {
  if (!terminated(i)) return false;
  for (std::size_t span = 8; k-- > 0 && span-- > 0 && !sentence_end(k);) {
    if (tokens_[k].kind == Token::letter) continue;
    if (is(k, kNot)) return true;
  }
  return false;
}

Text::Claim Text::wide_claim(const std::string& text, Claim otherwise) {
  if (has(text, {"不", "ない", "なく", "아니", "非"})) return Claim::none;
  return has(text, {"答案", "答え", "正解", "回答", "解答", "正确", "正確", "选", "選", "정답", "답은", "答は"})
             ? Claim::strong
             : otherwise;
}

Text::Claim Text::hearsay(std::size_t at, Claim claim) const {
  for (std::size_t k = at, span = 8; k-- > 0 && span-- > 0 && !sentence_end(k);) {
    if (mark(k, ",:") && !any_before(k, Words{"if", "unless"}, 12)) break;
    static const Words kOthers{"some", "many", "people", "one",   "others",  "students", "someone", "they",
                               "you",  "if",   "might",  "going", "tempted", "unless",   "whether", "had"};
    if (is(k, kOthers)) return Claim::none;
  }
  return claim;
}

bool Text::retracted(std::size_t at) const {
  for (std::size_t k = at + 1; k < size(); ++k) {
    if (is(k, {"wait", "correction"})) return true;
    if (is(k, {"cannot", "can't"}) && is(k + 1, {"decide"})) return true;
    if (is(k, {"that", "that's", "this"}) && k + 2 < size()) {
      const std::size_t next = is(k + 1, {"is"}) ? k + 2 : k + 1;
      if ((tokens_[k].text == "that's" || next == k + 2) && is(next, {"wrong", "incorrect", "false"})) return true;
    }
    if (is(k, {"scratch"}) && is(k + 1, {"that"})) return true;
  }
  return false;
}

}  // namespace steer::eval::detail
