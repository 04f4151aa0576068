#include "eval/judge/kept_judge.hpp"

#include <map>

#include <steer/core/hash.hpp>

#include "core/format_text.hpp"

namespace steer::eval::detail {
namespace {

constexpr auto kScore = "score";

}  // namespace

std::vector<Judgement> KeptJudge::judge(Rubric rubric, std::span<const JudgeRequest> requests) {
  Stage<Verdicts> stage;
  std::vector<std::size_t> first, place;  // of each key the request; of each request the key
  std::map<std::string, std::size_t> seen;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto& r = requests[i];
    auto key = format_text("{}|{}|{}", to_string(rubric), r.behaviour ? r.behaviour->name : "",
                           content_hash(r.prompt + '\0' + r.response));
    const auto [found, is_new] = seen.try_emplace(key, stage.keys.size());
    place.push_back(found->second);
    if (!is_new) continue;
    stage.keys.push_back(std::move(key));
    first.push_back(i);
  }
  stage.make = [&](std::span<const std::size_t> indices) {
    std::vector<JudgeRequest> some;
    for (const auto k : indices) some.push_back(requests[first[k]]);
    std::vector<Made<Verdicts>> made;
    for (const auto& judgement : judge_.judge(rubric, some)) {
      Verdicts verdicts;
      if (judgement.score)
        verdicts.scores[kScore] = *judgement.score;
      else
        verdicts.failed[kScore] = judgement.failure;
      made.push_back({std::move(verdicts), !judgement.unanswered});
    }
    return made;
  };
  stage.write = write_verdicts;
  stage.read = [](std::size_t, const std::string& line) { return read_verdicts(line); };
  stage.apart = true;
  const auto records = keep_(std::move(stage));
  std::vector<Judgement> judgements;
  for (const auto k : place) {
    if (!records[k])
      judgements.push_back({.failure = "not judged"});
    else if (const auto score = records[k]->scores.find(kScore); score != records[k]->scores.end())
      judgements.push_back({.score = score->second});
    else
      judgements.push_back({.failure = records[k]->failed.at(kScore)});
  }
  return judgements;
}

}  // namespace steer::eval::detail
