#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <steer/model/model.hpp>

namespace steer::eval::detail {

/// A local model that is asked for one of a few texts, each a single token.
class TokenChooser {
 public:
  /// @param options  the texts, e.g. "1" to "5". @param where  the public function, for messages; a literal.
  /// @throws Error(config) for a model without a tokenizer or without single tokens for them.
  TokenChooser(Model model, std::vector<std::string> options, std::string_view where);

  /// All that the probabilities depend on: the weights, and how prompts are put to them.
  std::string identity() const;
  /// The probabilities of the options as the first token of an answer to each prompt, [prompts][options]; they add up
  /// to less than 1 where the model would say something else. What prompts begin with alike is computed once.
  /// @throws Error(argument) for logits that are not finite, naming the prompt.
  std::vector<std::vector<double>> choose(std::span<const std::string> prompts) const;

 private:
  Model model_;
  std::string_view where_;
  std::vector<std::int64_t> ids_;
};

}  // namespace steer::eval::detail
