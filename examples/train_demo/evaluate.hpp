#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <steer/core/progress.hpp>
#include <steer/model/model.hpp>
#include <steer/sae/sae.hpp>

#include "autoencoder.hpp"
#include "world.hpp"

namespace steer::demo {

/// Answers to one set of prompts, as shares of them.
struct AnswerQuality {
  double accuracy = 0;   ///< strict: the first <answer> holds the right letter alone
  double formatted = 0;  ///< <answer> holds one letter
  double behaviour = 0;  ///< the judge says it is the behaviour in question
};

/// What the demo can do with one behaviour.
struct BehaviourReport {
  std::string behaviour;
  AnswerQuality control;      ///< nothing asked
  AnswerQuality prompted;     ///< asked for by the experiment's system prompt
  std::string telltale;       ///< the word that gives it away most often, among prompted answers
  double telltale_share = 0;  ///< and how often
  std::int64_t feature = -1;  ///< the single feature whose nudge moves it most, without any prompt
  std::string feature_label;
  double strength = 0;  ///< in units of the feature's maximum activation
  AnswerQuality nudged;
  std::string sample;  ///< a prompted answer
};

struct DemoReport {
  AnswerQuality plain;  ///< no system prompt; `behaviour` unused
  std::vector<BehaviourReport> behaviours;
  AutoencoderQuality autoencoder;
  std::int64_t questions = 0, nudged_questions = 0;
};

struct EvaluateOptions {
  std::int64_t questions = 171;       ///< held-out test questions answered in each arm
  std::int64_t fit_questions = 60;    ///< dev questions whose answers the judge is fitted on, a behaviour
  std::int64_t probe_questions = 24;  ///< dev questions on which feature and strength are chosen
  std::int64_t features = 10;         ///< candidate features a behaviour, by what they do alone
  std::vector<double> strengths = {2, 4, 6, 9};
  std::uint64_t seed = 42;
};

/// Measures the demo through the library's public interface alone, at the experiment's temperature 0.6 and top-p 0.9.
DemoReport evaluate(const Model& model, const Sae& sae, const World& world, const Corpus& corpus,
                    const std::vector<FeatureNote>& notes, const EvaluateOptions& options, Progress progress);

/// The model card, in Markdown.
std::string model_card(const DemoReport& report, const Model& model, const Sae& sae, const std::string& provenance);

}  // namespace steer::demo
