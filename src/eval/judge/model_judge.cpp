#include <steer/eval/model_judge.hpp>

#include <algorithm>

#include <steer/core/error.hpp>

#include "eval/judge/local_judge.hpp"

namespace steer {
namespace {

class LogitJudge : public Judge {
 public:
  explicit LogitJudge(Model model) : chooser_(std::move(model), {"1", "2", "3", "4", "5"}, "logit_judge") {}

  std::string identity() const override { return "logits of " + chooser_.identity(); }

  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override {
    std::vector<std::string> prompts;
    for (const auto& request : requests)
      prompts.push_back(judge_prompt(rubric, request) +
                        "\nOn reflection, reply with the overall score only: one digit from 1 to 5.");
    std::vector<Judgement> judgements;
    for (const auto& p : chooser_.choose(prompts)) {
      double sum = 0, mass = 0;
      for (std::size_t k = 0; k < p.size(); ++k) {
        sum += static_cast<double>(k + 1) * p[k];
        mass += p[k];
      }
      if (mass > 0.01)
        judgements.push_back({.score = sum / mass});
      else
        judgements.push_back({.failure = "the judge puts less than 1 % on any digit"});
    }
    return judgements;
  }

 private:
  eval::detail::TokenChooser chooser_;
};

class EnsembleJudge : public Judge {
 public:
  explicit EnsembleJudge(std::vector<std::shared_ptr<Judge>> judges) : judges_(std::move(judges)) {
    require(!judges_.empty() && std::none_of(judges_.begin(), judges_.end(), [](const auto& j) { return !j; }),
            ErrorCode::argument, "ensemble_judge", "expected at least one judge");
    for (const Rubric rubric : {Rubric::behaviour, Rubric::coherence})
      for (const auto& judge : judges_)
        require(judge->measure(rubric) == judges_[0]->measure(rubric), ErrorCode::argument, "ensemble_judge",
                "expected judges of one measure but got \"{}\" and \"{}\"", judges_[0]->measure(rubric),
                judge->measure(rubric));
  }

  std::string identity() const override { return joined(&Judge::identity, "mean of ", " and "); }
  std::string caveat() const override { return joined(&Judge::caveat, "", ". "); }
  std::string unfit(Rubric rubric) const override {
    std::string all;
    for (const auto& judge : judges_)
      if (const auto why = judge->unfit(rubric); !why.empty()) all += (all.empty() ? "" : "; ") + why;
    return all;
  }
  std::string measure(Rubric rubric) const override { return judges_[0]->measure(rubric); }

  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override {
    std::vector<double> sums(requests.size(), 0.0), counts(requests.size(), 0.0);
    std::vector<Judgement> results(requests.size());
    for (const auto& judge : judges_) {
      const auto some = judge->judge(rubric, requests);
      for (std::size_t i = 0; i < requests.size(); ++i) {
        if (some[i].score) sums[i] += *some[i].score, ++counts[i];
        if (!some[i].failure.empty()) results[i].failure = some[i].failure;
        results[i].unanswered |= some[i].unanswered;
      }
    }
    for (std::size_t i = 0; i < requests.size(); ++i)
      if (counts[i] > 0 && !results[i].unanswered) results[i] = {.score = sums[i] / counts[i]};
    return results;
  }

 private:
  std::string joined(std::string (Judge::*text)() const, std::string start, std::string_view between) const {
    std::string all;
    for (const auto& judge : judges_)
      if (const std::string one = (*judge.*text)(); !one.empty())
        all += (all.empty() ? start : std::string(between)) + one;
    return all;
  }
  std::vector<std::shared_ptr<Judge>> judges_;
};

}  // namespace

std::shared_ptr<Judge> logit_judge(Model model) { return std::make_shared<LogitJudge>(std::move(model)); }

std::shared_ptr<Judge> ensemble_judge(std::vector<std::shared_ptr<Judge>> judges) {
  return std::make_shared<EnsembleJudge>(std::move(judges));
}

}  // namespace steer
