#include "generate/row_rules.hpp"

#include <algorithm>

#include <steer/core/error.hpp>

#include "generate/sampler.hpp"

namespace steer::generation::detail {
namespace {

bool counts_from_prompt_end(const Scope& scope) {
  return scope.where == Where::last || scope.where == Where::from_last ||
         (scope.where == Where::span && scope.begin < 0) ||
         std::ranges::any_of(scope.except, [](const Scope& s) { return counts_from_prompt_end(s); });
}

}  // namespace

bool counts_from_prompt_end(const Steering& steering) {
  return std::ranges::any_of(steering.edits(), [](const Edit& edit) { return counts_from_prompt_end(edit.scope); });
}

bool looks_at_prompt(const Steering& steering) {
  if (!steering.watches().empty()) return true;
  return std::ranges::any_of(steering.edits(), [](const Edit& edit) {
    return edit.when || (edit.scope.where != Where::generated && edit.scope.where != Where::onset);
  });
}

std::set<std::int64_t> stop_ids(const Model& model, std::span<const std::int64_t> more) {
  std::set<std::int64_t> ids(more.begin(), more.end());
  const auto own = model.stop_ids();
  ids.insert(own.begin(), own.end());
  return ids;
}

void check_row(const Model& model, const RowSettings& row, std::string_view name, std::string_view where) {
  const auto vocabulary = model.config().vocab_size, context = model.config().context;
  check(row.sampling, vocabulary, where);
  require(row.max_tokens >= 0, ErrorCode::argument, where, "expected max_tokens of at least 0 but got {}",
          row.max_tokens);
  require(std::ssize(row.given) <= row.max_tokens, ErrorCode::argument, where,
          "expected at most max_tokens given tokens but {} has {} of {}", name, row.given.size(), row.max_tokens);
  require(row.min_tokens >= 0 && row.min_tokens <= row.max_tokens, ErrorCode::argument, where,
          "expected min_tokens in [0, max_tokens] but got {} of {}", row.min_tokens, row.max_tokens);
  require(row.top >= 0 && row.top <= vocabulary, ErrorCode::argument, where, "expected top in [0, {}] but got {}",
          vocabulary, row.top);
  require(row.stop.empty() || model.has_tokenizer(), ErrorCode::config, where,
          "expected a model with a tokenizer for stop strings but got one without; use stop_ids");
  for (const auto& stop : row.stop)
    require(!stop.empty(), ErrorCode::argument, where,
            "expected stop strings of at least one byte but got an empty one");
  require(!row.ids.empty(), ErrorCode::argument, where, "expected a prompt of at least one token but {} is empty",
          name);
  require(std::ssize(row.ids) < context + (row.max_tokens == 0), ErrorCode::shape, where,
          "expected prompts shorter than the context of {} tokens but {} has {}; shorten it", context, name,
          row.ids.size());
  require(std::ssize(row.given) <= context - std::ssize(row.ids), ErrorCode::shape, where,
          "expected a prompt and given tokens that fit into the context of {} tokens but {} has {} + {}", context, name,
          row.ids.size(), row.given.size());
  for (const auto ids : {row.ids, row.given})
    for (const auto id : ids)
      require(id >= 0 && id < vocabulary, ErrorCode::argument, where,
              "expected token ids in [0, {}) but {} holds {}; was it made by another model's tokenizer?", vocabulary,
              name, id);
}

}  // namespace steer::generation::detail
