#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/eval/behaviours.hpp>
#include <steer/eval/judge.hpp>
#include <steer/eval/results.hpp>
#include <steer/model/model.hpp>
#include <steer/stats/bradley_terry.hpp>

namespace steer {

/// What two answers to one question are compared for.
enum class Contest {
  behaviour,  ///< which shows the behaviour more
  quality,    ///< which is the better answer to the question; the judge is not told of any behaviour
};

template <>
struct EnumTable<Contest> {
  static constexpr std::string_view name = "contest";
  static constexpr EnumEntry<Contest> entries[] = {{Contest::behaviour, "behaviour"}, {Contest::quality, "quality"}};
};

struct PairRequest {
  std::string prompt{};                  ///< what both answer
  std::string first, second;             ///< the answers
  const Behaviour* behaviour = nullptr;  ///< for Contest::behaviour
};

/// How one comparison ended: `score` of the judgement is the share of the win that goes to `first`, 0 to 1, mean over
/// both orders of the two answers.
struct PairJudgement : Judgement {
  double position = 0;  ///< how much more the answer shown first got, in the mean of both orders: -1 to 1
};

/// Compares answers instead of scoring them: no scale, no calibration of levels.
class PairJudge {
 public:
  virtual ~PairJudge() = default;
  /// What the judgements depend on, for journals and reports.
  virtual std::string identity() const = 0;
  /// One judgement a request, in order. Equal answers get 0.5 without being asked about. @throws as Judge::judge.
  virtual std::vector<PairJudgement> compare(Contest contest, std::span<const PairRequest> requests) = 0;
};

/// A local language model, asked for "A" or "B"; the share is P(A) / (P(A) + P(B)), in both orders. Wants an instruct
/// model of some size. @throws Error(config) for a model without a tokenizer, or without single tokens for both
/// letters.
std::shared_ptr<PairJudge> pair_judge(Model model);

/// The question to such a judge. @throws Error(argument) for Contest::behaviour without a behaviour.
std::string pair_prompt(Contest contest, const PairRequest& request);

/// Strengths of arms from comparisons on the same questions.
struct PairTable {
  struct Row {
    std::string arm;
    ClusteredMean win;              ///< share of wins against the baseline's answer to the same question; 0.5 is even
    BradleyTerryStrength strength;  ///< over all comparisons, in logits above the baseline
  };
  std::vector<Row> behaviour, quality;  ///< by arm, the baseline not among them
  double position = 0;                  ///< mean preference for what is shown first: a judge near 1 reads nothing
  std::int64_t failed = 0;              ///< comparisons without a judgement
};

/// The table of comparisons with the baseline that were made already: rows with scores "win_behaviour" and
/// "win_quality". Position is not known from these: 0.
PairTable pair_table(std::span<const ResultRow> results, const std::string& baseline = "control");

struct PairOptions {
  std::string baseline = "control";
  std::int64_t among_arms = 0;  ///< beside each answer against the baseline's: comparisons with other arms, by draw
  std::uint64_t seed = 42;
};

/// Compares every answer with the baseline's to the same question under the same behaviour, and writes the shares into
/// the rows as scores "win_behaviour" and "win_quality". Bradley and Terry's strengths over all comparisons; intervals
/// clustered by question. Rule-checked behaviours take part for quality only.
/// @param prompts  of the questions, by id. @throws Error(argument) for a question or behaviour that is not given, or
///                 no row of the baseline; whatever the judge throws.
PairTable compare_pairs(std::vector<ResultRow>& results, const std::map<std::string, std::string>& prompts,
                        const std::vector<Behaviour>& behaviours, PairJudge& judge, const PairOptions& options = {});

}  // namespace steer
