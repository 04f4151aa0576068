#include <steer/eval/experiment.hpp>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "eval/run/answers.hpp"
#include "eval/run/runner.hpp"

namespace steer {
namespace eval::detail {
namespace {

bool answers(const Arm& arm, std::size_t question) { return question % static_cast<std::size_t>(arm.every) == 0; }

}  // namespace

Runner::Runner(const Experiment& experiment, const Model& model, const ExperimentOptions& options)
    : experiment_(experiment),
      model_(model),
      options_(options),
      run_{.experiment = experiment,
           .options = options,
           .identity = run_identity(experiment, model, options.judge.get(), options.pairs.get())} {
  if (options.workers.count > 1) {
    require(model.processes() == 1, ErrorCode::argument, "run_experiment",
            "expected a model in one process where several share the questions but {} compute it together "
            "(LoadOptions::parallel); leave ExperimentOptions::workers at one there",
            model.processes());
    require(!options.journal.empty(), ErrorCode::argument, "run_experiment",
            "expected a journal when several processes share the work");
    team_ = std::make_unique<Team>(options.workers, one_line(run_.identity));
  }
}

Report Runner::run() {
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

/// Every arm's answer to every question under every behaviour, each taken once.
void Runner::take_answers() {
  std::vector<Task> tasks;
  Stage<ResultRow> stage{.name = "answer"};
  std::map<std::string, std::size_t> places;  // of tasks, by key
  const auto key_of = [&](const Arm& arm, const Behaviour& behaviour, const Question& question) {
    return format_text("{}|{}|{}", arm.name, experiment_.answers_each_behaviour(arm) ? behaviour.name : "",
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

}  // namespace eval::detail

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
  return eval::detail::Runner(experiment, model, options).run();
}

}  // namespace steer
