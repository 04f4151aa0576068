#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/eval/model_judge.hpp>
#include <steer/generate/score.hpp>

#include "core/format_text.hpp"
#include "eval/run/prompts.hpp"

namespace steer {
namespace {

/// The mean of what is left without the smallest and largest values.
double trimmed_mean(std::vector<double> values, double trim) {
  std::sort(values.begin(), values.end());
  const auto cut = static_cast<std::ptrdiff_t>(std::floor(trim * static_cast<double>(values.size())));
  const auto begin = values.begin() + cut, end = values.end() - cut;
  return std::accumulate(begin, end, 0.0) / static_cast<double>(end - begin);
}

class RequestEvidence : public Judge {
 public:
  RequestEvidence(Model model, std::vector<Behaviour> behaviours, const RequestEvidenceOptions& options)
      : model_(std::move(model)), behaviours_(std::move(behaviours)), options_(options) {
    require(model_.has_tokenizer(), ErrorCode::config, "request_evidence", "expected a model with a tokenizer");
    require(options.others >= 0 && options.trim >= 0 && options.trim < 0.5, ErrorCode::argument, "request_evidence",
            "expected others >= 0 and a trim in [0, 0.5) but got {} and {}", options.others, options.trim);
  }

  std::string identity() const override {
    ContentHasher hasher;
    for (const auto& behaviour : behaviours_) hasher.update(behaviour.name + '\0' + behaviour.instruction + '\0');
    return format_text("request evidence of {}, chat template {}, others {} trim {} behaviours {}", model_.hash(),
                       content_hash(model_.chat().source()).substr(0, 12), options_.others, options_.trim,
                       hasher.hex().substr(0, 12));
  }
  std::string caveat() const override {
    return "It says, in nats a token, how much likelier the unsteered model finds a text under this request than under "
           "others: no score of how well the text does what was asked, and no verdict is built on it. Answers to the "
           "request itself (the prompting arms) have it by construction";
  }
  std::string measure(Rubric rubric) const override { return rubric == Rubric::behaviour ? "request_evidence" : ""; }

  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override {
    std::vector<Judgement> judgements(requests.size(), {.failure = "request evidence does not measure this"});
    if (rubric != Rubric::behaviour) return judgements;
    std::vector<std::vector<std::string>> keys(requests.size());  // of `known_`: this request, then the others
    std::vector<ScoreRequest> texts;
    std::vector<std::string> pending;
    if (known_.size() > kRemembered) known_.clear();
    std::set<std::string> seen;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const auto& request = requests[i];
      require(request.behaviour, ErrorCode::argument, "request_evidence", "expected a behaviour in a request");
      const auto response = model_.tokenizer().encode(request.response, {.add_special = false, .parse_special = false});
      if (response.empty()) {
        judgements[i].failure = "nothing was said";
        continue;
      }
      for (const auto& system : systems(*request.behaviour)) {
        keys[i].push_back(content_hash(system + '\0' + request.prompt + '\0' + request.response));
        if (known_.contains(keys[i].back()) || !seen.insert(keys[i].back()).second) continue;
        auto ids = eval::detail::chat_ids(model_, system, request.prompt);
        const auto begin = static_cast<std::int64_t>(ids.size());
        ids.insert(ids.end(), response.begin(), response.end());
        texts.push_back({.ids = std::move(ids), .begin = begin, .steering = {}});
        pending.push_back(keys[i].back());
      }
    }
    auto scores = score_texts(model_, texts);
    for (std::size_t k = 0; k < pending.size(); ++k) known_[pending[k]] = std::move(scores[k].token_log_probabilities);
    for (std::size_t i = 0; i < requests.size(); ++i)
      if (!keys[i].empty()) judgements[i] = {.score = evidence(keys[i])};
    return judgements;
  }

 private:
  /// The system prompt that asks for the behaviour, then those it is compared with.
  std::vector<std::string> systems(const Behaviour& behaviour) const {
    std::vector<std::string> all{system_prompt(behaviour)};
    all.push_back(format_text("When answering, please do the opposite of this: {}.", behaviour.instruction));
    const auto self = std::find_if(behaviours_.begin(), behaviours_.end(),
                                   [&](const Behaviour& other) { return other.name == behaviour.name; });
    const auto start = static_cast<std::size_t>(self - behaviours_.begin());
    std::int64_t left = options_.others;
    for (std::size_t step = 1; step <= behaviours_.size() && left > 0; ++step) {
      const Behaviour& other = behaviours_[(start + step) % behaviours_.size()];
      if (other.name == behaviour.name || other.instruction == behaviour.instruction) continue;
      all.push_back(system_prompt(other));
      --left;
    }
    return all;
  }

  double evidence(const std::vector<std::string>& keys) const {
    std::vector<double> tokens = known_.at(keys[0]);
    const double others = static_cast<double>(keys.size() - 1);
    for (std::size_t k = 1; k < keys.size(); ++k) {
      const auto& other = known_.at(keys[k]);
      for (std::size_t t = 0; t < tokens.size(); ++t) tokens[t] -= other[t] / others;
    }
    return trimmed_mean(std::move(tokens), options_.trim);
  }

  static constexpr std::size_t kRemembered = 50'000;
  Model model_;
  std::vector<Behaviour> behaviours_;
  RequestEvidenceOptions options_;
  std::map<std::string, std::vector<double>> known_;  // log-probabilities of a text's tokens, by prompt and text
};

}  // namespace

std::shared_ptr<Judge> request_evidence(Model model, std::vector<Behaviour> behaviours,
                                        const RequestEvidenceOptions& options) {
  return std::make_shared<RequestEvidence>(std::move(model), std::move(behaviours), options);
}

}  // namespace steer
