// What rules, judges and comparisons say of the answers.
#include <algorithm>
#include <set>

#include "eval/judge/kept_judge.hpp"
#include "eval/run/runner.hpp"

namespace steer::eval::detail {

void Runner::check_rules() {
  for (const auto& behaviour : experiment_.behaviours)
    for (auto& row : rows_)
      if (behaviour.rule && row.behaviour == behaviour.name)
        row.scores["rule"] = keeps_rule(*behaviour.rule, row.response) ? 1 : 0;
}

/// What the judge says of some rows under all its rubrics.
std::vector<Made<Verdicts>> Runner::judge(std::span<const JudgeRequest> requests) {
  std::vector<Made<Verdicts>> made(requests.size());
  for (const Rubric rubric : {Rubric::behaviour, Rubric::coherence}) {
    const std::string name = options_.judge->measure(rubric);
    if (name.empty()) continue;
    std::vector<JudgeRequest> some;
    std::vector<std::size_t> of;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      if (rubric == Rubric::behaviour && requests[i].behaviour->rule) continue;  // a fact, not an opinion
      some.push_back(requests[i]);
      of.push_back(i);
    }
    const auto judgements = options_.judge->judge(rubric, some);
    for (std::size_t k = 0; k < of.size(); ++k) {
      if (judgements[k].score)
        made[of[k]].record.scores[name] = *judgements[k].score;
      else
        made[of[k]].record.failed[name] = judgements[k].failure;
      if (judgements[k].unanswered) made[of[k]].settled = false;  // a server that was down has not judged
    }
  }
  return made;
}

void Runner::judge() {
  std::map<std::string, const Question*> questions;
  for (const auto& q : experiment_.questions) questions[q.id] = &q;
  std::map<std::string, const Behaviour*> behaviours;
  for (const auto& b : experiment_.behaviours) behaviours[b.name] = &b;
  // Answers to one question side by side: a judge that is a model computes its prompt once.
  std::map<std::string, std::size_t> places;
  for (const auto& q : experiment_.questions) places.try_emplace(q.id, places.size());
  std::vector<ResultRow*> order;
  for (auto& row : rows_) order.push_back(&row);
  std::ranges::stable_sort(order, {}, [&](const ResultRow* row) { return places.at(row->question); });
  Stage<Verdicts> stage{.name = "judge"};
  for (const auto* row : order) stage.keys.push_back(row->key());
  stage.make = [&](Indices indices) {
    std::vector<JudgeRequest> requests;
    for (auto i : indices)
      requests.push_back(
          {user_prompt(*questions.at(order[i]->question)), order[i]->response, behaviours.at(order[i]->behaviour)});
    auto made = judge(requests);
    run_.unanswered += std::ranges::count(made, false, &Made<Verdicts>::settled);
    return made;
  };
  stage.write = write_verdicts;
  stage.read = [](std::size_t, const std::string& line) { return read_verdicts(line); };
  stage.batch = 4 * options_.batch;
  stage.apart = true;
  const auto verdicts = run(stage);
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (verdicts[i]) {
      verdicts[i]->add_to(*order[i]);
      continue;
    }
    for (const Rubric rubric : {Rubric::behaviour, Rubric::coherence})  // another process could not reach the judge
      if (const auto name = options_.judge->measure(rubric); !name.empty()) order[i]->failed[name] = "not judged";
  }
}

/// Each answer against the baseline's to the same question, all arms of a question and behaviour as one item.
void Runner::compare() {
  std::map<std::string, std::string> prompts;
  for (const auto& q : experiment_.questions) prompts[q.id] = user_prompt(q);
  std::map<Pair, std::vector<ResultRow*>> cells;
  for (auto& row : rows_) cells[{row.question, row.behaviour}].push_back(&row);
  std::erase_if(cells, [&](const auto& cell) {
    return std::ranges::none_of(cell.second, [&](const ResultRow* row) { return row->arm == options_.baseline; });
  });
  std::vector<const std::vector<ResultRow*>*> order;
  Stage<ArmVerdicts> stage{.name = "pairs"};
  for (const auto& [cell, some] : cells) {
    stage.keys.push_back(cell.second + "|" + cell.first);
    order.push_back(&some);
  }
  stage.make = [&](Indices indices) {
    std::vector<Made<ArmVerdicts>> made;
    for (const auto i : indices) {
      std::vector<ResultRow> some;
      for (const auto* row : *order[i]) some.push_back(*row);
      const auto table =
          compare_pairs(some, prompts, experiment_.behaviours, *options_.pairs, {.baseline = options_.baseline});
      Made<ArmVerdicts>& cell = made.emplace_back();
      cell.record[""].scores["position"] = table.position;
      for (const auto& row : some)
        for (const char* name : {"win_behaviour", "win_quality"}) {
          if (row.scores.contains(name)) cell.record[row.arm].scores[name] = row.scores.at(name);
          if (row.failed.contains(name)) cell.record[row.arm].failed[name] = row.failed.at(name);
        }
    }
    return made;
  };
  stage.write = write_arm_verdicts;
  stage.read = [](std::size_t, const std::string& line) { return read_arm_verdicts(line); };
  stage.batch = options_.batch;
  stage.apart = true;
  const auto verdicts = run(stage);
  for (const auto& cell : verdicts)
    if (cell && cell->contains(""))
      run_.position += cell->at("").scores.at("position") / static_cast<double>(verdicts.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    for (ResultRow* row : *order[i])
      if (verdicts[i])
        if (const auto mine = verdicts[i]->find(row->arm); mine != verdicts[i]->end()) mine->second.add_to(*row);
}

/// Which other behaviours the answers show, by the run's judge. Sweeps of strengths are left out.
void Runner::judge_off_target() {
  if (options_.judge->measure(Rubric::behaviour).empty()) return;
  std::map<std::string, std::string> prompts;
  for (const auto& q : experiment_.questions) prompts[q.id] = user_prompt(q);
  std::set<std::string> swept;
  for (const auto& arm : experiment_.arms)
    if (!arm.family.empty()) swept.insert(arm.name);
  std::vector<ResultRow> rows;
  for (const auto& row : rows_)
    if (!swept.contains(row.arm)) rows.push_back(row);
  KeptJudge judge(*options_.judge, [&](Stage<Verdicts> stage) {
    stage.name = "off_target";
    stage.batch = 16 * options_.batch;
    return run(stage);
  });
  off_target_ = off_target(rows, prompts, experiment_.behaviours, judge,
                           {.baseline = options_.baseline, .questions = options_.off_target, .seed = experiment_.seed});
}

}  // namespace steer::eval::detail
