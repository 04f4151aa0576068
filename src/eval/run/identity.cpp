#include "eval/run/identity.hpp"

#include <nlohmann/json.hpp>

#include <steer/core/hash.hpp>
#include <steer/core/version.hpp>

#include "eval/run/records.hpp"

namespace steer::eval::detail {

using nlohmann::ordered_json;

ordered_json arm_identity(const Arm& arm) {
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

ordered_json run_identity(const Experiment& experiment, const Model& model, const Judge* judge,
                          const PairJudge* pairs) {
  ContentHasher questions, behaviours;
  for (const auto& q : experiment.questions)
    questions.update(one_line(ordered_json{q.id, q.subject, q.text, q.choices, q.answer}));
  ordered_json names = ordered_json::array(), arms = ordered_json::array();
  for (const auto& b : experiment.behaviours) {
    ordered_json json;
    to_json(json, b);
    behaviours.update(one_line(json));
    names.push_back(b.name);
  }
  for (const auto& arm : experiment.arms) arms.push_back(arm_identity(arm));
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

}  // namespace steer::eval::detail
