#include <steer/eval/model_judge.hpp>

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include <steer/eval/pairwise.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/model/session.hpp>
#include <steer/text/tokenizer.hpp>

#include "eval/judge/local_judge.hpp"
#include "support.hpp"

namespace steer {
namespace {

/// A model whose next-token probabilities are chosen: all embeddings are ones, attention and MLP add nothing, so the
/// normalised residual is ones too and a token's logit is the sum of its unembedding row.
Model chosen_logits(const std::map<std::string, double>& logits, double others) {
  const Tokenizer tokenizer = Tokenizer::load(std::filesystem::path(STEER_SOURCE_DIR) / "examples/data/demo");
  constexpr std::int64_t width = 8, mlp = 4;
  const auto vocabulary = static_cast<std::int64_t>(tokenizer.vocab_size());
  at::Tensor unembedding = at::full({vocabulary, width}, others / width);
  for (const auto& [text, logit] : logits)
    unembedding[tokenizer.encode(text, {.add_special = false}).back()] = logit / width;
  const std::string layer = "model.layers.0.";
  std::vector<std::pair<std::string, at::Tensor>> tensors{{"model.embed_tokens.weight", at::ones({vocabulary, width})},
                                                          {"model.norm.weight", at::ones({width})},
                                                          {"lm_head.weight", unembedding}};
  for (const char* name : {"input_layernorm", "post_attention_layernorm"})
    tensors.emplace_back(layer + name + ".weight", at::ones({width}));
  for (const char* name : {"q", "k", "v", "o"})
    tensors.emplace_back(layer + "self_attn." + name + "_proj.weight", at::zeros({width, width}));
  for (const char* name : {"gate", "up"})
    tensors.emplace_back(layer + "mlp." + name + "_proj.weight", at::zeros({mlp, width}));
  tensors.emplace_back(layer + "mlp.down_proj.weight", at::zeros({width, mlp}));
  const nlohmann::json config = {{"model_type", "llama"},
                                 {"hidden_size", width},
                                 {"num_hidden_layers", 1},
                                 {"num_attention_heads", 2},
                                 {"intermediate_size", mlp},
                                 {"vocab_size", vocabulary},
                                 {"max_position_embeddings", 4096},
                                 {"rms_norm_eps", 1e-12},
                                 {"rope_theta", 10000.0},
                                 {"hidden_act", "silu"},
                                 {"tie_word_embeddings", false},
                                 {"bos_token_id", 1},
                                 {"eos_token_id", 2}};
  return Model::from_tensors(ModelConfig::from_hugging_face(config),
                             *tensors_in_memory(std::move(tensors), nlohmann::json::object()), {}, tokenizer);
}

std::vector<Judgement> judge_one(const Model& model, Rubric rubric, std::size_t count = 1) {
  const Behaviour funny = select_behaviours(study_behaviours(), {"funny"}).at(0);
  const std::vector<JudgeRequest> requests(count, {"What is 2 + 2?", "Four, said the duck.", &funny});
  return logit_judge(model)->judge(rubric, requests);
}

TEST(LogitJudge, GivesTheExpectedDigit) {
  // Probabilities 1 : 2 : 3 : 4 : 5 of the digits 1 to 5, others e^-20: (1 + 4 + 9 + 16 + 25) / 15.
  std::map<std::string, double> rising, certain;
  for (int digit = 1; digit <= 5; ++digit) rising[std::to_string(digit)] = std::log(digit);
  for (const Rubric rubric : {Rubric::behaviour, Rubric::coherence}) {
    const auto judgements = judge_one(chosen_logits(rising, -20), rubric, 20);
    ASSERT_EQ(judgements.size(), 20u) << "more than one batch";
    for (const auto& judgement : judgements) EXPECT_NEAR(judgement.score.value(), 55.0 / 15, 1e-5);
  }
  EXPECT_NEAR(judge_one(chosen_logits({{"4", 10}}, -20), Rubric::coherence)[0].score.value(), 4, 1e-5);
  // Only the digits count: half of the probability elsewhere changes nothing.
  const double half = std::log(15.0 / 2);
  EXPECT_NEAR(
      judge_one(chosen_logits({{"1", 0}, {"5", 0}, {"2", -30}, {"3", -30}, {"4", -30}}, -20), Rubric::coherence)[0]
          .score.value(),
      3, 1e-5);
  rising["x"] = half;
  EXPECT_NEAR(judge_one(chosen_logits(rising, -20), Rubric::coherence)[0].score.value(), 55.0 / 15, 1e-5);
}

/// Prompts that begin alike, and one that is another's beginning, each against a pass of its own.
TEST(TokenChooser, EachPromptCountsAloneWhateverItSharesWithOthers) {
  const Model model = Model::load(std::filesystem::path(STEER_SOURCE_DIR) / "examples/data/demo");
  const std::string head = "In the land of Pelia they hold a feast when the winter is over, and all the people come. ";
  std::vector<std::string> prompts{"Say A or B.", head + "Say A or B.", head + "Is it A, or is it B? Say one.", head};
  for (int i = 0; i < 40; ++i) prompts.push_back(head + std::string(static_cast<std::size_t>(i), 'A') + " or B?");
  const eval::detail::TokenChooser chooser(model, {"A", "B"}, "test");
  const auto chosen = chooser.choose(prompts);
  ASSERT_EQ(chosen.size(), prompts.size());
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    Session session(model);
    const auto ids = model.chat().render({{Role::user, prompts[i]}}).ids;
    const at::Tensor p = session.forward(ids, {.logits = Logits::last}).to(at::kDouble).softmax(-1)[0];
    ASSERT_EQ(chosen[i].size(), 2u);
    EXPECT_EQ(chooser.choose(std::span(prompts).subspan(i, 1))[0], chosen[i]) << "to the bit";
    for (std::size_t option = 0; option < 2; ++option) {
      const auto id = model.tokenizer().encode(option == 0 ? "A" : "B", {.add_special = false}).back();
      const double alone = p[id].item<double>();
      EXPECT_NEAR(chosen[i][option], alone, 1e-6 * alone) << prompts[i];
    }
  }
}

TEST(TokenChooser, LogitsThatAreNotFiniteAreAnErrorThatNamesThePrompt) {
  EXPECT_STEER_ERROR(judge_one(chosen_logits({{"4", 2e39}}, 0), Rubric::behaviour), ErrorCode::argument, "prompt 0");
}

TEST(LogitJudge, AModelThatWantsNoDigitGivesNoScore) {
  std::map<std::string, double> shy;
  for (int digit = 1; digit <= 5; ++digit) shy[std::to_string(digit)] = -10;
  const auto judgement = judge_one(chosen_logits(shy, 0), Rubric::behaviour).at(0);
  EXPECT_FALSE(judgement.score.has_value());
  EXPECT_NE(judgement.failure.find("less than 1 %"), std::string::npos);
}

TEST(RequestEvidence, IsNoScoreAndKnowsNothingOfAFlatModel) {
  // Every token is equally likely whatever was asked: no evidence of any request.
  const Behaviour funny = select_behaviours(study_behaviours(), {"funny"}).at(0);
  const JudgeRequest request{"What is 2 + 2?", "Four, said the duck.", &funny}, silence{"What is 2 + 2?", "", &funny};
  const auto evidence = request_evidence(chosen_logits({}, 0));
  EXPECT_EQ(evidence->measure(Rubric::behaviour), "request_evidence") << "never taken for a score of behaviour";
  EXPECT_EQ(evidence->measure(Rubric::coherence), "") << "fluency is not coherence";
  EXPECT_NEAR(evidence->judge(Rubric::behaviour, {&request, 1})[0].score.value(), 0, 1e-5);
  EXPECT_FALSE(evidence->judge(Rubric::behaviour, {&silence, 1})[0].score.has_value());
  EXPECT_FALSE(evidence->judge(Rubric::coherence, {&request, 1})[0].score.has_value());
  EXPECT_STEER_ERROR(request_evidence(chosen_logits({}, 0), study_behaviours(), {.trim = 0.5}), ErrorCode::argument,
                     "trim");
}

TEST(RequestEvidence, IsTheTrimmedMeanOfTheLogRatios) {
  const Model model = Model::load(std::filesystem::path(STEER_SOURCE_DIR) / "examples/data/demo");
  const auto behaviours = select_behaviours(study_behaviours(), {"funny", "technical", "concise"});
  const std::string prompt = "In the land of Pelia, what is the feast?",
                    text = "The feast of Pelia is Krulmow, they say.";
  const JudgeRequest request{prompt, text, &behaviours[1]};
  const double got = request_evidence(model, behaviours, {.others = 2, .trim = 0.2})
                         ->judge(Rubric::behaviour, {&request, 1})[0]
                         .score.value();
  // The slow way: the whole text under each system prompt, a token at a time.
  const auto log_p = [&](const std::string& system) {
    auto ids = model.chat().render({{Role::system, system}, {Role::user, prompt}}).ids;
    const auto tail = model.tokenizer().encode(text, {.add_special = false, .parse_special = false});
    std::vector<double> each;
    for (const auto id : tail) {
      Session session(model);
      const auto sequence = session.open();
      const at::Tensor p = session.step({{sequence, ids, Phase::prompt}}).log_softmax(-1);
      each.push_back(p[0][id].item<double>());
      ids.push_back(id);
    }
    return each;
  };
  std::vector<double> ratios = log_p(system_prompt(behaviours[1]));
  for (const std::string& other : {"When answering, please do the opposite of this: " + behaviours[1].instruction + ".",
                                   system_prompt(behaviours[2]), system_prompt(behaviours[0])}) {
    const auto theirs = log_p(other);
    for (std::size_t t = 0; t < ratios.size(); ++t) ratios[t] -= theirs[t] / 3;
  }
  std::sort(ratios.begin(), ratios.end());
  const std::size_t cut = ratios.size() / 5;
  double sum = 0;
  for (std::size_t t = cut; t < ratios.size() - cut; ++t) sum += ratios[t];
  EXPECT_NEAR(got, sum / static_cast<double>(ratios.size() - 2 * cut), 1e-4);
  EXPECT_GT(std::abs(got), 1e-3) << "the requests differ to this model";
}

TEST(PairJudge, AsksInBothOrdersSoThatPlaceDoesNotCount) {
  const Behaviour funny = select_behaviours(study_behaviours(), {"funny"}).at(0);
  // A model that says "A" three times as often as "B", whatever it reads.
  const auto judge = pair_judge(chosen_logits({{"A", std::log(3)}, {"B", 0}}, -20));
  const std::vector<PairRequest> requests{{"?", "one", "another", &funny}, {"?", "same", "same", &funny}};
  for (const Contest contest : {Contest::behaviour, Contest::quality}) {
    const auto judgements = judge->compare(contest, requests);
    EXPECT_NEAR(judgements[0].score.value(), 0.5, 1e-6);
    EXPECT_NEAR(judgements[0].position, 0.5, 1e-5) << "three quarters for the first place";
    EXPECT_EQ(judgements[1].score, 0.5);
    EXPECT_EQ(judgements[1].position, 0) << "equal answers are not asked about";
  }
  const auto shy = pair_judge(chosen_logits({{"A", -10}, {"B", -10}}, 0))->compare(Contest::quality, requests);
  EXPECT_FALSE(shy[0].score.has_value());
  EXPECT_NE(shy[0].failure.find("less than 1 %"), std::string::npos);
}

}  // namespace
}  // namespace steer
