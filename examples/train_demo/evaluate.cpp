#include "evaluate.hpp"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include <steer/eval/answer.hpp>
#include <steer/eval/behaviours.hpp>
#include <steer/features/auto_steer.hpp>
#include <steer/generate/generate.hpp>
#include <steer/steering/steering.hpp>

#include "judge.hpp"
#include "style.hpp"

namespace steer::demo {
namespace {

using Questions = std::vector<FactQuestion>;

Questions spread(Questions all, std::int64_t count) {
  Questions some;
  const auto step = std::max<std::int64_t>(1, std::ssize(all) / count);
  for (std::int64_t i = 0; i < std::ssize(all) && std::ssize(some) < count; i += step) some.push_back(all[i]);
  return some;
}

class Bench {
 public:
  Bench(const Model& model, const World& world, const EvaluateOptions& options)
      : model_(model), world_(world), options_(options) {}

  std::vector<std::string> answer(const Questions& questions, const std::string& system, const Steering& steering,
                                  std::uint64_t salt) {
    std::vector<GenerateRequest> requests;
    for (const auto& question : questions) {
      std::vector<Message> chat;
      if (!system.empty()) chat.push_back({Role::system, system});
      chat.push_back({Role::user, user_prompt(world_.published(question))});
      requests.push_back({.ids = model_.chat().render(chat).ids, .steering = {}, .seed = {}});
    }
    GenerateOptions how;
    how.sampling = {.temperature = 0.6, .top_p = 0.9};
    how.max_tokens = 160;
    how.seed = derive_seed(options_.seed, "evaluate", salt);
    how.batch = 64;
    how.steering = steering;
    std::vector<std::string> texts;
    for (auto& result : generate(model_, requests, how)) texts.push_back(std::move(result.text));
    return texts;
  }

  AnswerQuality grade(const Questions& questions, const std::vector<std::string>& answers, const StyleJudge* judge,
                      std::int64_t which) const {
    AnswerQuality quality;
    std::vector<std::string> thoughts;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const auto parsed = parse_answer(answers[i]);
      quality.formatted += parsed.strict.has_value();
      quality.accuracy += parsed.strict == letters[questions[i].answer];
      thoughts.push_back(thinking_of(answers[i]));
    }
    if (judge) {
      for (const auto c : judge->classify(thoughts)) quality.behaviour += c == which;
    }
    const auto n = static_cast<double>(answers.size());
    return {quality.accuracy / n, quality.formatted / n, quality.behaviour / n};
  }

 private:
  const Model& model_;
  const World& world_;
  const EvaluateOptions& options_;
};

}  // namespace

DemoReport evaluate(const Model& model, const Sae& sae, const World& world, const Corpus& corpus,
                    const std::vector<FeatureNote>& notes, const EvaluateOptions& options, Progress progress) {
  const auto& study = study_behaviours();
  const auto classes = std::ssize(study);
  Bench bench(model, world, options);
  const auto test = spread(world.held_out(Split::test), options.questions);
  const auto dev = world.held_out(Split::dev);
  const auto fit = spread(dev, options.fit_questions), probe = spread(dev, options.probe_questions);
  DemoReport report;
  report.questions = std::ssize(test);
  report.nudged_questions = report.questions;

  // The judge is fitted on answers to dev questions; everything it then judges answers test questions.
  std::vector<std::string> texts;
  std::vector<std::int64_t> labels;
  for (std::int64_t b = 0; b <= classes; ++b) {
    for (const auto& text : bench.answer(fit, b < classes ? system_prompt(study[b]) : "", {}, 100 + b)) {
      texts.push_back(thinking_of(text));
      labels.push_back(b);
    }
    progress.advance();
  }
  const StyleJudge judge(texts, labels, classes + 1, world.names());

  AutoSteerOptions how{.max_tokens = 160, .seed = options.seed};
  for (const auto& question : spread(dev, options.probe_questions))
    how.prompts.push_back(user_prompt(world.published(question)));
  while (how.prompts.size() < 4) how.prompts.push_back(how.prompts.back());
  AutoSteer search(model, sae, how);

  const auto control = bench.answer(test, "", {}, 1);
  report.plain = bench.grade(test, control, nullptr, 0);
  for (std::int64_t b = 0; b < classes; ++b) {
    BehaviourReport row;
    row.behaviour = study[b].name;
    row.control = bench.grade(test, control, &judge, b);
    const auto prompted = bench.answer(test, system_prompt(study[b]), {}, 200 + b);
    row.prompted = bench.grade(test, prompted, &judge, b);
    const auto tell = telltale(texts, labels, b);
    row.telltale = tell.word;
    row.telltale_share = tell.share;
    row.sample = prompted[static_cast<std::size_t>(b * 7) % prompted.size()];

    // Auto Steer names the single features that, nudged alone, move the behaviour; strength is chosen on dev questions.
    std::vector<AutoSteerCandidate> candidates = search.find(study[b].name, AutoSteerMode::published).candidates;
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const auto& x, const auto& y) { return x.output_score > y.output_score; });
    if (std::ssize(candidates) > options.features) candidates.resize(options.features);
    double best = 0;
    const auto nudge = [&](const AutoSteerCandidate& candidate, double strength) {
      return Steering().nudge(sae, candidate.feature, strength,
                              {.scope = {.where = Where::onset, .count = 8},
                               .unit = StrengthUnit::max_activation,
                               .max_activation = candidate.max_activation});
    };
    Steering chosen;
    for (const auto& candidate : candidates) {
      for (const double strength : options.strengths) {
        const auto quality =
            bench.grade(probe, bench.answer(probe, "", nudge(candidate, strength), 300 + b), &judge, b);
        if (quality.behaviour * quality.formatted > best) {
          best = quality.behaviour * quality.formatted;
          row.feature = candidate.feature;
          row.strength = strength;
          chosen = nudge(candidate, strength);
        }
      }
    }
    if (row.feature >= 0) {
      row.feature_label = notes[row.feature].description;
      row.nudged = bench.grade(test, bench.answer(test, "", chosen, 400 + b), &judge, b);
    }
    report.behaviours.push_back(std::move(row));
    progress.advance();
  }
  report.autoencoder = measure(model, sae, corpus, options.seed);
  progress.finish();
  return report;
}

}  // namespace steer::demo
