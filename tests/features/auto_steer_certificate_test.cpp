#include "features/auto_steer_certificate.hpp"
#include "core/format_text.hpp"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "support.hpp"

namespace steer {
namespace {

using features::detail::OpenedAnswer;

const std::filesystem::path demo = std::filesystem::path(STEER_SOURCE_DIR) / "examples/data/demo";

std::vector<ChoiceQuestion> questions(const char* file, std::size_t count) {
  std::vector<ChoiceQuestion> result;
  std::ifstream lines(demo / file);
  for (std::string line; result.size() < count && std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    ChoiceQuestion question{.message = json["question"], .choices = {"A", "B", "C", "D"}};
    for (std::size_t c = 0; c < 4; ++c)
      question.message += format_text("\n{}. {}", question.choices[c], json["choices"][c].get<std::string>());
    question.message +=
        "\n\nThink step by step inside <thinking> tags, then give the letter of the right choice, and nothing else, "
        "inside <answer> tags.";
    question.right = json["answer"].get<std::string>()[0] - 'A';
    result.push_back(question);
  }
  return result;
}

std::vector<std::int64_t> prompt_of(const Model& model, const ChoiceQuestion& question) {
  return model.chat().render({{Role::user, question.message}}).ids;
}

TEST(AutoSteerCertificate, AnswersAreOpenedWhereTheyChoose) {
  const Model model = Model::load(demo);
  const auto answer = [&](std::string text) {
    GenerateResult result;
    result.ids = model.tokenizer().encode(text, {.add_special = false});
    result.text = text;
    return result;
  };
  const auto opened = [&](std::string text) {
    const OpenedAnswer found = features::detail::open_answer(model.tokenizer(), answer(std::move(text)), {});
    return std::pair(model.tokenizer().decode(found.ids), found.formed);
  };
  EXPECT_EQ(opened("<thinking> It is Kingate.</thinking> <answer>B</answer>"),
            std::pair(std::string("<thinking> It is Kingate.</thinking> <answer>"), true));
  // Cut off while thinking, or before the letter's tag: completed.
  EXPECT_EQ(opened("<thinking> It is Kin"), std::pair(std::string("<thinking> It is Kin</thinking><answer>"), false));
  EXPECT_EQ(opened("<thinking> It is Kingate.</thinking>"),
            std::pair(std::string("<thinking> It is Kingate.</thinking><answer>"), false));
}

// Against logits of whole passes, the steering added by a hook of the test's own.
TEST(AutoSteerCertificate, ProbabilityIsThatOfTheLetterAfterTheThinking) {
  const Model model = Model::load(demo);
  const auto asked = questions("questions_dev.jsonl", 4);
  at::manual_seed(3);
  const at::Tensor vector = 3 * at::randn({128});
  const HookPoint point = HookPoint::parse("blocks.1.hook_resid_post");
  Steering steering;
  steering.add(vector, point, 1, {.scope = {.where = Where::generated}});
  std::vector<const ChoiceQuestion*> pointers;
  std::vector<OpenedAnswer> answers;
  const auto thought = model.tokenizer().encode("<thinking> I think so.</thinking> <answer>", {.add_special = false});
  for (const auto& question : asked) pointers.push_back(&question), answers.push_back({thought, true});
  std::vector<std::int64_t> letters;
  for (const char* letter : {"<answer>A", "<answer>B", "<answer>C", "<answer>D"})
    letters.push_back(model.tokenizer().encode(letter, {.add_special = false}).back());
  Session session(model);
  for (const bool steered : {false, true})
    for (const double temperature : {1.0, 0.6}) {
      const auto found = features::detail::right_probabilities(
          model, pointers, answers, {}, steered ? std::optional(steering) : std::nullopt, temperature);
      for (std::size_t q = 0; q < asked.size(); ++q) {
        auto ids = prompt_of(model, asked[q]);
        const auto prompt = std::ssize(ids);
        ids.insert(ids.end(), thought.begin(), thought.end());
        HookHandle hook;
        if (steered) hook = session.hook(point, [&](HookContext& at) { at.value.slice(0, prompt).add_(vector); });
        const at::Tensor last = session.forward(ids)[-1].to(at::kDouble).index_select(0, at::tensor(letters));
        const double expected =
            at::softmax(last / temperature, 0)[static_cast<std::int64_t>(asked[q].right)].item<double>();
        EXPECT_NEAR(found[q], expected, 1e-3) << q << " " << steered << " " << temperature;
      }
    }
  // At temperature 0 the likeliest has all.
  for (double p : features::detail::right_probabilities(model, pointers, answers, {}, {}, 0))
    EXPECT_TRUE(p == 0 || p == 1) << p;
}

AutoSteerOptions options_with(const Model& model, std::size_t certificate) {
  AutoSteerOptions options{.max_tokens = 96, .candidates = 6, .features = 2};
  const auto all = questions("questions_dev.jsonl", 12);
  std::vector<std::string> right;
  for (std::size_t q = 0; q < all.size(); ++q) {
    if (q < 6) {
      options.prompts.push_back(all[q].message);
    } else {
      options.capability.prompts.push_back(prompt_of(model, all[q]));
      right.push_back("<answer>" + all[q].choices[all[q].right] + "</answer>");
    }
  }
  options.capability.score = [right](std::size_t i, const GenerateResult& result) {
    return CapabilityScore{result.text.find(right[i]) != std::string::npos,
                           result.text.find("<answer>") != std::string::npos};
  };
  options.certificate.questions = questions("questions.jsonl", certificate);
  return options;
}

TEST(AutoSteerCertificate, WhatIsCertifiedIsReturnedAndSaidSo) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  auto options = options_with(model, 24);
  options.others = {"funny", "technical"};
  options.certificate.accuracy_loss = options.certificate.format_loss = options.certificate.off_target = 0.5;
  const auto result = AutoSteer(model, sae, options).find("funny");
  ASSERT_EQ(result.verdict, AutoSteerVerdict::steered) << result.explain();
  ASSERT_TRUE(result.certificate.has_value());
  ASSERT_GE(result.certificate->certified, 0);
  EXPECT_EQ(result.certificate->tested.front().risks.size(), 3u);
  EXPECT_NE(result.reason.find(result.certificate->sentence()), std::string::npos);
  EXPECT_FALSE(result.steering.empty());
  EXPECT_EQ(result.steering, result.trials[static_cast<std::size_t>(result.chosen)].steering);
}

// A control variate moves no mean over all questions asked, only how they are spread.
TEST(AutoSteerCertificate, AControlVariateLeavesTheMeanLossWhereItIs) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  const auto found = [&](double weight, std::size_t population) {
    auto options = options_with(model, 12);  // one batch: all are asked
    options.certificate.accuracy_loss = options.certificate.format_loss = 0.9;
    options.certificate.multiples = {1};
    options.certificate.control_variate = weight;
    const auto all = questions("questions.jsonl", 12 + population);
    options.certificate.population.assign(all.begin() + 12, all.end());
    return AutoSteer(model, sae, options).find("funny");
  };
  const auto plain = found(0, 0), adjusted = found(1, 0), wider = found(1, 8);
  ASSERT_TRUE(plain.certificate && adjusted.certificate && wider.certificate) << plain.explain();
  const auto& before = plain.certificate->tested.front().risks.front();
  const auto& after = adjusted.certificate->tested.front().risks.front();
  EXPECT_EQ(plain.certificate->tested.front().asked, 12);
  EXPECT_NEAR(after.mean_loss, before.mean_loss, 1e-9);
  EXPECT_NE(after.p, before.p) << "but the losses are others";
  EXPECT_NE(adjusted.certificate->sentence().find("12 questions by a control variate"), std::string::npos)
      << adjusted.certificate->sentence();
  EXPECT_NE(wider.certificate->sentence().find("20 questions by a control variate"), std::string::npos);
  EXPECT_NE(wider.certificate->tested.front().risks.front().mean_loss, before.mean_loss)
      << "the population's questions are harder or easier";
  auto options = options_with(model, 12);
  options.certificate.control_variate = 2;
  EXPECT_STEER_ERROR(AutoSteer(model, sae, options), ErrorCode::argument, "control variate");
}

TEST(AutoSteerSafe, TriesVectorsAtOtherLayersAndTheReplacementInSmallerSteps) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  auto options = options_with(model, 0);
  options.points = {HookPoint::parse("blocks.2.hook_resid_post")};
  options.effects = {0.1, 0.4};
  const auto result = AutoSteer(model, sae, options).find("funny");
  std::vector<double> ladder;
  bool elsewhere = false;
  for (const auto& trial : result.trials) {
    if (trial.form == "replace the request") ladder.push_back(trial.target);
    if (trial.form != "add the mean difference while thinking at blocks.2.hook_resid_post") continue;
    elsewhere = true;
    for (const auto& edit : trial.steering.edits()) EXPECT_EQ(edit.point, options.points[0]);
  }
  EXPECT_TRUE(elsewhere) << result.explain();
  ASSERT_EQ(ladder.size(), 3u) << result.explain();
  EXPECT_NEAR(ladder[1], 0.2, 1e-12) << "midway in the logarithm";
}

TEST(AutoSteerCertificate, WithTooFewQuestionsNothingIsCertifiedAndNothingSteered) {
  const Model model = Model::load(demo);
  const Sae sae = Sae::load(demo / "sae.safetensors");
  auto options = options_with(model, 12);  // 149 are needed for 2 points
  const auto result = AutoSteer(model, sae, options).find("funny");
  ASSERT_EQ(result.verdict, AutoSteerVerdict::not_certified) << result.explain();
  EXPECT_TRUE(result.steering.empty());
  ASSERT_TRUE(result.certificate.has_value());
  EXPECT_EQ(result.certificate->certified, -1);
  EXPECT_NE(result.reason.find("othing certified"), std::string::npos) << result.reason;
}

}  // namespace
}  // namespace steer
