#pragma once

#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <steer/core/random.hpp>
#include <steer/generate/engine.hpp>
#include <steer/text/tokenizer.hpp>

#include "generate/sampler.hpp"
#include "generate/stop_matcher.hpp"

namespace steer::generation::detail {

/// What the samples of one request have in common.
struct Order {
  EngineRequest request;
  InterventionPtr steering;
  std::vector<std::string> warnings;
  std::set<std::int64_t> stop_ids;
  std::vector<std::int64_t> ends;    ///< the same
  Steering touched;                  ///< the steering, if it acts on or remembers prompt tokens: else the prompt can be
                                     ///< anyone's
  bool keeps = true;                 ///< what is computed of the prompt holds for longer prompts too
  std::int64_t takes = 0;            ///< prompt tokens that may come from a kept prefix
  std::vector<std::int64_t> told{};  ///< by observer: prompt tokens reported so far

  std::int64_t prompt() const { return std::ssize(request.ids); }
};

struct EngineRow {
  RowId id;
  std::shared_ptr<Order> order;
  Rng rng;
  std::optional<StreamDecoder> decoder;
  StopMatcher stops;
  std::vector<std::int64_t> ids;  ///< the prompt, and what was given or drawn
  std::shared_ptr<GenerateResult> result = std::make_shared<GenerateResult>();
  std::vector<std::int64_t> told{};  ///< by observer: tokens of `ids` reported so far, from the prompt's end on

  SequenceId sequence = -1;   ///< none while it waits
  std::int64_t held = 0;      ///< tokens of its sequence before `ids`
  std::int64_t computed = 0;  ///< tokens of `ids` in the cache
  std::int64_t audited = 0;   ///< tokens that were in the cache when the result's audit was taken
  std::int64_t unseen = 0;    ///< of them computed before they were this row's: its audit does not have them

  std::deque<Draw> ready{};              ///< what was read from logits and not reported yet, in order
  std::optional<FinishReason> ending{};  ///< why it ends, once `ready` is empty
  std::exception_ptr failure{};
  bool cancelled = false, done = false;

  std::int64_t prompt() const { return order->prompt(); }
  std::int64_t max_tokens() const { return order->request.max_tokens; }
  bool running() const { return sequence >= 0; }
  bool over() const { return done || cancelled || failure || ending; }
  /// Tokens of `ids` to be computed before it ends or draws: not the last one that may come, which nothing follows.
  std::int64_t goal() const {
    const bool full = max_tokens() > 0 && std::ssize(ids) - prompt() >= max_tokens();
    return std::ssize(ids) - (full ? 1 : 0);
  }
  std::int64_t pending() const { return goal() - computed; }
  /// Has one token to compute: the one drawn last.
  bool decodes() const { return running() && computed >= prompt() && pending() == 1; }
  /// Tokens that were read: prompt tokens that are scored, given and drawn ones.
  std::int64_t scored = 0, taken = 0;
  /// The first token of `ids` after which logits are needed.
  std::int64_t first_read() const {
    const std::int64_t from = order->request.score_from;
    if (from >= 1 && from + scored < prompt()) return from + scored - 1;
    return max_tokens() == 0 ? std::ssize(ids) : prompt() + taken - 1;
  }
};

}  // namespace steer::generation::detail
