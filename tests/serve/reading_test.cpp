// Readings of the model's inside over HTTP, and other servers' steering shapes, against the same in process.

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <steer/features/attribution.hpp>
#include <steer/features/inspect.hpp>
#include <steer/features/neighbours.hpp>

#include "demo_server.hpp"
#include "support.hpp"

namespace {

using namespace steer_test;
using nlohmann::json;
using steer::Session;
using steer::Steering;

const std::string kText = "In the land of Pelia, what is the feast?";
const std::string kPoint = "blocks.1.hook_resid_post";

/// A direction to steer along, [128].
std::vector<float> direction() {
  std::vector<float> values(128);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 7) - 3;
  return values;
}

std::string base64(const std::vector<float>& values) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
  const std::size_t size = values.size() * sizeof(float);
  std::string text;
  for (std::size_t i = 0; i < size; i += 3) {
    unsigned bits = 0;
    for (std::size_t j = 0; j < 3; ++j) bits = bits << 8 | (i + j < size ? bytes[i + j] : 0U);
    for (std::size_t j = 0; j < 4; ++j) text += i + j <= size ? kDigits[bits >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

class ServeReading : public testing::Test {
 protected:
  static steer::ServerOptions options() {
    auto options = demo_options();
    options.saes[0].labels = labels();
    options.vectors["mood"] = {{steer::HookPoint(kPoint), at::tensor(direction(), at::kFloat)}};
    options.steerings["imaginative"] = Steering().nudge(demo_sae(), 330, 6);
    return options;
  }
  static steer::FeatureLabels labels() {
    static const steer::test::TempDir folder;
    static const auto labels = steer::FeatureLabels::import_neuronpedia(
        std::string(steer_source_dir()) + "/examples/data/demo/labels.jsonl", folder / "labels");
    return labels;
  }
  steer::Server server_{demo_model(), options()};
  int port() const { return server_.port(); }
  std::vector<std::int64_t> ids_ = demo_model().tokenizer().encode(kText);

  json ask(std::string_view path, const json& body) const {
    const auto answer = post(port(), path, body);
    EXPECT_EQ(answer.status, 200) << path << answer.body;
    return answer.status == 200 ? answer.json() : json();
  }
  std::string greedy(const Steering& steering) const {
    const steer::GenerateRequest request{.ids = ids_, .steering = steering};
    return steer::generate(demo_model(), std::span(&request, 1), {.max_tokens = 16}).front().text;
  }
  std::string asked(json extra) const {
    extra.update({{"prompt", kText}, {"max_tokens", 16}, {"temperature", 0}});
    const json answer = ask("/v1/completions", extra);
    return answer.is_null() ? "" : answer["choices"][0]["text"].get<std::string>();
  }
};

TEST_F(ServeReading, ActivationsAreTheSessionsOwn) {
  Session session(demo_model());
  const at::Tensor expected = session.run_with_cache(ids_, {kPoint})[kPoint];
  const json answer = ask("/v1/activations", {{"prompt", kText}, {"points", {kPoint}}, {"positions", {1, -1}}});
  const auto values = answer["activations"][kPoint]["values"].get<std::vector<float>>();
  ASSERT_EQ(values.size(), 256);
  const at::Tensor got = at::tensor(values).view({2, 128});
  EXPECT_TRUE(at::allclose(got[0], expected[1], 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(got[1], expected[-1], 1e-5, 1e-6));
  EXPECT_EQ(answer["tokens"][1]["id"], ids_.back());
}

TEST_F(ServeReading, FeaturesAreTheSaesOwn) {
  Session session(demo_model());
  const at::Tensor features = demo_sae().encode(session.run_with_cache(ids_, {kPoint})[kPoint]);
  const json top = ask("/v1/activations", {{"prompt", kText}, {"top", 3}})["features"];
  for (const auto& token : top["tokens"])
    for (const auto& entry : token["top"])
      EXPECT_NEAR(entry["value"].get<double>(),
                  features[token["position"].get<std::int64_t>()][entry["feature"].get<std::int64_t>()].item<double>(),
                  1e-4);
  const json chosen =
      ask("/v1/activations", {{"prompt", kText}, {"features", {330, 7}}, {"positions", {-2}}})["features"];
  EXPECT_NEAR(chosen["values"]["values"][0].get<double>(), features[-2][330].item<double>(), 1e-4);
}

TEST_F(ServeReading, TheLastLayersLensIsTheModelsOwnPrediction) {
  Session session(demo_model());
  const at::Tensor logits = session.forward(ids_, {.logits = steer::Logits::last})[0].log_softmax(-1);
  const json answer = ask("/v1/logit_lens", {{"prompt", kText}, {"top", 4}});
  EXPECT_EQ(answer["layers"].size(), 4);
  const json last = answer["layers"].back()["positions"][0]["top"];
  EXPECT_EQ(last[0]["id"], logits.argmax().item<std::int64_t>());
  EXPECT_NEAR(last[0]["logprob"].get<double>(), logits.max().item<double>(), 1e-4);
}

TEST_F(ServeReading, FeatureToolsAnswerAsInProcess) {
  const json hits = ask("/v1/features/search", {{"query", "imaginative"}, {"top", 5}})["features"];
  EXPECT_FALSE(hits.empty());
  const auto near = steer::neighbours_by_decoder(demo_sae(), 330, 4);
  const json neighbours = ask("/v1/features/neighbours", {{"feature", 330}, {"top", 4}})["features"];
  for (std::size_t i = 0; i < near.size(); ++i) EXPECT_EQ(neighbours[i]["feature"], near[i].feature);
  Session session(demo_model());
  const auto inspection = steer::inspect_features(session, demo_sae(), ids_);
  const json inspected = ask("/v1/features/inspect", {{"prompt", kText}});
  EXPECT_EQ(inspected["features"][0]["feature"], inspection.features[0].feature);
  const auto metric = steer::sequence_log_probability(ids_, std::ssize(ids_) - 1, std::ssize(ids_));
  const auto attribution = steer::attribute_features(session, demo_sae(), ids_, metric);
  const json effects = ask("/v1/features/attribute", {{"prompt", kText}, {"top", 3}});
  EXPECT_NEAR(effects["metric"].get<double>(), attribution.metric, 1e-4);
  EXPECT_NEAR(effects["features"][0]["effect"].get<double>(),
              attribution.effect[effects["features"][0]["feature"].get<std::int64_t>()].item<double>(), 1e-4);
  const json differ = ask("/v1/features/contrast", {{"positive", {"a dream of lanterns", "moon and dream"}},
                                                    {"negative", {"the list has names", "the option is A"}}});
  EXPECT_EQ(differ["features"].size(), 20);
  EXPECT_EQ(call(port(), "GET", "/v1/features/330").json()["promoted"].size(), 10);
  EXPECT_EQ(call(port(), "GET", "/v1/features/768").status, 404);
  EXPECT_EQ(post(port(), "/v1/features/neighbours", {{"feature", 768}}).status, 400);
  EXPECT_EQ(post(port(), "/v1/activations", {{"prompt", kText}, {"points", {"blocks.9.hook_resid_post"}}}).status, 400);
}

TEST_F(ServeReading, EveryWayToNameASteeringIsTheSameSteering) {
  const std::string plain = greedy({});
  const Steering nudge = Steering().nudge(demo_sae(), 330, 6);
  EXPECT_NE(greedy(nudge), plain);
  EXPECT_EQ(asked({{"steering", "imaginative"}}), greedy(nudge));
  EXPECT_EQ(asked({{"steering", {{"name", "imaginative"}, {"strength", 0.5}}}}), greedy(nudge.scaled(0.5)));
  EXPECT_EQ(asked({{"steering", false}}), plain);
  const auto most = labels().max_activation(330);
  if (most) {
    EXPECT_EQ(asked({{"steering", {{"feature", 330}, {"strength", 0.6}, {"unit", "max_activation"}}}}),
              greedy(Steering().nudge(demo_sae(), 330, 0.6 * *most)));
  }
  const Steering add = Steering().add(at::tensor(direction(), at::kFloat), kPoint, 0.4);
  EXPECT_EQ(asked({{"steering", {{"vector", base64(direction())}, {"point", kPoint}, {"strength", 0.4}}}}),
            greedy(add));
  EXPECT_EQ(asked({{"steering", {{"vector", "mood"}, {"strength", 0.4}}}}), greedy(add));
  EXPECT_EQ(asked({{"steering", {"imaginative", {{"vector", "mood"}, {"strength", 0.4}}}}}), greedy(nudge + add));
}

TEST_F(ServeReading, EasySteersAndVllmLensShapesAreUnderstood) {
  const Steering all =
      Steering().add(at::tensor(direction(), at::kFloat), kPoint, 0.4, {.scope = {.include_bos = true}});
  EXPECT_EQ(asked({{"steering",
                    {{"vectors",
                      {{{"source", "mood"},
                        {"scale", 0.4},
                        {"layers", {1}},
                        {"apply", {{"phases", {"prompt", "generation"}}}}}}}}}}),
            greedy(all));
  EXPECT_EQ(post(port(), "/v1/completions",
                 {{"prompt", "a"},
                  {"steering", {{"vectors", {{{"source", "/etc/passwd"}, {"apply", {{"phases", {"prompt"}}}}}}}}}})
                .status,
            404);
  const json tensor{{"data", base64(direction())}, {"dtype", "float32"}, {"shape", {1, 128}}};
  const json vectors = json::array({{{"activations", tensor}, {"layer_indices", {1}}, {"scale", 0.4}}});
  EXPECT_EQ(asked({{"vllm_xargs", {{"apply_steering_vectors", vectors}}}}), greedy(all));
  EXPECT_EQ(asked({{"vllm_xargs", {{"apply_steering_vectors", vectors.dump()}}}}), greedy(all));

  const json answer = ask("/v1/completions", {{"prompt", kText},
                                              {"max_tokens", 3},
                                              {"temperature", 0},
                                              {"ignore_eos", true},
                                              {"vllm_xargs", {{"output_residual_stream", {1, 3}}}}});
  const json shape = answer["activations"]["residual_stream"]["shape"];
  EXPECT_EQ(shape, json({2, ids_.size() + 2, 128}));  // the last token drawn has had no pass
}

}  // namespace
