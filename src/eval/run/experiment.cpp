#include <steer/eval/experiment.hpp>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include <steer/core/error.hpp>
#include <steer/features/strength.hpp>

#include "eval/judge/kept_judge.hpp"
#include "eval/run/answers.hpp"
#include "eval/run/describe_run.hpp"
#include "eval/run/identity.hpp"
#include "eval/run/records.hpp"
#include "eval/run/stage.hpp"

namespace steer {
namespace {

using namespace eval::detail;

using Indices = std::span<const std::size_t>;
/// An arm, or a source of steerings, and a behaviour.
using Pair = std::pair<std::string, std::string>;

class Runner {
 public:
  Runner(const Experiment& experiment, const Model& model, const ExperimentOptions& options)
      : experiment_(experiment),
        model_(model),
        options_(options),
        run_{.experiment = experiment,
             .options = options,
             .identity = run_identity(experiment, model, options.judge.get(), options.pairs.get())} {
    if (options.workers.count > 1) {
      require(!options.journal.empty(), ErrorCode::argument, "run_experiment",
              "expected a journal when several processes share the work");
      team_ = std::make_unique<Team>(options.workers, one_line(run_.identity));
    }
  }

  Report run() {
    find_steerings();
    check_steerings();
    apply_steerings();
    take_answers();
    if (experiment_.mode == AnswerMode::generate) {
      check_rules();
      if (options_.judge) judge();
      if (options_.pairs) compare();
      if (options_.judge && options_.off_target > 0) judge_off_target();
    }
    if (team_) team_->leave();
    require_fired(experiment_, rows_);
    Report report = make_report(std::move(rows_), {.baseline = options_.baseline});
    report.off_target = std::move(off_target_);
    describe_run(run_, report);
    return report;
  }

 private:
  template <class Record>
  std::vector<std::optional<Record>> run(const Stage<Record>& stage) {
    return run_stage(stage, {.journal = options_.journal,
                             .identity = one_line(run_.identity),
                             .team = team_.get(),
                             .stop = options_.stop,
                             .used = &run_.journals,
                             .progress = options_.progress});
  }

  /// What every source has for every behaviour: looked up, or searched as a stage.
  void find_steerings() {
    std::vector<std::pair<const SteeringSource*, const Behaviour*>> searches;
    Stage<FoundSteering> stage{.name = "steering"};
    std::set<Pair> seen;
    for (const auto& arm : experiment_.arms) {
      if (!arm.source) continue;
      for (const auto& behaviour : experiment_.behaviours) {
        if (!seen.insert({arm.source->name, behaviour.name}).second) continue;
        if (!arm.source->costly) {
          found_[{arm.source->name, behaviour.name}] = arm.source->find(model_, behaviour);
          continue;
        }
        searches.emplace_back(arm.source.get(), &behaviour);
        stage.keys.push_back(arm.source->name + "|" + behaviour.name);
      }
    }
    if (searches.empty()) return;
    stage.make = [&](Indices indices) {
      std::vector<Made<FoundSteering>> made;
      for (auto i : indices) made.push_back({searches[i].first->find(model_, *searches[i].second)});
      return made;
    };
    stage.write = write_steering;
    stage.read = [&](std::size_t i, const std::string& line) { return read_steering(line, searches[i].first->saes); };
    auto found = run(stage);
    for (std::size_t i = 0; i < searches.size(); ++i)
      found_[{searches[i].first->name, searches[i].second->name}] = std::move(found[i]).value();
  }

  const FoundSteering& found(const Arm& arm, const Behaviour& behaviour) const {
    return found_.at({arm.source->name, behaviour.name});
  }

  /// What does not fit is an error before the first answer; what a person should look at goes into the report.
  void check_steerings() {
    Session session(model_, {.on_warning = options_.on_warning});
    for (const Arm& arm : experiment_.arms)
      if (arm.source)
        for (const Behaviour& behaviour : experiment_.behaviours)
          session.close(session.open({.steering = arm.apply(found(arm, behaviour).steering, behaviour)}));
    run_.warnings = session.warnings();
  }

  /// Random features and noise are brought to the effect of what they stand for: an edit of the same length along
  /// another direction may change the model's distributions by much more or less.
  PlaceboMatch match(const Arm& arm, const Behaviour& behaviour) const {
    const Steering& as_found = found(arm, behaviour).steering;
    const Steering given = as_found.scaled(arm.strength);
    const auto texts = neutral_texts(model_, given);
    try {
      const double effect = steering_effect(model_, given, texts).quantile;
      const auto matched = calibrate_strength(model_, arm.apply(as_found, behaviour), effect, {.texts = texts});
      if (matched.reached) return {matched.factor, fmt::format("brought to the same KL, {:.2g} nats", effect)};
    } catch (const Error& error) {
      // Conditions on the next-token entropy, or an edit that does not act on texts: there is no effect to match.
      if (error.code() != ErrorCode::unsupported && error.code() != ErrorCode::argument) throw;
    }
    return {};
  }

  /// What every arm steers every behaviour with, and where it comes from.
  void apply_steerings() {
    std::vector<std::pair<const Arm*, const Behaviour*>> placebos;
    Stage<PlaceboMatch> stage{.name = "placebo"};
    for (const auto& arm : experiment_.arms)
      for (const auto& behaviour : experiment_.behaviours) {
        if (!arm.source) continue;
        const FoundSteering& given = found(arm, behaviour);
        run_.steerings[{arm.name, behaviour.name}] = {arm.apply(given.steering, behaviour), given.note};
        if (!is_placebo(arm) || given.steering.empty()) continue;
        placebos.emplace_back(&arm, &behaviour);
        stage.keys.push_back(arm.name + "|" + behaviour.name);
      }
    if (placebos.empty()) return;
    stage.make = [&](Indices indices) {
      std::vector<Made<PlaceboMatch>> made;
      for (auto i : indices) made.push_back({match(*placebos[i].first, *placebos[i].second)});
      return made;
    };
    stage.write = write_match;
    stage.read = [](std::size_t, const std::string& line) { return read_match(line); };
    const auto matches = run(stage);
    for (std::size_t i = 0; i < placebos.size(); ++i) {
      FoundSteering& applied = run_.steerings.at({placebos[i].first->name, placebos[i].second->name});
      applied.steering = applied.steering.scaled(matches[i].value().factor);
      applied.note += "; placebo: " + matches[i]->note;
    }
  }

  static bool answers(const Arm& arm, std::size_t question) {
    return question % static_cast<std::size_t>(arm.every) == 0;
  }

  /// Every arm's answer to every question under every behaviour, each taken once.
  void take_answers() {
    std::vector<Task> tasks;
    Stage<ResultRow> stage{.name = "answer"};
    std::map<std::string, std::size_t> places;  // of tasks, by key
    const auto key_of = [&](const Arm& arm, const Behaviour& behaviour, const Question& question) {
      return fmt::format("{}|{}|{}", arm.name, experiment_.answers_each_behaviour(arm) ? behaviour.name : "",
                         question.id);
    };
    for (std::size_t q = 0; q < experiment_.questions.size(); ++q)  // side by side: they share a prompt
      for (const auto& arm : experiment_.arms)
        for (const auto& behaviour : experiment_.behaviours) {
          if (!answers(arm, q)) continue;
          const Question& question = experiment_.questions[q];
          const std::string key = key_of(arm, behaviour, question);
          if (!places.try_emplace(key, tasks.size()).second) continue;
          Task task{&arm, experiment_.answers_each_behaviour(arm) ? &behaviour : nullptr, &question};
          if (arm.source) task.steering = run_.steerings.at({arm.name, behaviour.name}).steering;
          tasks.push_back(std::move(task));
          stage.keys.push_back(key);
        }
    stage.make = [&](Indices indices) {
      std::vector<Task> some;
      for (auto i : indices) some.push_back(tasks[i]);
      auto rows = experiment_.mode == AnswerMode::letters
                      ? take_letters(model_, some)
                      : eval::detail::take_answers(experiment_, model_, some, options_.batch, options_.stop);
      std::vector<Made<ResultRow>> made;
      for (auto& row : rows) made.push_back({std::move(row)});
      return made;
    };
    stage.write = write_row;
    stage.read = [](std::size_t, const std::string& line) { return read_row(line); };
    stage.batch = 4 * options_.batch;  // a finished row makes room for the next: more than is computed at once
    const auto taken = run(stage);
    for (const auto& arm : experiment_.arms)
      for (const auto& behaviour : experiment_.behaviours)
        for (std::size_t q = 0; q < experiment_.questions.size(); ++q) {
          if (!answers(arm, q)) continue;
          rows_.push_back(taken[places.at(key_of(arm, behaviour, experiment_.questions[q]))].value());
          rows_.back().behaviour = behaviour.name;
        }
  }

  void check_rules() {
    for (const auto& behaviour : experiment_.behaviours)
      for (auto& row : rows_)
        if (behaviour.rule && row.behaviour == behaviour.name)
          row.scores["rule"] = keeps_rule(*behaviour.rule, row.response) ? 1 : 0;
  }

  /// What the judge says of some rows under all its rubrics.
  std::vector<Made<Verdicts>> judge(std::span<const JudgeRequest> requests) {
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

  void judge() {
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
  void compare() {
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
  void judge_off_target() {
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
    off_target_ =
        off_target(rows, prompts, experiment_.behaviours, judge,
                   {.baseline = options_.baseline, .questions = options_.off_target, .seed = experiment_.seed});
  }

  const Experiment& experiment_;
  const Model& model_;
  const ExperimentOptions& options_;
  RunFacts run_;
  std::vector<OffTarget> off_target_;
  std::unique_ptr<Team> team_;
  std::map<Pair, FoundSteering> found_;  // by source and behaviour
  std::vector<ResultRow> rows_;
};

}  // namespace

void Experiment::validate() const {
  require(!questions.empty() && !behaviours.empty() && !arms.empty(), ErrorCode::argument, "Experiment",
          "expected questions, behaviours and arms but got {}, {} and {}", questions.size(), behaviours.size(),
          arms.size());
  require(max_tokens >= 1, ErrorCode::argument, "Experiment", "expected max_tokens of at least 1 but got {}",
          max_tokens);
  std::set<std::string> ids, names;
  for (const auto& question : questions)
    require(ids.insert(question.id).second, ErrorCode::argument, "Experiment",
            "expected every question once but got \"{}\" again", question.id);
  for (const auto& arm : arms) {
    require(names.insert(arm.name).second, ErrorCode::argument, "Experiment",
            "expected arms of different names but got \"{}\" again", arm.name);
    require(arm.name.find('|') == std::string::npos, ErrorCode::argument, "Experiment",
            "expected an arm's name without '|' but got \"{}\"", arm.name);
    require(arm.every >= 1, ErrorCode::argument, "Experiment",
            "expected every n-th question with n >= 1 but got {} (\"{}\")", arm.every, arm.name);
  }
  names.clear();
  for (const auto& behaviour : behaviours)
    require(names.insert(behaviour.name).second, ErrorCode::argument, "Experiment",
            "expected every behaviour once but got \"{}\" again", behaviour.name);
}

Report run_experiment(const Model& model, const Experiment& experiment, const ExperimentOptions& options) {
  experiment.validate();
  require(options.batch >= 1, ErrorCode::argument, "run_experiment", "expected batches of at least 1 but got {}",
          options.batch);
  const bool has_baseline = std::any_of(experiment.arms.begin(), experiment.arms.end(),
                                        [&](const Arm& a) { return a.name == options.baseline; });
  require(!options.calibration || (options.judge && options.calibration->judge == options.judge->identity()),
          ErrorCode::config, "run_experiment",
          "expected the calibration of this judge ({}) but got that of another ({})",
          options.judge ? options.judge->identity() : "none", options.calibration ? options.calibration->judge : "");
  require(has_baseline, ErrorCode::argument, "run_experiment", "expected the baseline \"{}\" among the arms",
          options.baseline);
  return Runner(experiment, model, options).run();
}

}  // namespace steer
