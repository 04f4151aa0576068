#include <steer/eval/model_judge.hpp>

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/generate/score.hpp>
#include <steer/model/session.hpp>

#include "eval/run/prompts.hpp"
#include "model/reproducible.hpp"

namespace steer {
namespace {

class LogitJudge : public Judge {
 public:
  explicit LogitJudge(Model model) : model_(std::move(model)) {
    for (char digit = '1'; digit <= '5'; ++digit) {
      const auto ids = model_.tokenizer().encode(std::string(1, digit), {.add_special = false});
      require(!ids.empty() && model_.tokenizer().decode(std::span(&ids.back(), 1)) == std::string(1, digit),
              ErrorCode::config, "logit_judge",
              "expected a tokenizer with single tokens for the digits 1 to 5 but \"{}\" has none", digit);
      digits_.push_back(ids.back());
    }
  }

  std::string identity() const override { return "logits of " + model_.hash(); }

  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override {
    constexpr std::size_t kBatch = 16;
    std::vector<Judgement> judgements;
    Session session(model_, model::detail::reproducible(model_));
    for (std::size_t begin = 0; begin < requests.size(); begin += kBatch) {
      const auto some = requests.subspan(begin, std::min(kBatch, requests.size() - begin));
      std::vector<std::vector<std::int64_t>> prompts;
      std::vector<StepInput> inputs;
      for (const auto& request : some) {
        const std::string text = judge_prompt(rubric, request) +
                                 "\nOn reflection, reply with the overall score only: one digit from 1 to 5.";
        prompts.push_back(eval::detail::chat_ids(model_, "", text));
      }
      for (const auto& ids : prompts) inputs.push_back({session.open(), ids, Phase::prompt});
      const at::Tensor p = session.step(inputs).softmax(-1).cpu();
      for (const auto& input : inputs) session.close(input.sequence);
      for (std::int64_t row = 0; row < p.size(0); ++row) {
        double sum = 0, mass = 0;
        for (std::size_t k = 0; k < digits_.size(); ++k) {
          const double probability = p[row][digits_[k]].item<double>();
          sum += static_cast<double>(k + 1) * probability;
          mass += probability;
        }
        if (mass > 0.01)
          judgements.push_back({sum / mass, ""});
        else
          judgements.push_back({std::nullopt, "the judge puts less than 1 % on any digit"});
      }
    }
    return judgements;
  }

 private:
  Model model_;
  std::vector<std::int64_t> digits_;
};

class LikelihoodJudge : public Judge {
 public:
  explicit LikelihoodJudge(Model model) : model_(std::move(model)) {
    require(model_.has_tokenizer(), ErrorCode::config, "likelihood_judge", "expected a model with a tokenizer");
  }

  std::string identity() const override { return "likelihoods of " + model_.hash(); }
  std::string caveat() const override {
    return "They say how sure the unsteered model is that a text was written on request, and how little it surprises: "
           "they rank arms on one model and cannot be compared with scores of people or of other judges. Answers to "
           "the "
           "request itself (the prompting arms) score near 5 by construction";
  }

  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override {
    // Each text as asked for and as not; both rubrics, and answers that several behaviours share, use the same scores.
    struct Pair {
      std::string plain, asked;  // keys of `known_`
    };
    if (known_.size() > kRemembered) known_.clear();
    std::vector<ScoreRequest> texts;
    std::vector<std::string> keys;
    std::set<std::string> pending;
    std::vector<Pair> pairs(requests.size());
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const auto& request = requests[i];
      const auto response = model_.tokenizer().encode(request.response, {.add_special = false, .parse_special = false});
      if (response.empty()) continue;
      const auto add = [&](const std::string& system) {
        std::string key = content_hash(system + '\0' + request.prompt + '\0' + request.response);
        if (known_.contains(key) || !pending.insert(key).second) return key;
        auto ids = eval::detail::chat_ids(model_, system, request.prompt);
        const auto begin = static_cast<std::int64_t>(ids.size());
        ids.insert(ids.end(), response.begin(), response.end());
        texts.push_back({.ids = std::move(ids), .begin = begin, .steering = {}});
        keys.push_back(key);
        return key;
      };
      pairs[i].plain = add("");
      pairs[i].asked = add(request.behaviour ? system_prompt(*request.behaviour) : "");
    }
    if (!texts.empty()) {
      const auto scores = score(model_, texts);
      for (std::size_t i = 0; i < keys.size(); ++i) known_[keys[i]] = scores[i];
    }
    std::vector<Judgement> judgements;
    for (const auto& pair : pairs) {
      if (pair.plain.empty()) {  // nothing was said
        judgements.push_back({1.0, ""});
        continue;
      }
      const TextScore &plain = known_.at(pair.plain), &asked = known_.at(pair.asked);
      if (rubric == Rubric::behaviour) {
        judgements.push_back({1 + 4 / (1 + std::exp(plain.log_probability - asked.log_probability)), ""});
      } else {
        const double nll = std::min(plain.nll(), asked.nll());
        judgements.push_back({1 + 4 / (1 + nll * nll / 4), ""});
      }
    }
    return judgements;
  }

 private:
  static constexpr std::size_t kRemembered = 200'000;
  Model model_;
  std::map<std::string, TextScore> known_;
};

}  // namespace

std::shared_ptr<Judge> logit_judge(Model model) { return std::make_shared<LogitJudge>(std::move(model)); }
std::shared_ptr<Judge> likelihood_judge(Model model) { return std::make_shared<LikelihoodJudge>(std::move(model)); }

}  // namespace steer
