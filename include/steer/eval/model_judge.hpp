#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include <steer/eval/judge.hpp>
#include <steer/model/model.hpp>

namespace steer {

/// A judge that is a local language model, any one, not only the model that is judged: it is asked for one digit, and
/// the score is the expected digit over the probabilities of 1 to 5, so ties and sampling noise do not arise. Wants the
/// largest instruct model at hand.
/// @throws Error(config) for a model without a tokenizer, or whose tokenizer has no single tokens for the digits.
std::shared_ptr<Judge> logit_judge(Model model);

/// Several judges as one: the mean of the scores of those that gave one. @throws Error(argument) for none, or for
/// judges that measure different things.
std::shared_ptr<Judge> ensemble_judge(std::vector<std::shared_ptr<Judge>> judges);

struct RequestEvidenceOptions {
  std::int64_t others = 4;  ///< requests for other behaviours to compare with, at most
  double trim = 0.1;        ///< share of the tokens left out at either end of the order: first words decide less
};

/// How much the unsteered model takes a text for an answer to the request, in nats a token; no score of a judge.
///
/// Measure "request_evidence": the trimmed mean over the tokens of log p(token | this request) minus the mean of log
/// p(token | another request), over requests for other behaviours and for this one's opposite. Above 0: likelier under
/// this request than under others. The model's opinion of its own habits: it tells nothing of how well a text does what
/// was asked, compares with nobody's scores, and no verdict is built on it. Coherence is not measured.
/// @param behaviours  whose requests are the others.
/// @throws Error(config) for a model without a tokenizer; Error(argument) for options out of range.
std::shared_ptr<Judge> request_evidence(Model model, std::vector<Behaviour> behaviours = study_behaviours(),
                                        const RequestEvidenceOptions& options = {});

}  // namespace steer
