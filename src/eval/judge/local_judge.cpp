#include "eval/judge/local_judge.hpp"

#include <cmath>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>

#include "core/format_text.hpp"
#include "eval/run/prompts.hpp"
#include "generate/batch.hpp"
#include "model/log_probability.hpp"

namespace steer::eval::detail {

TokenChooser::TokenChooser(Model model, std::vector<std::string> options, std::string_view where)
    : model_(std::move(model)), where_(where) {
  require(model_.has_tokenizer(), ErrorCode::config, where, "expected a model with a tokenizer");
  for (const auto& option : options) {
    const auto ids = model_.tokenizer().encode(option, {.add_special = false});
    require(!ids.empty() && model_.tokenizer().decode(std::span(&ids.back(), 1)) == option, ErrorCode::config, where,
            "expected a tokenizer with a single token for \"{}\" but it has none", option);
    ids_.push_back(ids.back());
  }
}

std::string TokenChooser::identity() const {
  return format_text("{}, chat template {}", model_.hash(), content_hash(model_.chat().source()).substr(0, 12));
}

std::vector<std::vector<double>> TokenChooser::choose(std::span<const std::string> prompts) const {
  std::vector<std::vector<double>> chosen(prompts.size());
  if (prompts.empty()) return chosen;
  Engine engine(model_, generation::detail::batch_options(model_, prompts.size()));
  for (std::size_t i = 0; i < prompts.size(); ++i)
    engine.submit({.ids = chat_ids(model_, "", prompts[i]), .max_tokens = 1, .on_logits = [&, i](const auto& next) {
                     const double sum = model::detail::log_sum_exp(next.logits.data(), std::ssize(next.logits));
                     for (const auto id : ids_)
                       chosen[i].push_back(std::exp(next.logits[static_cast<std::size_t>(id)] - sum));
                   }});
  generation::detail::run_batch(engine, where_,
                                [](RowId row, const GenerateResult&) { return format_text("prompt {}", row); }, {});
  return chosen;
}

}  // namespace steer::eval::detail
