#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/core/progress.hpp>
#include <steer/core/workers.hpp>
#include <steer/eval/analysis.hpp>
#include <steer/eval/arm.hpp>
#include <steer/eval/behaviours.hpp>
#include <steer/eval/judge.hpp>
#include <steer/eval/judge_calibration.hpp>
#include <steer/eval/pairwise.hpp>
#include <steer/eval/questions.hpp>
#include <steer/eval/report.hpp>
#include <steer/generate/generate.hpp>
#include <steer/model/model.hpp>
#include <steer/model/session.hpp>

namespace steer {

/// How an answer is taken from the model.
enum class AnswerMode {
  generate,  ///< text is generated and its letter parsed
  letters,   ///< the likeliest letter after the prompt: fast, says nothing about behaviour or coherence
};

template <>
struct EnumTable<AnswerMode> {
  static constexpr std::string_view name = "answer mode";
  static constexpr EnumEntry<AnswerMode> entries[] = {{AnswerMode::generate, "generate"},
                                                      {AnswerMode::letters, "letters"}};
};

/// What is measured: every arm answers every question under every behaviour.
struct Experiment {
  std::vector<Question> questions{};
  std::vector<Behaviour> behaviours = study_behaviours();
  std::vector<Arm> arms{};  ///< names must differ
  AnswerMode mode = AnswerMode::generate;
  SamplingOptions sampling{.temperature = 0.6, .top_p = 0.9};  ///< the settings of arXiv 2602.04903
  std::int64_t max_tokens = 1024;
  std::uint64_t seed = 42;  ///< a question has one seed a behaviour, the same under every arm
  bool nll = true;          ///< score "nll": of the answer under the unsteered model, nats a token
  bool kl = false;          ///< score "kl": from the unsteered next-token distribution, nats a token
  /// Reads a letter from an answer that was cut off before it gave one: closing tag and answer tag are put after it,
  /// and the likeliest letter counts. Score "forced_correct" (of all rows; accuracy itself keeps the strict rule), so
  /// that a budget of tokens is not taken for knowledge lost.
  bool force_answers = false;

  /// Whether an arm answers anew under every behaviour: where it depends on the behaviour, and where answers are drawn,
  /// since one draw copied over behaviours would give all of them its luck. Else it answers once.
  bool answers_each_behaviour(const Arm& arm) const {
    return arm.depends_on_behaviour() || (mode == AnswerMode::generate && sampling.temperature > 0);
  }

  /// @throws Error(argument) for no questions, behaviours or arms, names or ids that occur twice, options out of range.
  void validate() const;
};

struct ExperimentOptions {
  std::shared_ptr<Judge> judge{};  ///< none: behaviour and coherence are not judged
  std::shared_ptr<PairJudge>
      pairs{};  ///< compares each answer with the baseline's to the same question; none: not done
  /// The judge also says which other behaviours an arm's answers show (see off_target), on so many questions of each
  /// behaviour: arms x behaviours^2 x so many judgements. 0: not done.
  std::int64_t off_target = 0;
  std::optional<JudgeCalibration> calibration{};  ///< of the judge: what it does not measure well gets no verdict
  std::filesystem::path journal{};                ///< what is done is kept here, and resumed; empty: in memory only
  std::int64_t batch = 64;                        ///< answers computed at once
  Workers workers{};                       ///< processes that share the work; they must share the journal's folder
  std::string baseline = "control";        ///< of the analysis
  OnWarning on_warning = OnWarning::keep;  ///< what a steering that warns is; kept ones are the report's `warnings`
  std::function<bool()> stop{};  ///< asked at every step: true ends the run with Error(cancelled), journals synced
  Progress progress{};
};

/// Runs an experiment: searches the steerings the arms need, takes all answers, judges them, analyses.
///
/// Each stage is journalled: killed at any time and started again with the same settings, the run goes on where it was,
/// and its report has the same bytes as that of an uninterrupted run. Answers that do not depend on the behaviour
/// (control, when nothing is sampled) are taken once and judged for each. In `letters` mode arms that share a prompt
/// share its computation below the lowest steered layer. With several processes, rank 0 returns the report; on the
/// others it holds the same results. Rule-checked behaviours (Behaviour::rule) get a score "rule" of 0 or 1 instead of
/// a judge's. What a judge could not be asked (Judgement::unanswered) is no result: the next run asks again.
/// @throws Error(config) for a journal (of any rank) of other settings, or an arm whose steering changed nothing in any
///         row; Error(format) for a file in its place that is no journal; Error(cancelled) when told to stop; Error(io)
///         for a journal that cannot be written, a judge that is down or a lost rank 0 (start again: nothing is lost);
///         whatever arms, generation and judge throw.
Report run_experiment(const Model& model, const Experiment& experiment, const ExperimentOptions& options = {});

/// What a run will load, hold and compute, from the headers of the files and the tokenizer alone.
struct ExperimentPlan {
  std::string model;               ///< family, size and storage of the weights, in words
  std::vector<std::string> saes;   ///< one line each
  std::int64_t rows = 0;           ///< of the results
  std::int64_t answers = 0;        ///< taken from the model: fewer than rows where arms ignore the behaviour
  std::int64_t prompt_tokens = 0;  ///< over all answers
  std::int64_t longest_prompt = 0;
  std::int64_t new_tokens = 0;        ///< at most
  std::int64_t scored_tokens = 0;     ///< at most: answers read again by the unsteered model (nll, kl), not by judges
  std::int64_t search_answers = 0;    ///< of the searches for steerings, at most about
  std::int64_t weight_bytes = 0;      ///< of the model, as it is kept
  std::int64_t sae_bytes = 0;         ///< as f32, which they compute in
  std::int64_t cache_bytes = 0;       ///< of the keys and values of one batch at full length
  std::int64_t memory_bytes = 0;      ///< the device has for use now; 0 when unknown
  double seconds = 0;                 ///< rough, at most: see `estimate_time`; 0 before
  std::vector<std::string> warnings;  ///< what loading will let through (`Model::warnings`)
  std::vector<std::string> problems;  ///< why it cannot run here; each says by how much and what to do

  /// A table for people.
  std::string describe() const;
  /// @throws Error(config) with all problems.
  void require_fits() const;
};

/// Reads headers only; the tensors are checked against the configuration. Arms whose steerings are searched are counted
/// without the search.
/// @param model_path  as for Model::load, and so is `load`. @throws as Model::load for files it cannot take.
ExperimentPlan plan_experiment(const std::filesystem::path& model_path, const Experiment& experiment,
                               const ExperimentOptions& options = {}, const LoadOptions& load = {});

/// Sets `plan.seconds`: times products of the model's shapes with random weights of its storage types on its device,
/// for one or two seconds, and scales them to the plan's tokens. Attention, sampling, SAE encoding and judges are left
/// out and every answer is taken to be as long as it may be: right within a factor of two or so for models of a
/// gigabyte and more, too low for tiny ones. @throws as plan_run.
void estimate_time(ExperimentPlan& plan, const std::filesystem::path& model_path, const ExperimentOptions& options = {},
                   const LoadOptions& load = {});

}  // namespace steer
