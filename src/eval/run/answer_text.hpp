#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "eval/run/answer_tokens.hpp"
#include "eval/run/answer_words.hpp"

namespace steer::eval::detail {

/// What a text decides. `decided` without a letter: it says something that is no single letter of the question.
struct Reading {
  bool decided = false;
  std::optional<char> letter;
};

/// A part of a response and what it says of the letters that it names.
class Text {
 public:
  Text(std::string_view text, char last) : tokens_(tokenize(text)), last_(last) {}

  /// The last statement that names a letter as the answer ("the answer is B", "I choose C", "hence option D").
  Reading statement() const;

  /// A text that is itself an answer: "B", "(c)", "Option C", "C) Paris", "B because ...".
  /// @param tagged  nothing but an answer is expected here: "C the heart" is one.
  Reading bare(bool tagged = false) const;

  /// "Let me see. B"
  Reading last_sentence() const;

  /// A text of a tag that ends with its letter in brackets and names no other: "the sun (C)", "the sun, option C".
  Reading in_brackets() const;

  bool blank() const;
  /// Names several letters or says that none fits: no single answer, whatever stands before.
  bool undecided() const;
  bool starts_with_word(const Words& words) const;
  bool retracts() const;

 private:
  enum class Claim { none, weak, strong };

  std::size_t size() const;
  bool mark(std::size_t i, std::string_view set) const;
  bool is(std::size_t i, const Words& words) const;
  bool opener(std::size_t i) const;
  /// "text", "mathrm" and kin after a backslash.
  bool latex(std::size_t i) const;
  bool boxed(std::size_t i) const;
  std::optional<char> valid(std::size_t i) const;
  std::size_t after_closers(std::size_t i) const;
  bool ends(std::size_t i) const;
  /// "A)", "(a)", "a.", "a" as the whole of a line.
  bool closed(std::size_t i) const;
  /// No part of a formula, an initial or a longer name.
  bool stands(std::size_t i) const;
  bool followed_by_word(std::size_t i) const;
  bool reason_follows(std::size_t i) const;
  /// A letter that may be a choice in a sentence: no article, no key of C major.
  bool candidate(std::size_t i) const;
  /// "A:", "A)" or "A." where a choice is listed.
  bool starts_choice(std::size_t i) const;

  /// "A, B", "A or B", "A/B": no choice, unless the second begins a sentence of its own ("B, and C is wrong").
  bool listed(std::size_t i) const;

  /// "A or B": the second of a list.
  bool listed_before(std::size_t i) const;
  /// Asked, not said: "Could the answer be B?"
  bool asked(std::size_t i) const;

  /// "B is wrong", "B cannot be right".
  bool negative_after(std::size_t i) const;
  /// "B is correct", "C must be the right one".
  bool positive_after(std::size_t i) const;
  bool sentence_end(std::size_t i) const;

  bool any_before(std::size_t i, const Words& words, std::size_t span) const;
  /// A negation of what follows in the same clause ("No: the answer is D" denies nothing).
  bool denied(std::size_t i, std::size_t span) const;
  static bool has(const std::string& text, std::initializer_list<std::string_view> parts);

  /// What the words before a letter (and some after) say of it.
  Claim claim_of(std::size_t i) const;

  /// "The answer to the question what it is": the subject of the copula before the letter.
  bool answer_in_sentence(std::size_t k) const;
  bool terminated(std::size_t i) const;
  /// "so C", "hence (B)": said only where the letter ends its clause.
  Claim conclusion(std::size_t i) const;
  bool is_conclusion_before(std::size_t k) const;
  bool only_openers(std::size_t from, std::size_t to) const;
  /// "=> D" at the end, not a map from B to D.
  Claim arrow(std::size_t from, std::size_t) const;
  /// "not A but B", "nicht A, sondern B".
  bool but(std::size_t k, std::size_t i) const;
  static Claim wide_claim(const std::string& text, Claim otherwise);
  /// What others say or what would be: no claim of the writer's own.
  Claim hearsay(std::size_t at, Claim claim = Claim::strong) const;
  /// Taken back after it was said.
  bool retracted(std::size_t at) const;

  std::vector<Token> tokens_;
  char last_;
};

}  // namespace steer::eval::detail
