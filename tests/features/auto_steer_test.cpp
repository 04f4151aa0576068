#include <steer/features/auto_steer.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include <steer/io/journal.hpp>
#include <steer/io/tensor_reader.hpp>

#include "core/format_text.hpp"
#include "support.hpp"

namespace steer {
namespace {

const std::filesystem::path demo = std::filesystem::path(STEER_SOURCE_DIR) / "examples/data/demo";

std::string question_text(const nlohmann::json& question) {
  std::string text = question["question"];
  int i = 0;
  for (const auto& choice : question["choices"])
    text += format_text("\n{}. {}", "ABCD"[i++], choice.get<std::string>());
  return text +
         "\n\nThink step by step inside <thinking> tags, then give the letter of the right choice, and nothing else, "
         "inside <answer> tags.";
}

AutoSteerOptions demo_options(const Model& model, std::size_t prompts = 6, std::size_t capability = 10) {
  AutoSteerOptions options{.max_tokens = 96};
  std::vector<std::string> answers;
  std::ifstream file(demo / "questions_dev.jsonl");
  std::string line;
  for (std::size_t i = 0; i < prompts + capability && std::getline(file, line); ++i) {
    const auto question = nlohmann::json::parse(line);
    if (i < prompts) {
      options.prompts.push_back(question_text(question));
    } else {
      options.capability.prompts.push_back(model.chat().render({{Role::user, question_text(question)}}).ids);
      answers.push_back("<answer>" + question["answer"].get<std::string>() + "</answer>");
    }
  }
  options.capability.score = [answers](std::size_t i, const GenerateResult& result) {
    return CapabilityScore{result.text.find(answers[i]) != std::string::npos,
                           result.text.find("<answer>") != std::string::npos};
  };
  return options;
}

/// For tests of what does not depend on how much was tried.
AutoSteerOptions quick_options(const Model& model) {
  auto options = demo_options(model, 4, 4);
  options.candidates = 6;
  options.features = 2;
  return options;
}

TEST(AutoSteer, FindsASteeringThatKeepsToItsBounds) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  AutoSteer search(model, sae, demo_options(model));
  const auto result = search.find("funny", AutoSteerMode::safe);
  ASSERT_EQ(result.verdict, AutoSteerVerdict::steered) << result.explain();
  EXPECT_GT(result.score_asked, result.score_unsteered);
  const auto& chosen = result.trials[static_cast<std::size_t>(result.chosen)];
  EXPECT_TRUE(chosen.within_bounds);
  EXPECT_EQ(chosen.steering, result.steering);
  EXPECT_GE(chosen.accuracy, result.accuracy_unsteered - 0.02 - 1e-9);
  for (const auto& trial : result.trials)
    EXPECT_TRUE(!trial.within_bounds || trial.behaviour <= chosen.behaviour) << trial.form;
  for (const auto& candidate : result.candidates)
    EXPECT_FALSE(candidate.dropped.empty() &&
                 std::ranges::find(chosen.features, candidate.feature) == chosen.features.end());

  const auto published = search.find("funny", AutoSteerMode::published);
  std::int64_t sets = 0, placebos = 0;
  double best = -1e9, best_placebo = -1e9;
  for (const auto& trial : published.trials) {
    ASSERT_LE(trial.steering.edits().size(), 3u);
    const bool whole = trial.nll_gain <= 1 && trial.dropped.find("loop") == std::string::npos;
    if (trial.form != "nudge everywhere") {
      ++placebos;
      if (whole) best_placebo = std::max(best_placebo, trial.behaviour);
      continue;
    }
    ++sets;
    if (whole) best = std::max(best, trial.behaviour);
    double sum = 0;
    for (const Edit& edit : trial.steering.edits()) {
      EXPECT_EQ(edit.unit, StrengthUnit::max_activation);
      sum += std::abs(edit.number("value"));
    }
    EXPECT_NEAR(sum, 1.1, 1e-9);
    // Its placebo changes the model's distributions as much.
    EXPECT_GT(trial.effect, 0);
    EXPECT_TRUE(std::ranges::any_of(published.trials, [&](const auto& other) {
      return other.form != trial.form && other.features.size() == trial.features.size() &&
             std::abs(other.effect - trial.effect) <= 0.16 * trial.effect;
    })) << trial.effect;
  }
  EXPECT_EQ(sets, placebos);
  // It is chosen only where no random set of equal KL does as much.
  EXPECT_EQ(published.verdict,
            best > best_placebo ? AutoSteerVerdict::steered : AutoSteerVerdict::no_better_than_random)
      << published.explain();
  EXPECT_EQ(published.steering.empty(), published.verdict != AutoSteerVerdict::steered);
  ASSERT_GE(published.best_set, 0) << "whether it was chosen or not";
  EXPECT_EQ(published.trials[static_cast<std::size_t>(published.best_set)].form, "nudge everywhere");
  if (best > -1e9) {
    EXPECT_EQ(published.trials[static_cast<std::size_t>(published.best_set)].behaviour, best);
  }
  EXPECT_EQ(nlohmann::json::parse(published.to_json().dump())["mode"], "published");
}

TEST(AutoSteer, TheSameSeedFindsTheSame) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  const auto once = AutoSteer(model, sae, quick_options(model)).find("technical", AutoSteerMode::published);
  const auto again = AutoSteer(model, sae, quick_options(model)).find("technical", AutoSteerMode::published);
  EXPECT_EQ(once.to_json().dump(), again.to_json().dump());
  EXPECT_EQ(once.steering, again.steering);
}

TEST(AutoSteer, OneSearcherFindsTheSameForBothModes) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  AutoSteer both(model, sae, quick_options(model));
  both.find("technical", AutoSteerMode::published);
  EXPECT_EQ(both.find("technical", AutoSteerMode::safe).to_json().dump(),
            AutoSteer(model, sae, quick_options(model)).find("technical", AutoSteerMode::safe).to_json().dump());
}

// A kill leaves the journal as it was at some line, or within one.
TEST(AutoSteer, AnInterruptedSearchGoesOnAndFindsTheSame) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  test::TempDir dir;
  auto options = quick_options(model);
  const std::string whole = AutoSteer(model, sae, options).find("funny").to_json().dump();
  options.journal = dir / "search.jsonl";
  EXPECT_EQ(AutoSteer(model, sae, options).find("funny").to_json().dump(), whole);
  const auto records = Journal::read(options.journal);
  const std::string text = test::read_file(options.journal);
  for (const double share : {0.1, 0.8}) {
    std::ofstream(options.journal, std::ios::binary | std::ios::trunc)
        << text.substr(0, static_cast<std::size_t>(share * static_cast<double>(text.size())));
    EXPECT_LT(Journal::read(options.journal).size(), records.size());
    EXPECT_EQ(AutoSteer(model, sae, options).find("funny").to_json().dump(), whole) << share;
    EXPECT_EQ(Journal::read(options.journal), records);
  }
  // Kept answers are used: others in their place give another result.
  const std::string identity = nlohmann::json::parse(text.substr(0, text.find('\n')))["record"].dump();
  {
    Journal other(dir / "other.jsonl", identity);
    for (auto [key, record] : records) {
      auto json = nlohmann::json::parse(record);
      json["ids"].erase(json["ids"].size() / 2);
      other.append({key, json.dump()});
    }
  }
  options.journal = dir / "other.jsonl";
  EXPECT_NE(AutoSteer(model, sae, options).find("funny").to_json().dump(), whole);
  options.sampling.temperature = 0.7;
  EXPECT_STEER_ERROR(AutoSteer(model, sae, options), ErrorCode::config, "temperature was 0.6, is 0.7");
}

TEST(AutoSteer, ACancelledSearchEndsAndKeepsNoHalfAnswer) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  test::TempDir dir;
  auto options = quick_options(model);
  const std::string whole = AutoSteer(model, sae, options).find("funny").to_json().dump();
  options.journal = dir / "search.jsonl";
  std::int64_t asked = 0;
  for (const std::int64_t until : {0, 700, 5000}) {
    auto stopped = options;
    asked = 0;
    stopped.cancelled = [&] { return asked++ >= until; };
    EXPECT_STEER_ERROR(AutoSteer(model, sae, stopped).find("funny"), ErrorCode::cancelled, "cancelled");
    EXPECT_EQ(asked, until + 1) << "nothing was computed after the answer was yes";
  }
  EXPECT_EQ(AutoSteer(model, sae, options).find("funny").to_json().dump(), whole);
}

TEST(AutoSteer, EveryTrialSaysWhyItLost) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  const auto result = AutoSteer(model, sae, quick_options(model)).find("funny");
  std::set<std::string> measured_forms, forms;
  for (std::size_t t = 0; t < result.trials.size(); ++t) {
    EXPECT_EQ(result.trials[t].dropped.empty(), static_cast<std::int64_t>(t) == result.chosen) << result.trials[t].form;
    if (!result.trials[t].screened_out) forms.insert(result.trials[t].form);
    if (std::isfinite(result.trials[t].nll_gain)) measured_forms.insert(result.trials[t].form);
  }
  EXPECT_EQ(measured_forms, forms) << "each form that gains on the first tokens is measured in full at least once";
  const std::string svg = result.to_svg();
  const std::string words = std::regex_replace(svg, std::regex("</text>\\s*<text[^>]*>"), " ");  // titles have lines
  for (const auto& form : forms) EXPECT_NE(words.find(form), std::string::npos) << form;
  EXPECT_TRUE(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
}

TEST(AutoSteer, SaysSoWhenTheModelDoesNotKnowTheBehaviour) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  auto options = quick_options(model);
  options.max_tokens = 1;  // the opening tag, whatever is asked
  options.ask_opposite = "";
  const auto result = AutoSteer(model, sae, options).find("funny");
  EXPECT_EQ(result.verdict, AutoSteerVerdict::not_known) << result.explain();
  EXPECT_TRUE(result.steering.empty());
  EXPECT_NE(result.reason.find("may not know"), std::string::npos);
}

TEST(AutoSteer, SaysSoWhenNoSteeringIsNeeded) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  auto options = quick_options(model);
  options.enough = 0;  // any answer shows enough of it
  const auto result = AutoSteer(model, sae, options).find("funny");
  EXPECT_TRUE(result.steering.empty());
  EXPECT_TRUE(result.verdict == AutoSteerVerdict::not_needed || result.verdict == AutoSteerVerdict::not_known)
      << result.explain();
}

TEST(AutoSteer, SaysSoWhenNothingKeepsToTheBounds) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  auto options = demo_options(model, 4, 4);
  options.bounds = {.accuracy_loss = -2, .format_loss = 0, .loop_gain = 0, .nll_gain = 0, .kl = 0};
  const auto result = AutoSteer(model, sae, options).find("funny");
  EXPECT_EQ(result.verdict, AutoSteerVerdict::no_gain_in_bounds);
  EXPECT_TRUE(result.steering.empty());
  EXPECT_NE(result.reason.find("loosen CapabilityBounds"), std::string::npos);
}

TEST(AutoSteer, AnSaeOfAnotherModelIsSaidSoOrAnError) {
  std::ifstream file(demo / "config.json");
  ModelConfig named = ModelConfig::from_hugging_face(nlohmann::json::parse(file));
  named.name = "steer-demo";
  const Model model = Model::from_tensors(named, *open_tensors(demo), {}, Tokenizer::load(demo));
  const Sae own = Sae::load(demo / "sae.safetensors");
  SaeConfig config = own.config();
  config.model_name = "other-7b";
  const Sae sae = Sae::from_weights(config, {.W_enc = own.W_enc(),
                                             .b_enc = own.b_enc(),
                                             .W_dec = own.W_dec(),
                                             .b_dec = own.b_dec(),
                                             .threshold = own.threshold()});
  auto options = quick_options(model);
  options.candidates = 2;
  options.features = 1;
  options.max_tokens = 16;
  const auto result = AutoSteer(model, sae, options).find("funny");
  EXPECT_THAT(result.warnings, testing::ElementsAre(testing::HasSubstr("other-7b")));
  EXPECT_THAT(result.explain(), testing::HasSubstr("mind: ")) << "what programs print";
  options.on_warning = OnWarning::error;
  EXPECT_STEER_ERROR(AutoSteer(model, sae, options), ErrorCode::config, "other-7b");
}

TEST(AutoSteer, BadInputIsNamed) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  auto options = quick_options(model);
  EXPECT_STEER_ERROR(AutoSteer(model, sae, options).find(""), ErrorCode::argument, "empty");
  options.capability = {};
  EXPECT_STEER_ERROR(AutoSteer(model, sae, options).find("funny"), ErrorCode::config, "capability set");
  options.ask = "Be funny.";
  EXPECT_STEER_ERROR(AutoSteer(model, sae, options), ErrorCode::argument, "{} in the behaviour's place");
  options = quick_options(model);
  test::TempDir dir;
  FeatureLabels::write(dir / "labels", std::vector<FeatureRecord>{{.feature = 768, .explanations = {"another SAE's"}}});
  options.labels = FeatureLabels::open(dir / "labels");
  EXPECT_STEER_ERROR(AutoSteer(model, sae, options), ErrorCode::config, "at most 768 features");
  options = demo_options(model, 3, 4);
  EXPECT_STEER_ERROR(AutoSteer(model, sae, options), ErrorCode::argument, "at least 4 neutral prompts but got 3");
}

}  // namespace
}  // namespace steer
