#include <steer/eval/model_judge.hpp>

#include <ATen/Functions.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include <steer/io/tensor_reader.hpp>
#include <steer/text/tokenizer.hpp>

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

TEST(LogitJudge, AModelThatWantsNoDigitGivesNoScore) {
  std::map<std::string, double> shy;
  for (int digit = 1; digit <= 5; ++digit) shy[std::to_string(digit)] = -10;
  const auto judgement = judge_one(chosen_logits(shy, 0), Rubric::behaviour).at(0);
  EXPECT_FALSE(judgement.score.has_value());
  EXPECT_NE(judgement.failure.find("less than 1 %"), std::string::npos);
}

TEST(LikelihoodJudge, KnowsNothingOfAModelThatIsSurprisedByAllAlike) {
  // Every token is equally likely whatever was asked: no evidence of the request, and log V nats a token.
  const Model flat = chosen_logits({}, 0);
  const Behaviour funny = select_behaviours(study_behaviours(), {"funny"}).at(0);
  const JudgeRequest request{"What is 2 + 2?", "Four, said the duck.", &funny};
  const auto judge = likelihood_judge(flat);
  EXPECT_NEAR(judge->judge(Rubric::behaviour, {&request, 1})[0].score.value(), 3, 1e-4);
  const double nll = std::log(static_cast<double>(flat.config().vocab_size));
  EXPECT_NEAR(judge->judge(Rubric::coherence, {&request, 1})[0].score.value(), 1 + 4 / (1 + nll * nll / 4), 1e-4);
}

}  // namespace
}  // namespace steer
