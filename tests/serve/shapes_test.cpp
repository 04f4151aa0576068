// Shapes of other servers: vllm-lens's compressed tensors, Neuronpedia's steering routes.

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <random>

#include "core/format_text.hpp"
#include "demo_server.hpp"
#include "serve/fields.hpp"
#include "serve/zstd.hpp"

namespace {

using namespace steer_test;
using nlohmann::json;
using steer::Steering;
using steer::serve::detail::decode_base64;
using steer::serve::detail::decode_zstd;

const std::string kText = "In the land of Pelia, what is the feast?";
const std::string kPoint = "blocks.1.hook_resid_post";

// By the Python package zstandard 0.25: (arange(128) - 64) / 64 as float32 at level 1, and `apples()` at level 3.
const std::string kVectorFrame =
    "KLUv/WAAAa0IALYfQytwVTOsAeRYb9vH+iMik+lYb9vHurVmzjxz5pkzz/yIKMuceebMM2ee2UsBNwA1ADcAAZ/AN/BJPoKv4DP4Jt/Bh/AlfJRP"
    "4Vv4GD7L1/A5fA/f5YP4Ij6JD/NNfBRfxZf5LL6LD+N7Dm++sbx53mjecN50tptkm2yUzbJdNsyW2Z4tY9PYNjbNxrF1bB4bZ/vYQLaQrbOJbCNb"
    "gO8XU4BpZBKZOlPIBDJ9TJzJY+qYOCbNtDFpTBnTM2UmzHSZLBNlmkyS6ZXOFc4VzZXniuXKGZ4AnoVxXVwWV+aquCiuiQtzSVwRF8R1uR4uh6vh"
    "slwM18KlcFGuhAvhOrgml8FVcBFckmvgErgCrgEBAAECmAI=";
const std::string kTextFrame =
    "KLUv/WQBE1UqACpDBAgWsCWFDuBoAYsQgYaV2FJKmVKSOqMTAX4AdgB5AGuYV7U2oYFONFcwlRZVNaXZ6/POSA1CJBOiSy0rPWQ6r3+exxeeMnmP"
    "ue2RhA5PLvWgrhQp491UlJ3l4/Dioq/hcA+/OU5JTuwGwxrmizZEM/ND5fUFe473CtWRjhI4nJRlBNfwCd+MdDh7BQOCb0AAAQMDAMbFBAaLFQwI"
    "AuIJ9150VWkP1ZNiXUOvRCE84Q0xlITOFKoj1cWQKkLdJ9R0ZDoOpRLCO+86L7kbC91q55A2sHSz7P5HGR35QAdOysWKA3GIm5oYPORwMUILd9c5"
    "5xjlGcwJ3TTXUynlhiyLnOtkyYVUcIJ7sEGGmBAPkxDBVQGT6kRF1FoNRdQS0dBMJSFTMJn2oBJpHKGgoMknTM06paHZlMTIzEL5hER4/hDO+Iix"
    "BJl8pKSiZH1JPiMb8oiIzHcvLcvCofJX9lKCQgwphU/ashV6BX3DzgPJZ/bhr/wL1p/6e9Tvox+jfMUfE7wGlkfCkB04jroDMYHBwktIIyIcPRZW"
    "OKGEcKVQ53zknH0uqn8Fk0y5uOMJOsw5psoqFzTllPtfuhzZO5CruEjihww96SlJcneDDOEKUnBCneAfdJR+BENYWCpQ2OkJDOF6aNjhDWu4DBNh"
    "E36oqppDh4pqEVpSldpD+RLXWHWLWAGB5KjxMC/dur8BsYWEKIWYMx8RAK0SGGbdrB5MAU9huTwrzPtm9zGx02vPC8IUqBOLu+jZ1TGygiu7sTyA"
    "TA0mMYrVxepwMPW82r+seqw3Z3UwmGqKYmAF9spm3fg9PTf94vSfmwSKU+I22j3pvyov2vRNMY7Q0JvomHu36oCk4wRBUC1hTR5uB+6YhXX+uaWp"
    "nk0OtFohTW4vhhjm3fvEx2yEspk8Z3J7J8Qmb1dZZ/Cvz/9EgBdWa2jbfLl3Hboh7IMjwQ6DWF+1sAZ96dhNvs17FMe0ua/0HMLl5XUzOZ67u4QV"
    "TCbHacsjyGirfqyeKr3wfjgWVoYrtCbpPP8vnmkGSkpXRx9W+PbgCG6Y6W0Br5HWVahDQma3RgE3UvLfM03SgHgk9YkV9GKVdd2xEVBVMDgaLeY0"
    "HR5RIu6jqiVcwLQ6PWNSzqeDYSIk2h7SrozQVeeo4NiS4WIJdhR0se2uoyq0JKJBlCnScmfM6oahaY/dx1By90FngwXFxQfUzIGsxuqUO+fb8D5y"
    "fwomETGZTfTgrrMMmWKjN0prUKH/jUrDk4hYDvqbDlKkbsbh5sKTSUL9OG9ikNoIX5QCTiyAn4hoFCb/Ra13TfS5O8uN4Ckqqbq0X4RvYuKcS5Yq"
    "obMq2KnY4+raEVJGidM96vJhIc1ouE1i4+THa5vwIyyclwuJvcZCaeDkspBo6WYgRuRT7yY6+gYoL/FeNiT6Cl3igYdeWElK21SgOT9V9b5w2+qP"
    "+hFx6bf7tc7RhhF2+RKrkwisxXVLhqIEIwFuODcILsFOU+zMIHQ5tYXskyrh56o80PDFGzyC9k6upPqcTDwueiKVGjGMRvCrqhc3xGvcp6rusd92"
    "r45V1RYaVJieVD0AS2Tl+ZBKbWFBNX6q6h6wrY9la6BpNKgDxdbIAmgH8X/IKXe81Bete+6YCi+tK3c+9EXrnjsm9Y/WvOMImpL+Fl0rCSUUcmRm"
    "J6GS25uXgEtO7jwHk0z/1mJHmCV5Wb+vRl6y9awLS4h7KLJZahbAXMBqz/cNvihNiwAi0rsAg/OVhsfC9GZiGgGZ1Wykk/NyyqR7CjWvbYXpaHew"
    "ZjUw3J99aG8KGl9PDVMDZfSpeFVCH6bx";

at::Tensor vector() { return (at::arange(128, at::kFloat) - 64) / 64; }

std::string apples() {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    if (i > 0) text += ' ';
    text += i % 3 ? steer::format_text("{} apples", i * i) : steer::format_text("row {} of {}", i, i % 7);
  }
  return text;
}

TEST(Zstd, FramesOfTheReferenceAreRead) {
  const std::string bytes = decode_zstd(decode_base64(kVectorFrame, ""), 512);
  const at::Tensor wanted = vector().contiguous();
  ASSERT_EQ(bytes.size(), 512u);
  EXPECT_EQ(std::memcmp(bytes.data(), wanted.const_data_ptr<float>(), 512), 0);
  EXPECT_EQ(decode_zstd(decode_base64(kTextFrame, ""), 1 << 20), apples());
  EXPECT_THROW(decode_zstd(decode_base64(kTextFrame, ""), 5000), steer::Error) << "more than asked for";
}

TEST(Zstd, BrokenFramesAreRefused) {
  const std::string frame = decode_base64(kTextFrame, "");
  for (std::size_t size = 0; size < frame.size(); ++size)
    EXPECT_THROW(decode_zstd(frame.substr(0, size), 1 << 20), steer::Error) << size;
  EXPECT_THROW(decode_zstd(frame + "x", 1 << 20), steer::Error);
  std::mt19937 random(1);  // what neither the format nor the checksum sees changes nothing
  for (std::size_t at = 0; at < frame.size(); ++at) {
    std::string other = frame;
    other[at] = static_cast<char>(other[at] ^ 1 << random() % 8);
    try {
      EXPECT_EQ(decode_zstd(other, 1 << 20), apples()) << at;
    } catch (const steer::Error&) {
    }
  }
}

TEST(Zstd, AFewBytesDoNotBecomeMany) {
  using namespace std::string_literals;
  const std::string magic = "\x28\xb5\x2f\xfd"s, block = "\x02\x00\x10\x00"s;  // 128 KiB of zeros
  std::string bomb = magic + "\x00\x38"s;                                      // a window of 128 KiB, no size
  for (int i = 0; i < 8191; ++i) bomb += block;
  bomb += "\x03\x00\x10\x00"s;  // the last one
  EXPECT_THROW(decode_zstd(bomb, 1 << 20), steer::Error);
  const std::string small = magic + "\x00\x38\x03\x00\x10\x00"s;
  EXPECT_EQ(decode_zstd(small, 1 << 17), std::string(1 << 17, '\0'));
  EXPECT_THROW(decode_zstd(small, (1 << 17) - 1), steer::Error);
  // Heads that speak of 2^62 bytes, and of a window of 2^41.
  EXPECT_THROW(decode_zstd(magic + "\xe0\x00\x00\x00\x00\x00\x00\x00\x40\x03\x00\x10\x00"s, 1 << 20), steer::Error);
  EXPECT_THROW(decode_zstd(magic + "\x00\xff\x03\x00\x10\x00"s, 1 << 20), steer::Error);
}

class ServeShapes : public testing::Test {
 protected:
  steer::Server server_{demo_model(), demo_options()};
  std::vector<std::int64_t> ids_ = demo_model().tokenizer().encode(kText);

  HttpAnswer send(std::string_view path, const json& body) const { return post(server_.port(), path, body); }
  std::string greedy(const Steering& steering, const std::vector<std::int64_t>& ids) const {
    const steer::GenerateRequest request{.ids = ids, .steering = steering};
    return steer::generate(demo_model(), std::span(&request, 1), {.max_tokens = 16}).front().text;
  }
  static json request(json more) {
    json body{{"prompt", kText},
              {"model", "demo"},
              {"steer_method", "SIMPLE_ADDITIVE"},
              {"normalize_steering", false},
              {"types", {"STEERED", "DEFAULT"}},
              {"n_completion_tokens", 16},
              {"temperature", 0},
              {"strength_multiplier", 2},
              {"freq_penalty", 0},
              {"seed", 42}};
    body.update(more);
    return body;
  }
};

TEST_F(ServeShapes, VllmLensTensorsMayBeCompressed) {
  const auto asked = [&](const json& tensor, bool norm_match) {
    const json vectors =
        json::array({{{"activations", tensor}, {"layer_indices", {1}}, {"scale", 2}, {"norm_match", norm_match}}});
    const auto answer = send("/v1/completions", {{"prompt", kText},
                                                 {"max_tokens", 16},
                                                 {"temperature", 0},
                                                 {"vllm_xargs", {{"apply_steering_vectors", vectors.dump()}}}});
    return answer.status == 200 ? answer.json()["choices"][0]["text"].get<std::string>() : answer.body;
  };
  json tensor{{"data", kVectorFrame},
              {"dtype", "float32"},
              {"original_dtype", "torch.float32"},
              {"shape", {1, 128}},
              {"compression", "zstd"}};
  const steer::EditOptions all{.scope = {.include_bos = true}};
  steer::EditOptions matched = all;
  matched.unit = steer::StrengthUnit::residual_norm;
  EXPECT_EQ(asked(tensor, false), greedy(Steering().add(vector(), kPoint, 2, all), ids_));
  EXPECT_EQ(asked(tensor, true), greedy(Steering().add(vector(), kPoint, 2, matched), ids_));
  EXPECT_NE(asked(tensor, true), asked(tensor, false));
  tensor["shape"] = {1, 64};  // a frame that holds more than its tensor
  EXPECT_NE(asked(tensor, false).find("at most 256 bytes"), std::string::npos);
  tensor["compression"] = "lz4";
  EXPECT_NE(asked(tensor, false).find("lz4"), std::string::npos);
  tensor["shape"] = {1 << 30, 1 << 30};
  tensor["compression"] = "zstd";
  EXPECT_NE(asked(tensor, false).find("at most"), std::string::npos);
}

TEST_F(ServeShapes, NeuronpediaAnswersSideBySide) {
  const std::int64_t feature = 330;
  const at::Tensor row = demo_sae().decoder_rows(std::span(&feature, 1))[0];
  const steer::HookPoint point = *demo_sae().config().hook_in;
  const steer::EditOptions all{.scope = {.include_bos = true}};
  const json features = {{{"model", "demo"}, {"source", "demo"}, {"index", 330}, {"strength", 4}}};
  const auto check = [&](const json& body, const Steering& wanted) {
    const auto answer = send("/v1/steer/completion", body);
    ASSERT_EQ(answer.status, 200) << answer.body;
    const json outputs = answer.json()["outputs"];
    EXPECT_EQ(outputs[0]["type"], "STEERED");
    EXPECT_EQ(outputs[0]["output"], greedy(wanted, ids_));
    EXPECT_EQ(outputs[1]["type"], "DEFAULT");
    EXPECT_EQ(outputs[1]["output"], greedy({}, ids_));
  };
  check(request({{"features", features}}), Steering().add(row, point, 8, all));
  check(request({{"features", features}, {"normalize_steering", true}}),
        Steering().add(row / row.norm(), point, 8, all));
  const json vectors = {{{"steering_vector", std::vector<float>(128, 1)}, {"strength", -3}, {"hook", kPoint}}};
  check(request({{"vectors", vectors}}), Steering().add(at::ones({128}), kPoint, -6, all));
  check(request({{"vectors", vectors}, {"steer_method", "ORTHOGONAL_DECOMP"}}),
        Steering().scale_along(at::ones({128}), kPoint, -6, all));

  json camel{{"steerMethod", "SIMPLE_ADDITIVE"}, {"normalizeSteering", false}, {"strengthMultiplier", 2}};
  camel.update({{"nCompletionTokens", 4}, {"freqPenalty", 0}, {"nLogprobs", 2}, {"prompt", kText}, {"model", "demo"}});
  camel.update({{"types", {"DEFAULT"}}, {"temperature", 0}, {"seed", 1}});
  const json scored = send("/v1/steer/completion", camel).json()["outputs"][0]["logprobs"];
  EXPECT_EQ(scored.size(), 4u);
  EXPECT_EQ(scored[0]["topLogprobs"].size(), 2u);

  const json streamed = request({{"features", features}, {"stream", true}});
  const auto events = send("/v1/steer/completion", streamed).events();
  EXPECT_GT(events.size(), 3u);
  EXPECT_EQ(json::parse(events.back())["outputs"][0]["output"], greedy(Steering().add(row, point, 8, all), ids_));

  for (const json& bad : {request(json::object()), request({{"features", features}, {"vectors", vectors}}),
                          request({{"features", {{{"source", "demo"}, {"index", 1 << 20}, {"strength", 1}}}}}),
                          request({{"features", features}, {"steer_method", "OTHER"}}),
                          request({{"features", features}, {"steerMethod", "SIMPLE_ADDITIVE"}}),
                          request({{"features", features}, {"unknown", 1}})})
    EXPECT_EQ(send("/v1/steer/completion", bad).status, 400) << bad;
}

TEST_F(ServeShapes, NeuronpediaChatsLeaveSpecialTokensAloneWhenAsked) {
  const json messages = {{{"role", "user"}, {"content", kText}}};
  const auto prompt = demo_model().chat().render({{steer::Role::user, kText}}).ids;
  json body =
      request({{"prompt", messages},
               {"vectors", {{{"steering_vector", std::vector<float>(128, 1)}, {"strength", -3}, {"hook", kPoint}}}},
               {"steer_special_tokens", false}});
  const auto answer = send("/v1/steer/completion-chat", body);
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json result = answer.json();
  steer::EditOptions plain{.scope = {.include_bos = true}};
  steer::Scope special{.include_bos = true};
  for (std::int64_t id = 0; id < demo_model().tokenizer().vocab_size(); ++id)
    if (demo_model().tokenizer().is_special(id)) special.tokens.push_back(id);
  plain.scope.except = {special};
  EXPECT_EQ(result["outputs"][0]["chat_template"].back()["content"],
            greedy(Steering().add(at::ones({128}), kPoint, -6, plain), prompt));
  EXPECT_EQ(result["outputs"][1]["chat_template"].back()["content"], greedy({}, prompt));
  EXPECT_EQ(result["input"]["chat_template"], messages);
  const auto raw = result["outputs"][1]["raw"].get<std::string>();
  EXPECT_TRUE(raw.starts_with(result["input"]["raw"].get<std::string>()));
}

}  // namespace
