#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <steer/core/random.hpp>

#include "style.hpp"
#include "world.hpp"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace steer::demo {

/// Tokens of one training text. weight[i] is how much the prediction OF token i counts.
struct Sequence {
  std::vector<std::int64_t> ids;
  std::vector<float> weights;
};

/// The demo's tokenizer as training needs it: text pieces and the four tokens of the chat format (Llama 3's).
class Vocabulary {
 public:
  /// Trains a unigram model on samples of the world's text. @throws Error(unsupported) if a name is not one token.
  static void train(const World& world, std::uint64_t seed, const std::filesystem::path& model_file);
  explicit Vocabulary(const std::filesystem::path& model_file);

  std::int64_t size() const;
  std::int64_t bos, eot, header_begin, header_end;
  /// Pieces of plain text. @throws Error(argument) for a text the model has no pieces for.
  std::vector<std::int64_t> encode(std::string_view text) const;
  std::string decode(const std::vector<std::int64_t>& ids) const;
  std::int64_t id_of(std::string_view piece) const;
  std::string piece(std::int64_t id) const;

 private:
  std::shared_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

/// Everything the model is trained on, as samples from a stream of random numbers.
class Corpus {
 public:
  Corpus(const World& world, const Vocabulary& vocabulary) : world_(world), vocabulary_(vocabulary) {}

  /// A conversation: mostly a question answered with thinking, in a style that was asked for, in one that nobody asked
  /// for, or plainly; sometimes a passage or a reply by letter alone.
  Sequence conversation(Rng& rng) const;
  /// A short exercise in matching a value to its option's letter, the circuit that questions alone teach slowly.
  Sequence drill(Rng& rng) const;

  /// A question with its right answer. @param system empty: none.
  Sequence answered(const FactQuestion& question, Layout layout, const std::string& system, const Style& style,
                    Rng& rng) const;
  /// The same as ids up to the assistant's first token.
  std::vector<std::int64_t> prompt(const std::string& system, const std::string& user) const;

 private:
  Thought thought_of(const FactQuestion& question, Rng& rng) const;

  const World& world_;
  const Vocabulary& vocabulary_;
};

}  // namespace steer::demo
