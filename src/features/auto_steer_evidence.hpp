#pragma once
// What Auto Steer knows of a behaviour before it tries any steering: answers, scores, candidate features, directions.

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <steer/features/activations.hpp>
#include <steer/features/auto_steer.hpp>
#include <steer/model/session.hpp>

#include "features/auto_steer_answers.hpp"

namespace steer::features::detail {

/// One generated answer to the prompt of that number.
struct Answer {
  std::size_t prompt = 0;
  std::vector<std::int64_t> ids;
  bool finished = false;
  bool loops = false;
};

/// A prompt in the readings that the behaviour score compares.
struct PromptPair {
  std::vector<std::int64_t> plain;                     ///< the user's message alone
  std::vector<std::int64_t> asked;                     ///< with the request for the behaviour
  std::vector<std::vector<std::int64_t>> others = {};  ///< with requests for some other behaviours
};

/// Whether a text mostly repeats itself: fewer than half of its 3-grams are distinct.
bool loops(std::span<const std::int64_t> ids);

/// How an answer reads to the unsteered model; an empty one counts as unlike the behaviour.
struct Reading {
  double posterior = 0;  ///< that the behaviour was asked for, at even odds of this, nothing and the prompt's others
  double nll = 0;        ///< nats a token, under the reading that explains the answer better
};
Reading mean_of(std::span<const Reading> readings);

double mean_of(const std::vector<double>& values);

struct Evidence {
  std::vector<PromptPair> prompts;
  Reading unsteered, asked, opposite;          ///< means over answers; opposite: NaN when it is not asked for
  std::vector<AutoSteerCandidate> candidates;  ///< used ones first, best first
  std::size_t usable = 0;                      ///< how many of them were not dropped
  std::vector<Answer> asked_answers;
  at::Tensor residual_asked, residual_other;  ///< [d_in], means over answers
  at::Tensor residual_centre;  ///< [d_in], mean over other behaviours' asked-for answers; may be undefined
  /// Answers read before, by prompt and ids: weak steerings leave many as they are, and finalists come twice.
  mutable std::map<std::pair<std::size_t, std::vector<std::int64_t>>, Reading> readings;
};

/// One reading an answer. Not by several threads at once.
std::vector<Reading> read(const Model& model, const Evidence& evidence, std::span<const Answer> answers);

/// Answers set after their plain prompts; without empty ones and those that loop.
std::vector<TokenizedText> after_plain_prompts(const std::vector<PromptPair>& prompts,
                                               const std::vector<Answer>& answers);

/// Behaviour on the first tokens of a few answers under each steering, as a share of what asking gains, and the share
/// of these that loop. All steerings run in one batch.
struct ScreenResult {
  double behaviour = 0, loops = 0;
};
std::vector<ScreenResult> screen(AnswerStore& store, const AutoSteerOptions& options, const Evidence& evidence,
                                 std::span<const Steering> steerings);

/// Generates, compares, ranks. @param unsteered  answers to the plain prompts.
Evidence gather_evidence(AnswerStore& store, Session& session, const Sae& sae, const AutoSteerOptions& options,
                         std::string_view behaviour, const std::vector<Answer>& unsteered);

/// One answer a prompt. @param prompts  ids.
std::vector<Answer> answer_all(AnswerStore& store, const AutoSteerOptions& options,
                               const std::vector<std::vector<std::int64_t>>& prompts, std::string_view purpose);

std::vector<std::int64_t> render(const Model& model, std::string_view system, std::string_view user);

}  // namespace steer::features::detail
