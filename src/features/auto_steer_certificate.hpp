#pragma once
// What an answer to a question with a known answer shows, as numbers between 0 and 1.

#include <optional>
#include <span>
#include <vector>

#include <steer/features/auto_steer.hpp>

namespace steer::features::detail {

struct CertificateReading {
  double right = 0;   ///< probability of the right choice after the answer's thinking, among the choices
  double formed = 0;  ///< 1 if the answer came to a choice by itself
  double other = 0;   ///< probability that another of the behaviours was asked for
};

/// An answer up to where it names its choice: cut there, or completed by closing and opening so that the choice can be
/// read anyway (a token limit is not lost knowledge).
struct OpenedAnswer {
  std::vector<std::int64_t> ids;
  bool formed = false;
};
OpenedAnswer open_answer(const Tokenizer& tokenizer, const GenerateResult& answer, const CertificateSet& set);

/// Probability of each question's right choice after its opened answer, under `steering` if there is one, as sampling
/// at `temperature` would choose among the choices (0: all on the likeliest).
std::vector<double> right_probabilities(const Model& model, std::span<const ChoiceQuestion* const> questions,
                                        std::span<const OpenedAnswer> answers, const CertificateSet& set,
                                        const std::optional<Steering>& steering, double temperature);

}  // namespace steer::features::detail
