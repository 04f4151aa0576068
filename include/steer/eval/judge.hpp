#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/eval/behaviours.hpp>

namespace steer {

/// What is judged.
enum class Rubric {
  behaviour,  ///< how much of the behaviour the response shows, 1 to 5 by its weighted criteria
  coherence,  ///< how coherent it is as an answer to the prompt, 1 to 5; the judge is not told of any behaviour
};

template <>
struct EnumTable<Rubric> {
  static constexpr std::string_view name = "rubric";
  static constexpr EnumEntry<Rubric> entries[] = {{Rubric::behaviour, "behaviour"}, {Rubric::coherence, "coherence"}};
};

struct JudgeRequest {
  std::string prompt{};                  ///< what the model was asked
  std::string response{};                ///< what it said
  const Behaviour* behaviour = nullptr;  ///< for Rubric::behaviour
};

/// A score, or why there is none. A failed judgement is missing data: it is reported, and analyses bound what it could
/// have been; its row is never dropped.
struct Judgement {
  std::optional<double> score = {};
  std::string failure = {};
  bool unanswered = false;  ///< the judge could not be asked: no result; a run asks again when it is started again
};

/// Scores responses, from 1 to 5 unless `measure` says otherwise.
class Judge {
 public:
  virtual ~Judge() = default;
  /// What the scores depend on (model, settings), for journals and reports.
  virtual std::string identity() const = 0;
  /// What a reader of its scores must know, in a sentence; may be empty.
  virtual std::string caveat() const { return {}; }
  /// Why no verdict may rest on this rubric's scores, where the judge itself knows; empty when one may.
  virtual std::string unfit(Rubric) const { return {}; }
  /// The name of this rubric's scores in results. A judge whose numbers are no scores of 1 to 5 calls them otherwise;
  /// nothing when it does not judge this rubric.
  virtual std::string measure(Rubric rubric) const { return std::string(to_string(rubric)); }
  /// One judgement a request, in order. @throws Error(io) when the judge cannot be reached at all: the run stops, and
  /// resumes where it was.
  virtual std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) = 0;
};

/// The instructions for a judge that is a language model: the rubric, and to reply with JSON `{"scores": [...]}`, one
/// number a criterion (behaviour) or one level (coherence).
std::string judge_prompt(Rubric rubric, const JudgeRequest& request);
/// The score in such a reply: the sum of points, at least 1, or the level. Prose, code fences and a closed thought
/// around it, keys per criterion, numbers as texts and trailing commas are understood; the last final object counts.
/// Nothing when the reply is cut off, of another form or out of range.
std::optional<double> parse_judgement(Rubric rubric, const JudgeRequest& request, std::string_view reply);

}  // namespace steer
