#include <steer/eval/experiment.hpp>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/core/version.hpp>
#include <steer/features/strength.hpp>

#include "eval/run/answers.hpp"
#include "eval/run/work.hpp"

namespace steer {
namespace {

using nlohmann::ordered_json;
using Records = std::map<std::string, std::string, std::less<>>;

std::string dump(const ordered_json& json) { return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace); }

/// A key that no other (arm, behaviour, question) has.
std::string task_key(std::string_view arm, std::string_view behaviour, std::string_view question) {
  return fmt::format("{}|{}|{}", arm, behaviour, question);
}

ordered_json arm_json(const Arm& arm) {
  ordered_json json{{"name", arm.name}, {"asking", to_string(arm.asking)}};
  if (arm.every != 1) json["every"] = arm.every;
  if (arm.source) {
    json["steering"] = arm.source->name;
    json["steering_identity"] = arm.source->identity;
    json["variant"] = to_string(arm.variant);
    json["strength"] = arm.strength;
    json["seed"] = arm.seed;
  }
  return json;
}

/// Everything the results depend on.
ordered_json identity_of(const Experiment& experiment, const Model& model, const Judge* judge, const PairJudge* pairs) {
  ContentHasher questions, behaviours;
  for (const auto& q : experiment.questions)
    questions.update(dump(ordered_json{q.id, q.subject, q.text, q.choices, q.answer}));
  ordered_json names = ordered_json::array(), arms = ordered_json::array();
  for (const auto& b : experiment.behaviours) {
    ordered_json json;
    to_json(json, b);
    behaviours.update(dump(json));
    names.push_back(b.name);
  }
  for (const auto& arm : experiment.arms) arms.push_back(arm_json(arm));
  ordered_json identity{{"steer", STEER_VERSION},
                        {"model", model.hash()},
                        {"tokenizer", model.tokenizer().hash()},
                        {"chat_template", content_hash(model.chat().source())},
                        {"mode", to_string(experiment.mode)},
                        {"questions", experiment.questions.size()},
                        {"questions_hash", questions.hex()},
                        {"behaviours", names},
                        {"behaviours_hash", behaviours.hex()},
                        {"arms", arms},
                        {"temperature", experiment.sampling.temperature},
                        {"top_p", experiment.sampling.top_p},
                        {"top_k", experiment.sampling.top_k},
                        {"min_p", experiment.sampling.min_p},
                        {"repetition_penalty", experiment.sampling.repetition_penalty},
                        {"max_tokens", experiment.max_tokens},
                        {"seed", experiment.seed},
                        {"seeds", "of question and behaviour"},
                        {"force_answers", experiment.force_answers},
                        {"nll", experiment.nll},
                        {"kl", experiment.kl},
                        {"judge", judge ? judge->identity() : "none"}};
  if (pairs) identity["pairs"] = pairs->identity();
  return identity;
}

class Runner {
 public:
  Runner(const Experiment& experiment, const Model& model, const ExperimentOptions& options)
      : experiment_(experiment),
        model_(model),
        options_(options),
        identity_(identity_of(experiment, model, options.judge.get(), options.pairs.get())) {
    if (options.workers.count > 1) {
      require(!options.journal.empty(), ErrorCode::argument, "run_experiment",
              "expected a journal when several processes share the work");
      team_ = std::make_unique<eval::detail::Team>(options.workers, dump(identity_));
    }
  }

  Report run() {
    find_steerings();
    check_steerings();
    match_placebos();
    take_answers();
    if (experiment_.mode == AnswerMode::generate) {
      check_rules();
      if (options_.judge) judge();
      if (options_.pairs) compare();
    }
    if (team_) team_->leave();
    require_fired();
    Report report = make_report(std::move(results_), {.baseline = options_.baseline});
    describe(report);
    return report;
  }

 private:
  /// Runs one stage of the work; keys get the stage's name in front.
  Records stage(std::string name, const std::vector<std::string>& keys, const eval::detail::DoItems& work,
                std::int64_t batch, bool apart = false) {
    std::vector<std::string> named;
    for (const auto& key : keys) named.push_back(name + "|" + key);
    return eval::detail::do_work(named, work,
                                 {.journal = options_.journal,
                                  .identity = dump(identity_),
                                  .stage = std::move(name),
                                  .batch = batch,
                                  .apart = apart,
                                  .team = team_.get(),
                                  .stop = options_.stop,
                                  .used = &journals_,
                                  .progress = options_.progress});
  }

  static bool answers(const Arm& arm, std::size_t question) {
    return question % static_cast<std::size_t>(arm.every) == 0;
  }

  /// What does not fit is an error before the first answer; what a person should look at goes into the report.
  void check_steerings() {
    Session session(model_, {.on_warning = options_.on_warning});
    for (const Arm& arm : experiment_.arms)
      if (arm.source)
        for (const Behaviour& behaviour : experiment_.behaviours) {
          const FoundSteering& found = found_.at(arm.source->name + "|" + behaviour.name);
          session.close(session.open({.steering = arm.apply(found.steering, behaviour)}));
        }
    warnings_ = session.warnings();
  }

  void find_steerings() {
    std::vector<std::pair<const SteeringSource*, const Behaviour*>> searches;
    std::vector<std::string> keys;
    std::set<std::string> seen;
    for (const auto& arm : experiment_.arms) {
      if (!arm.source) continue;
      for (const auto& behaviour : experiment_.behaviours) {
        const std::string key = arm.source->name + "|" + behaviour.name;
        if (!seen.insert(key).second) continue;
        if (!arm.source->costly) {
          found_[key] = arm.source->find(model_, behaviour);
          continue;
        }
        searches.emplace_back(arm.source.get(), &behaviour);
        keys.push_back(key);
      }
    }
    if (keys.empty()) return;
    const auto search = [&](std::span<const std::size_t> indices) {
      std::vector<eval::detail::WorkRecord> records;
      for (auto i : indices) {
        const auto found = searches[i].first->find(model_, *searches[i].second);
        const auto steering =
            found.steering.empty() ? ordered_json() : ordered_json::parse(found.steering.to_json().dump());
        records.push_back({dump({{"steering", steering}, {"note", found.note}})});
      }
      return records;
    };
    const auto records = stage("steering", keys, search, 1);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      // Always from the record, found just now or before: a resumed run must see the same numbers.
      const auto json = nlohmann::json::parse(records.at("steering|" + keys[i]));
      FoundSteering found{.steering = {}, .note = json.at("note")};
      if (!json.at("steering").is_null())
        found.steering = Steering::from_json(json.at("steering"), {.saes = searches[i].first->saes});
      found_[keys[i]] = std::move(found);
    }
  }

  static bool is_placebo(const Arm& arm) {
    return arm.variant == ArmVariant::random_features || arm.variant == ArmVariant::noise;
  }

  /// Random features and noise are brought to the effect of what they stand for: an edit of the same length along
  /// another direction may change the model's distributions by much more or less.
  void match_placebos() {
    std::vector<std::pair<const Arm*, const Behaviour*>> placebos;
    std::vector<std::string> keys;
    for (const auto& arm : experiment_.arms)
      for (const auto& behaviour : experiment_.behaviours)
        if (is_placebo(arm) && !found_.at(arm.source->name + "|" + behaviour.name).steering.empty()) {
          placebos.emplace_back(&arm, &behaviour);
          keys.push_back(arm.name + "|" + behaviour.name);
        }
    if (keys.empty()) return;
    const auto match = [&](std::span<const std::size_t> indices) {
      std::vector<eval::detail::WorkRecord> records;
      for (auto i : indices) {
        const auto& [arm, behaviour] = placebos[i];
        const Steering& found = found_.at(arm->source->name + "|" + behaviour->name).steering;
        const Steering given = found.scaled(arm->strength);
        const auto texts = neutral_texts(model_, given);
        ordered_json record = {{"factor", 1.0}, {"note", "as long an edit"}};
        try {
          const double effect = steering_effect(model_, given, texts).quantile;
          const auto matched = calibrate_strength(model_, arm->apply(found, *behaviour), effect, {.texts = texts});
          if (matched.reached)
            record = {{"factor", matched.factor}, {"note", fmt::format("brought to the same KL, {:.2g} nats", effect)}};
        } catch (const Error& error) {
          // Conditions on the next-token entropy, or an edit that does not act on texts: there is no effect to match.
          if (error.code() != ErrorCode::unsupported && error.code() != ErrorCode::argument) throw;
        }
        records.push_back({dump(record)});
      }
      return records;
    };
    const auto records = stage("placebo", keys, match, 1);
    for (const auto& key : keys) {
      const auto json = nlohmann::json::parse(records.at("placebo|" + key));
      placebos_[key] = std::pair(json.at("factor").get<double>(), json.at("note").get<std::string>());
    }
  }

  /// What an arm steers a behaviour with, and where it comes from.
  FoundSteering steering_of(const Arm& arm, const Behaviour& behaviour) const {
    const FoundSteering& found = found_.at(arm.source->name + "|" + behaviour.name);
    FoundSteering result{arm.apply(found.steering, behaviour), found.note};
    if (const auto placebo = placebos_.find(arm.name + "|" + behaviour.name); placebo != placebos_.end()) {
      result.steering = result.steering.scaled(placebo->second.first);
      result.note += "; placebo: " + placebo->second.second;
    }
    return result;
  }

  void take_answers() {
    std::map<std::string, Steering> steerings;
    for (const auto& arm : experiment_.arms)
      if (arm.source)
        for (const auto& behaviour : experiment_.behaviours)
          steerings[arm.name + "|" + behaviour.name] = steering_of(arm, behaviour).steering;
    std::vector<eval::detail::Task> tasks;
    std::vector<std::string> keys;
    for (std::size_t q = 0; q < experiment_.questions.size();
         ++q)  // arms of one question side by side share its prompt
      for (const auto& arm : experiment_.arms) {
        if (!answers(arm, q)) continue;
        const Question& question = experiment_.questions[q];
        const auto add = [&](const Behaviour* behaviour) {
          eval::detail::Task task{&arm, behaviour, &question};
          if (arm.source) task.steering = steerings.at(arm.name + "|" + behaviour->name);
          keys.push_back(task_key(arm.name, behaviour ? behaviour->name : "", question.id));
          tasks.push_back(std::move(task));
        };
        if (!experiment_.answers_each_behaviour(arm))
          add(nullptr);
        else
          for (const auto& behaviour : experiment_.behaviours) add(&behaviour);
      }
    const auto work = [&](std::span<const std::size_t> indices) {
      std::vector<eval::detail::Task> some;
      for (auto i : indices) some.push_back(tasks[i]);
      const auto results = experiment_.mode == AnswerMode::letters
                               ? eval::detail::take_letters(model_, some)
                               : eval::detail::take_answers(experiment_, model_, some, options_.batch, options_.stop);
      std::vector<eval::detail::WorkRecord> records;
      for (const auto& result : results) {
        ordered_json json;
        to_json(json, result);
        records.push_back({dump(json)});
      }
      return records;
    };
    // A finished row makes room for the next: batches handed out are larger than what is computed at once.
    const auto records = stage("answer", keys, work, 4 * options_.batch);
    for (const auto& arm : experiment_.arms)
      for (const auto& behaviour : experiment_.behaviours)
        for (std::size_t q = 0; q < experiment_.questions.size(); ++q) {
          if (!answers(arm, q)) continue;
          const Question& question = experiment_.questions[q];
          const std::string shown = experiment_.answers_each_behaviour(arm) ? behaviour.name : "";
          ResultRow result =
              result_from_json(ordered_json::parse(records.at("answer|" + task_key(arm.name, shown, question.id))));
          result.behaviour = behaviour.name;
          results_.push_back(std::move(result));
        }
  }

  void judge() {
    std::map<std::string, const Question*> questions;
    for (const auto& q : experiment_.questions) questions[q.id] = &q;
    std::map<std::string, const Behaviour*> behaviours;
    for (const auto& b : experiment_.behaviours) behaviours[b.name] = &b;
    // Answers to one question side by side: a judge that is a model computes its prompt once.
    std::map<std::string, std::size_t> places;
    for (const auto& q : experiment_.questions) places.try_emplace(q.id, places.size());
    std::vector<const ResultRow*> order;
    for (const auto& result : results_) order.push_back(&result);
    std::ranges::stable_sort(order, {}, [&](const ResultRow* r) { return places.at(r->question); });
    std::vector<std::string> keys;
    for (const auto* result : order) keys.push_back(result->key());
    const auto work = [&](std::span<const std::size_t> indices) {
      std::vector<JudgeRequest> requests;
      for (auto i : indices)
        requests.push_back(
            {user_prompt(*questions.at(order[i]->question)), order[i]->response, behaviours.at(order[i]->behaviour)});
      std::vector<ordered_json> json(requests.size(), ordered_json::object());
      std::vector<bool> settled(requests.size(), true);
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
            json[of[k]]["scores"][name] = *judgements[k].score;
          else
            json[of[k]]["failed"][name] = judgements[k].failure;
          if (judgements[k].unanswered && settled[of[k]]) {  // a server that was down has not judged
            settled[of[k]] = false;
            ++unanswered_;
          }
        }
      }
      std::vector<eval::detail::WorkRecord> records;
      for (std::size_t i = 0; i < json.size(); ++i) records.push_back({dump(json[i]), settled[i]});
      return records;
    };
    const auto records = stage("judge", keys, work, 4 * options_.batch, /*apart=*/true);
    for (auto& result : results_) {
      const auto record = records.find("judge|" + result.key());
      if (record == records.end()) {  // another process could not reach the judge
        for (const Rubric rubric : {Rubric::behaviour, Rubric::coherence})
          if (const auto name = options_.judge->measure(rubric); !name.empty()) result.failed[name] = "not judged";
        continue;
      }
      const auto json = ordered_json::parse(record->second);
      if (json.contains("scores"))
        for (const auto& [name, value] : json["scores"].items()) result.scores[name] = value;
      if (json.contains("failed"))
        for (const auto& [name, value] : json["failed"].items()) result.failed[name] = value;
    }
  }

  void check_rules() {
    for (const auto& behaviour : experiment_.behaviours)
      for (auto& result : results_)
        if (behaviour.rule && result.behaviour == behaviour.name)
          result.scores["rule"] = keeps_rule(*behaviour.rule, result.response) ? 1 : 0;
  }

  /// Each answer against the baseline's to the same question, as one stage.
  void compare() {
    std::map<std::string, std::string> prompts;
    for (const auto& q : experiment_.questions) prompts[q.id] = user_prompt(q);
    std::map<std::pair<std::string, std::string>, std::vector<ResultRow>>
        cells;  // all arms of a question and behaviour
    for (const auto& result : results_) cells[{result.question, result.behaviour}].push_back(result);
    std::vector<std::string> keys;
    std::vector<std::vector<ResultRow>> rows;
    for (auto& [cell, some] : cells) {
      if (std::none_of(some.begin(), some.end(), [&](const ResultRow& r) { return r.arm == options_.baseline; }))
        continue;
      keys.push_back(cell.second + "|" + cell.first);
      rows.push_back(std::move(some));
    }
    const auto work = [&](std::span<const std::size_t> indices) {
      std::vector<eval::detail::WorkRecord> records;
      for (const auto i : indices) {
        auto some = rows[i];
        compare_pairs(some, prompts, experiment_.behaviours, *options_.pairs, {.baseline = options_.baseline});
        ordered_json json = ordered_json::object();
        for (const auto& row : some)
          for (const char* name : {"win_behaviour", "win_quality"}) {
            if (row.scores.contains(name)) json[row.arm]["scores"][name] = row.scores.at(name);
            if (row.failed.contains(name)) json[row.arm]["failed"][name] = row.failed.at(name);
          }
        records.push_back({dump(json)});
      }
      return records;
    };
    const auto records = stage("pairs", keys, work, options_.batch, /*apart=*/true);
    for (auto& result : results_) {
      const auto record = records.find("pairs|" + result.behaviour + "|" + result.question);
      if (record == records.end()) continue;
      const auto json = ordered_json::parse(record->second);
      if (!json.contains(result.arm)) continue;
      const auto& mine = json[result.arm];
      if (mine.contains("scores"))
        for (const auto& [name, value] : mine["scores"].items()) result.scores[name] = value;
      if (mine.contains("failed"))
        for (const auto& [name, value] : mine["failed"].items()) result.failed[name] = value;
    }
  }

  void describe_pairs(Report& report) const {
    std::string shares;
    for (const auto& arm : report.analysis.arms)
      for (const char* contest : {"win_behaviour", "win_quality"}) {
        const auto& scores = report.analysis.cell(arm).scores;
        const auto found = scores.find(contest);
        if (found == scores.end() || found->second.summary.n == 0) continue;
        const Interval& within = found->second.interval;
        shares += fmt::format("; {} {} {:.2f} [{:.2f}, {:.2f}]", arm, contest, found->second.summary.mean, within.low,
                              within.high);
      }
    report.notes.push_back(
        fmt::format("Comparisons with {}'s answer to the same question, share won, 0.5 is even (win_behaviour: more of "
                    "what was asked "
                    "for; win_quality: the better answer), by {}{}.",
                    options_.baseline, options_.pairs->identity(), shares));
  }

  /// What the report must say of how its scores came about.
  void describe_judging(Report& report) const {
    if (unanswered_ > 0)
      report.notes.push_back(fmt::format(
          "{} answers are not judged because the judge could not be asked; start the run again with the same "
          "settings to judge them.",
          unanswered_));
    for (const auto& behaviour : experiment_.behaviours) {
      if (!behaviour.rule || experiment_.mode != AnswerMode::generate) continue;
      std::string shares;
      for (const auto& arm : report.analysis.arms) {
        const auto& scores = report.analysis.cell(arm, behaviour.name).scores;
        if (const auto rule = scores.find("rule"); rule != scores.end())
          shares += fmt::format("{}{} {:.0f} %", shares.empty() ? "" : ", ", arm, 100 * rule->second.summary.mean);
      }
      report.notes.push_back(fmt::format("Checked by a program, not judged: {} (\"{}\") is kept in {} of the answers.",
                                         behaviour.name, behaviour.instruction, shares));
    }
    if (options_.pairs) describe_pairs(report);
    if (!options_.judge) return;
    const std::string shown = options_.judge->measure(Rubric::behaviour),
                      coherence = options_.judge->measure(Rubric::coherence), caveat = options_.judge->caveat();
    report.notes.push_back((shown == "behaviour" && coherence == "coherence" ? "Behaviour and coherence are scores of: "
                                                                             : shown + " is from: ") +
                           options_.judge->identity() + "." + (caveat.empty() ? "" : " " + caveat + "."));
    for (const auto& arm : experiment_.arms)
      if (arm.source && arm.source->sought == shown && arm.variant == ArmVariant::as_given && arm.family.empty() &&
          arm.asking == Asking::nothing)
        report.notes.push_back(fmt::format(
            "{} was sought by what this report shows ({}): its gain there is flattered. Judge with another judge.",
            arm.name, shown));
    if (shown != "behaviour")
      report.withheld["behaviour"] = fmt::format("it was not judged; {} is no score of it", shown);
    if (!options_.calibration) return;
    for (const auto& [measure, agreement] : options_.calibration->agreement)
      if (const std::string why = agreement.unusable(); !why.empty())
        report.withheld[measure] =
            fmt::format("measured against {}, the judge is not fit for it: {}", options_.calibration->reference, why);
  }

  /// An arm that was steered and changed nothing anywhere is a mistake, not a result.
  void require_fired() const {
    for (const auto& arm : experiment_.arms) {
      if (!arm.source || arm.strength == 0) continue;
      double rows = 0, edited = 0;
      for (const auto& result : results_)
        if (result.arm == arm.name && result.edits.contains("edited")) {
          ++rows;
          edited += result.edits.at("edited");
        }
      require(rows == 0 || edited > 0, ErrorCode::config, "run_experiment",
              "expected the steering of \"{}\" to edit tokens but it edited none in {} rows; check its scopes and "
              "conditions{}",
              arm.name, rows,
              experiment_.mode == AnswerMode::letters ? " (letters are read before any token is generated)" : "");
    }
  }

  void describe(Report& report) const {
    report.questions = experiment_.questions;
    report.arms.clear();
    ordered_json steerings = ordered_json::object();
    for (const auto& arm : experiment_.arms) {
      ContentHasher hasher;
      hasher.update(dump(arm_json(arm)));
      if (arm.source)
        for (const auto& behaviour : experiment_.behaviours) {
          const auto [steering, note] = steering_of(arm, behaviour);
          hasher.update(steering.describe());
          if (arm.source->costly && arm.asking == Asking::nothing && arm.variant == ArmVariant::as_given &&
              arm.family.empty() && !steering.empty())
            report.steerings[arm.name][behaviour.name] = steering;
          steerings[arm.name][behaviour.name] = {{"edits", steering.empty() ? "none" : steering.describe()},
                                                 {"note", note}};
        }
      const bool as_found = arm.asking == Asking::nothing && arm.variant == ArmVariant::as_given && arm.family.empty();
      report.arms.push_back({arm.name, arm.description, hasher.hex(), arm.family, arm.strength,
                             arm.asking != Asking::nothing, is_placebo(arm), as_found ? arm.draw_of : ""});
    }
    ordered_json settings = identity_;
    if (!steerings.empty()) settings["steerings"] = steerings;
    report.settings = settings.dump(2, ' ', false, ordered_json::error_handler_t::replace);
    for (const auto& arm : experiment_.arms) {
      if (!arm.source) continue;
      std::string unsteered;
      for (const auto& behaviour : experiment_.behaviours)
        if (found_.at(arm.source->name + "|" + behaviour.name).steering.empty())
          unsteered += (unsteered.empty() ? "" : ", ") + behaviour.name;
      if (!unsteered.empty() && arm.asking == Asking::nothing && arm.variant == ArmVariant::as_given &&
          arm.family.empty())
        report.notes.push_back(
            fmt::format("{} has no steering for {}: its rows there are unsteered.", arm.name, unsteered));
    }
    for (const std::string& warning : warnings_) report.notes.push_back("Mind: " + warning + ".");
    report.journals.assign(journals_.begin(), journals_.end());
    describe_judging(report);
    if (experiment_.mode == AnswerMode::letters) {
      double mass = 0;
      for (const auto& result : report.results) mass += result.scores.at("p_letters");
      report.notes.push_back(fmt::format(
          "Answers are the likeliest letter; nothing was generated, so there is no behaviour or coherence. All letters "
          "together have {:.0f} % of the next token on average: where that is little, the model would not have "
          "answered with a letter, and its accuracy here says little of what it knows.",
          100 * mass / static_cast<double>(report.results.size())));
    }
  }

  const Experiment& experiment_;
  const Model& model_;
  const ExperimentOptions& options_;
  ordered_json identity_;
  std::unique_ptr<eval::detail::Team> team_;
  std::map<std::string, FoundSteering> found_;  // by source and behaviour
  std::vector<std::string> warnings_;
  std::map<std::string, std::pair<double, std::string>>
      placebos_;  // by arm and behaviour: strength, how it was matched
  std::vector<ResultRow> results_;
  std::set<std::filesystem::path> journals_;  // whose records were used
  std::int64_t unanswered_ = 0;               // rows that the judge could not be asked about
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
