#include <steer/core/error.hpp>
#include <steer/eval/pairwise.hpp>

#include "eval/judge/local_judge.hpp"

namespace steer {
namespace {

class LocalPairJudge : public PairJudge {
 public:
  explicit LocalPairJudge(Model model) : chooser_(std::move(model), {"A", "B"}, "pair_judge") {}

  std::string identity() const override { return "pairs by logits of " + chooser_.identity(); }

  std::vector<PairJudgement> compare(Contest contest, std::span<const PairRequest> requests) override {
    std::vector<PairJudgement> judgements(requests.size());
    std::vector<std::string> prompts;  // both orders of each pair that differs
    std::vector<std::size_t> of;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const auto& request = requests[i];
      if (request.first == request.second) {
        judgements[i].score = 0.5;
        continue;
      }
      prompts.push_back(pair_prompt(contest, request));
      prompts.push_back(pair_prompt(contest, {request.prompt, request.second, request.first, request.behaviour}));
      of.push_back(i);
    }
    const auto chosen = chooser_.choose(prompts);
    for (std::size_t k = 0; k < of.size(); ++k) {
      const double forward = share(chosen[2 * k]), backward = share(chosen[2 * k + 1]);
      auto& judgement = judgements[of[k]];
      if (forward < 0 || backward < 0) {
        judgement.failure = "the judge puts less than 1 % on either letter";
        continue;
      }
      judgement.score = (forward + 1 - backward) / 2;
      judgement.position = forward + backward - 1;
    }
    return judgements;
  }

 private:
  /// Of the answer shown first; -1 where the model would say neither letter.
  static double share(const std::vector<double>& p) {
    const double mass = p[0] + p[1];
    return mass > 0.01 ? p[0] / mass : -1;
  }
  eval::detail::TokenChooser chooser_;
};

}  // namespace

std::shared_ptr<PairJudge> pair_judge(Model model) { return std::make_shared<LocalPairJudge>(std::move(model)); }

}  // namespace steer
