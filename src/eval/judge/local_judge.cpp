#include "eval/judge/local_judge.hpp"

#include <ATen/Functions.h>

#include <algorithm>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/model/session.hpp>

#include "eval/run/prompts.hpp"
#include "model/reproducible.hpp"

namespace steer::eval::detail {

TokenChooser::TokenChooser(Model model, std::vector<std::string> options, std::string_view where)
    : model_(std::move(model)) {
  require(model_.has_tokenizer(), ErrorCode::config, where, "expected a model with a tokenizer");
  for (const auto& option : options) {
    const auto ids = model_.tokenizer().encode(option, {.add_special = false});
    require(!ids.empty() && model_.tokenizer().decode(std::span(&ids.back(), 1)) == option, ErrorCode::config, where,
            "expected a tokenizer with a single token for \"{}\" but it has none", option);
    ids_.push_back(ids.back());
  }
}

std::string TokenChooser::identity() const {
  return fmt::format("{}, chat template {}", model_.hash(), content_hash(model_.chat().source()).substr(0, 12));
}

std::vector<std::vector<double>> TokenChooser::choose(std::span<const std::string> prompts) const {
  constexpr std::size_t kBatch = 16;
  std::vector<std::vector<double>> chosen;
  Session session(model_, model::detail::reproducible(model_));
  for (std::size_t begin = 0; begin < prompts.size(); begin += kBatch) {
    const auto some = prompts.subspan(begin, std::min(kBatch, prompts.size() - begin));
    std::vector<std::vector<std::int64_t>> texts;
    for (const auto& prompt : some) texts.push_back(chat_ids(model_, "", prompt));
    std::vector<StepInput> inputs;
    for (const auto& ids : texts) inputs.push_back({session.open(), ids, Phase::prompt});
    const at::Tensor p = session.step(inputs).softmax(-1).cpu();
    for (const auto& input : inputs) session.close(input.sequence);
    for (std::int64_t row = 0; row < p.size(0); ++row) {
      std::vector<double> shares;
      for (const auto id : ids_) shares.push_back(p[row][id].item<double>());
      chosen.push_back(std::move(shares));
    }
  }
  return chosen;
}

}  // namespace steer::eval::detail
