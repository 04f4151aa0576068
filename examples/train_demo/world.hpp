#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <steer/core/random.hpp>
#include <steer/eval/questions.hpp>

namespace steer::demo {

/// What can be asked of every land: one noun, the names it can take, and ways to ask for it.
struct Attribute {
  std::string noun;                    ///< "capital"
  std::vector<std::string> values;     ///< invented names, one token each
  std::vector<std::string> questions;  ///< with {L} for the land
};

/// One four-option question about one fact, as indices.
struct FactQuestion {
  int land = 0, attribute = 0;
  int wording = 0;
  std::array<int, 4> choices{};  ///< indices into the attribute's values
  int answer = 0;                ///< which of the four is right
};

/// Which questions a part of the work may use.
enum class Split {
  train,  ///< any fact, but for each fact one wording is never used
  dev,    ///< half of the facts, in the wording that training never used
  test,   ///< the other half, likewise
};

/// How a question is put to the model.
enum class Layout {
  experiment,   ///< as steer::user_prompt does it
  letter_only,  ///< as steer::letter_prompt does it: the reply is the letter, without thinking
  terse,
  instruction_first,
  brackets,
  bare,  ///< variations, so that the model does not hang on one wording
};

/// An invented geography: 57 lands (the subjects), 6 attributes each, so 342 facts. A pure function of the seed.
class World {
 public:
  explicit World(std::uint64_t seed);

  const std::vector<std::string>& lands() const { return lands_; }
  const std::vector<Attribute>& attributes() const { return attributes_; }
  /// Index of the true value among attributes()[attribute].values.
  int fact(int land, int attribute) const { return facts_[land][attribute]; }
  const std::string& name_of(int attribute, int value) const { return attributes_[attribute].values[value]; }

  /// A training question about a random fact, its options drawn and shuffled anew.
  FactQuestion sample(Rng& rng) const;
  /// The 171 held-out questions of `dev` or `test`: 3 a land, in the wording training never used for that fact.
  std::vector<FactQuestion> held_out(Split split) const;

  /// Question, options and instruction as the user's message.
  std::string prompt(const FactQuestion& question, Layout layout) const;
  /// The question as the experiment reads it. Its id, e.g. "pelia:capital", names land and attribute.
  steer::Question published(const FactQuestion& question) const;
  /// A short description of a land that states its facts in random order.
  std::string passage(int land, Rng& rng) const;
  /// Every invented name, for the tokenizer.
  std::vector<std::string> names() const;

 private:
  FactQuestion ask(int land, int attribute, int wording, Rng& rng) const;
  int held_out_wording(int land, int attribute) const;
  bool in_test(int land, int attribute) const;

  std::uint64_t seed_;
  std::vector<std::string> lands_;
  std::vector<Attribute> attributes_;
  std::vector<std::vector<int>> facts_;  // [land][attribute]
};

inline constexpr std::string_view letters = "ABCD";

/// Replaces every {key} of `text`. @throws Error(argument) for a key that is not in `slots`.
std::string fill(std::string_view text, const std::vector<std::pair<std::string_view, std::string_view>>& slots);

}  // namespace steer::demo
