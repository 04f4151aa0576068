// Tiny files of every published layout, written by gen_sae_fixtures.py without any library, against the activations and
// reconstructions it works out by hand; and files that must be refused.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include <steer/io/safetensors_writer.hpp>
#include <steer/sae/sae.hpp>

#include "core/format_text.hpp"
#include "support.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// The folder STEER_SAE_FIXTURES names, else one that the generator beside the source tree fills.
struct Fixtures {
  test::TempDir made;
  fs::path path;
  bool present = false;
  Fixtures() {
    const auto data = test::outside_data("STEER_SAE_FIXTURES", "../shared/fixtures/gen_sae_fixtures.py");
    present = data.present;
    path = data.path;
    if (data.named || !present) return;
    path = made / "fixtures";
    const auto command = format_text("python3 '{}' '{}' > /dev/null", data.path.string(), path.string());
    present = std::system(command.c_str()) == 0;
  }
};

at::Tensor numbers(const std::vector<double>& v) {
  return at::tensor(at::ArrayRef<double>(v), at::kDouble).to(at::kFloat);
}
at::Tensor from_json(const json& v) { return numbers(v.get<std::vector<double>>()); }

/// The bytes of the toy that all fixtures hold, and what layouts without a golden of their own must give for it.
struct Expected {
  at::Tensor acts, recon;
  at::Tensor forward;  // where it is not recon
};

struct Case {
  std::string path, format;
  std::function<Expected(const json&)> expected;
  SaeLoadOptions options{};
};

std::function<Expected(const json&)> golden(std::string name) {
  return [name](const json& cases) {
    return Expected{from_json(cases.at(name).at("acts")), from_json(cases.at(name).at("recon")), {}};
  };
}
std::function<Expected(const json&)> by_hand(std::vector<double> acts, std::vector<double> recon) {
  return [=](const json&) { return Expected{numbers(acts), numbers(recon), {}}; };
}

std::vector<Case> cases() {
  const std::string sub = "relu_b_dec_subtracted", jump = "jumprelu_strict", top = "topk2_b_dec_subtracted",
                    batch = "batchtopk_thr2.5_strict", plain = "relu_no_sub";
  const std::vector<double> norms = {std::sqrt(0.5), 1, std::sqrt(0.75), 0.5};
  const auto gemma2 = std::string("gemma-scope-2-1b-pt/");
  const double scale = 0.016724765300750732;
  return {
      {"saelens_v5_standard", "saelens", golden(sub)},
      {"saelens_v5_topk", "saelens", golden(top)},
      {"saelens_v3_scaling", "saelens", golden(sub)},
      {"saelens_v6_jumprelu", "saelens", golden(jump)},
      {"saelens_v6_topk_rescale", "saelens", golden("topk2_rescale_by_decoder_norm")},
      {"saelens_v6_layer_norm", "saelens", golden("layer_norm")},
      {"saelens_v6_constant_norm_rescale", "saelens", golden("constant_norm_rescale")},
      {"saelens_v6_expected_average_only_in", "saelens", golden("expected_average_s2"), {.norm_scaling_factor = 2.0}},
      {"saelens_v6_gated", "saelens", golden("gated_no_sub")},
      {"gemma-scope-2b-pt-res/layer_1/width_16k/average_l0_71", "gemma_scope", golden(jump)},
      {"gemma-scope-deflate/layer_1/width_16k/average_l0_71/params.npz", "gemma_scope", golden(jump)},
      {gemma2 + "resid_post/layer_1_width_16k_l0_medium", "gemma_scope_2", golden(jump)},
      {gemma2 + "transcoder/layer_1_width_16k_l0_medium_affine", "gemma_scope_2",
       [jump](const json& c) {
         auto e = golden(jump)(c);
         e.forward = e.recon + numbers({0, 1, 4});  // x @ affine_skip_connection
         return e;
       }},
      // The publisher's features are in the units of raw activations and unit decoder rows; the golden is in SAELens's.
      {"Llama3_1-8B-Base-L1R-8x", "llama_scope",
       [norms](const json& c) {
         auto e = golden("llamascope_openmoss_gate(s2,theta1)_in_saelens_units")(c);
         e.acts = e.acts * numbers(norms) / 2;
         return e;
       }},
      {"Llama3_1-8B-Base-L1R-8x",
       "llama_scope",
       golden("llamascope_saelens_gate(s2,theta1)"),
       {.saelens_llama_scope = true}},
      // z = x W_E + b_E / 2 = 1.25, 3.5, 3, -1; ranked by z |d|; x^ = f W_D + b_D / 2.
      {"llamascopium", "llamascopium", by_hand({0, 3.5, 3, 0}, {1.5625, 5.125, 1.25})},
      {"sparsify/layers.1", "sparsify", golden(top)},
      {"dl/relu", "dictionary_learning", golden(sub)},
      {"dl/batchtopk", "dictionary_learning", golden(batch)},
      {"dl/topk", "dictionary_learning", golden(top)},
      {"dl/matryoshka", "dictionary_learning", golden(batch)},
      // y = (x - b) W = .625, 3.5, 2.875, -.875; open where y + gate_bias > 0; relu(y e^r + mag_bias).
      {"dl/gated", "dictionary_learning", by_hand({0, 6, 3.375, 0}, {1.8125, 7.9375, 1.1875})},
      {"dl/jumprelu", "dictionary_learning", golden(jump)},
      {"goodfire/Llama-3.1-8B-Instruct-SAE-l19.pth", "goodfire", golden(plain)},
      {"goodfire/param.pt", "goodfire", golden(plain)},
      // Tied: x^ = f W^T + b_dec with W = W_enc, k more than there are features.
      {"goodfire/r1", "goodfire", by_hand({1.25, 3, 3.25, 0}, {4.625, 9.5, 1.5})},
      {"goodfire/gptoss", "goodfire",
       [scale](const json&) {
         const std::vector<double> x = {1 * scale - .125, 2 * scale - .25, -.25 * scale + .5};
         const std::vector<double> z = {x[0] - x[2], 2 * x[1], x[0] + x[1] + x[2], -x[0]};
         std::vector<double> f(4), y = {.125, .25, -.5};
         const double W[4][3] = {{.5, 0, -.5}, {0, 1, 0}, {.5, .5, .5}, {-.5, 0, 0}};
         for (int i = 0; i < 4; ++i)
           for (int j = 0; j < 3; ++j) f[i] = std::max(0.0, z[i]), y[j] += f[i] * W[i][j];
         return Expected{numbers(f), numbers({y[0] / scale, y[1] / scale, y[2] / scale}), {}};
       }},
      {"SAE-Res-Qwen3-1.7B-Base-W32K-L0_2/layer1.sae.pt", "qwen_scope", golden("topk2_no_sub(qwen-scope)")},
  };
}

bool close(const at::Tensor& got, const at::Tensor& want, const char* what) {
  // The one reconstruction in other units (gpt-oss) is some 60 times larger: relative there.
  const double error = (got - want).abs().max().item<double>(), scale = std::max(1.0, want.abs().max().item<double>());
  EXPECT_LE(error, 1e-5 * scale) << what << ": " << got << " instead of " << want;
  return error <= 1e-5 * scale;
}

TEST(GoldenSaesLayouts, MatchTheToyWorkedOutByHand) {
  const Fixtures fixtures;
  if (!fixtures.present) GTEST_SKIP() << "no fixtures: set STEER_SAE_FIXTURES, or have python3 and ../shared";
  const auto golden_file = json::parse(test::read_file(fixtures.path / "golden.json"));
  const auto x = from_json(golden_file.at("x"));
  test::CaseCounter counter("golden.saes");
  for (const auto& c : cases()) {
    SCOPED_TRACE(c.path);
    bool ok = false;
    try {
      const auto sae = Sae::load(fixtures.path / c.path, c.options);
      const auto want = c.expected(golden_file.at("cases"));
      EXPECT_EQ(sae.config().format, c.format);
      ok = sae.config().format == c.format;
      ok &= close(sae.encode(x), want.acts, "activations");
      ok &= close(sae.decode(want.acts, x), want.recon, "reconstruction");
      ok &= close(sae.reconstruct(x), want.forward.defined() ? want.forward : want.recon, "forward pass");
      ok &= close(sae.encode_sparse(x).dense().squeeze(0), want.acts, "sparse activations");
    } catch (const std::exception& e) {
      ADD_FAILURE() << e.what();
    }
    counter.count(ok);
  }
}

TEST(GoldenSaesLayouts, KnowWhereTheyWereTrained) {
  const Fixtures fixtures;
  if (!fixtures.present) GTEST_SKIP() << "no fixtures: set STEER_SAE_FIXTURES, or have python3 and ../shared";
  const auto hook = [&](const char* path) { return Sae::load(fixtures.path / path).config().hook_in; };
  const HookPoint post1{Site::resid_post, 1};
  EXPECT_EQ(hook("saelens_v5_standard"), (HookPoint{Site::resid_pre, 1}));
  EXPECT_EQ(hook("saelens_v6_jumprelu"), post1);
  EXPECT_EQ(hook("gemma-scope-2b-pt-res/layer_1/width_16k/average_l0_71"), post1);
  EXPECT_EQ(hook("gemma-scope-2-1b-pt/resid_post/layer_1_width_16k_l0_medium"), post1);
  EXPECT_EQ(hook("Llama3_1-8B-Base-L1R-8x"), post1);
  EXPECT_EQ(hook("sparsify/layers.1"), post1);
  EXPECT_EQ(hook("dl/topk"), post1);
  EXPECT_EQ(hook("goodfire/Llama-3.1-8B-Instruct-SAE-l19.pth"), (HookPoint{Site::resid_post, 19}));
  EXPECT_EQ(hook("SAE-Res-Qwen3-1.7B-Base-W32K-L0_2/layer1.sae.pt"), post1);
  EXPECT_STEER_ERROR(Sae::load(fixtures.path / "goodfire"), ErrorCode::argument, "name the file");
  EXPECT_STEER_ERROR(Sae::load(fixtures.path / "dl/strided"), ErrorCode::config, "dict_class");
}

// --- files to refuse ---

using Tensors = std::vector<std::pair<std::string, at::Tensor>>;

/// A folder of a configuration and weights.
void put(const fs::path& folder, const json& config, const Tensors& tensors, const char* cfg = "cfg.json",
         const char* weights = "sae_weights.safetensors") {
  fs::create_directories(folder);
  if (!config.is_null()) std::ofstream(folder / cfg) << config.dump();
  save_safetensors(folder / weights, tensors);
}

Tensors standard(std::int64_t d = 6, std::int64_t f = 10) {
  return {
      {"W_enc", at::randn({d, f})}, {"W_dec", at::randn({f, d})}, {"b_enc", at::zeros({f})}, {"b_dec", at::zeros({d})}};
}
json v6(const std::string& architecture, std::int64_t d = 6, std::int64_t f = 10) {
  return {{"architecture", architecture},
          {"d_in", d},
          {"d_sae", f},
          {"apply_b_dec_to_input", false},
          {"metadata", {{"sae_lens_version", "6.18.0"}}}};
}

TEST(SaeRejection, NamesTheKeyThatDecided) {
  const test::TempDir dir;
  const auto refuse = [&](const json& config, const Tensors& tensors, ErrorCode code, const char* text) {
    put(dir / "case", config, tensors);
    EXPECT_STEER_ERROR(Sae::load(dir / "case"), code, text);
    fs::remove_all(dir / "case");
  };
  refuse(v6("temporal"), standard(), ErrorCode::unsupported, "\"architecture\" = temporal");
  refuse(v6("crosscoder"), standard(), ErrorCode::unsupported, "\"architecture\" = crosscoder");
  refuse({{"sae_type", "clt"}, {"d_model", 6}}, standard(), ErrorCode::unsupported, "\"sae_type\" = clt");
  refuse({{"sae_type", "lorsa"}, {"d_model", 6}}, standard(), ErrorCode::unsupported, "\"sae_type\" = lorsa");
  refuse({{"trainer", {{"dict_class", "CrossCoder"}}}}, standard(), ErrorCode::unsupported,
         "\"trainer.dict_class\" = CrossCoder");
  refuse({{"trainer", {{"dict_class", "SomethingNew"}}}}, standard(), ErrorCode::unsupported, "SomethingNew");
  refuse(nullptr, {{"W_enc", at::zeros({2, 6, 10})}, {"W_dec", at::zeros({10, 2, 6})}}, ErrorCode::unsupported,
         "\"W_enc\" of shape");
  refuse(nullptr, {{"W_enc_5", at::zeros({10, 6})}, {"b_enc_5", at::zeros({10})}, {"b_dec_5", at::zeros({6})}},
         ErrorCode::unsupported, "\"W_enc_5\"");
  refuse(nullptr, {{"attn_layers.0.q", at::zeros({6, 6})}}, ErrorCode::unsupported, "attn_layers.0.q");
  refuse(nullptr, {{"lstm", at::zeros({6, 6})}}, ErrorCode::unsupported, "lstm [6, 6]");
  refuse(v6("fancy"), standard(), ErrorCode::unsupported, "\"architecture\" = fancy");
  refuse(v6("topk"), standard(), ErrorCode::config, "\"k\"");
  refuse(v6("jumprelu"), standard(), ErrorCode::format, "threshold");
  refuse(v6("standard", 6, 11), standard(), ErrorCode::shape, "[6, 11]");
  auto wrong = v6("standard");
  wrong["apply_b_dec_to_input"] = "maybe";
  refuse(wrong, standard(), ErrorCode::config, "apply_b_dec_to_input");
  auto scaled = standard();
  scaled.emplace_back("scaling_factor", at::full({10}, 2.0));
  refuse(v6("standard"), scaled, ErrorCode::unsupported, "scaling_factor");
  auto transcoder = v6("transcoder");
  transcoder["apply_b_dec_to_input"] = true;
  refuse(transcoder, standard(), ErrorCode::config, "apply_b_dec_to_input");
  // Llama Scope's tensors without their hyperparameters mean nothing certain.
  refuse(nullptr,
         {{"encoder.weight", at::zeros({10, 6})},
          {"encoder.bias", at::zeros({10})},
          {"decoder.weight", at::zeros({6, 10})},
          {"decoder.bias", at::zeros({6})}},
         ErrorCode::unsupported, "encoder.weight");
  EXPECT_STEER_ERROR(Sae::load(dir / "nowhere"), ErrorCode::io, "nowhere");
  fs::create_directories(dir / "empty");
  EXPECT_STEER_ERROR(Sae::load(dir / "empty"), ErrorCode::io, "no tensor file");
}

TEST(SaeLayouts, OrientationComesFromKeysWhereWidthEqualsFeatures) {
  const test::TempDir dir;
  const auto E = at::randn({5, 5}), D = at::randn({5, 5}), x = at::randn({7, 5});
  put(dir / "saelens", v6("standard", 5, 5),
      {{"W_enc", E}, {"W_dec", D}, {"b_enc", at::zeros({5})}, {"b_dec", at::zeros({5})}});
  EXPECT_TRUE(at::allclose(Sae::load(dir / "saelens").encode(x), at::mm(x, E).relu()));
  const json scope = {{"d_model", 5}, {"act_fn", "relu"}, {"norm_activation", "inference"}};
  put(dir / "scope", scope,
      {{"encoder.weight", E},
       {"encoder.bias", at::zeros({5})},
       {"decoder.weight", D},
       {"decoder.bias", at::zeros({5})}},
      "hyperparams.json", "final.safetensors");
  const auto sae = Sae::load(dir / "scope");
  EXPECT_TRUE(at::allclose(sae.encode(x), at::mm(x, E.t()).relu()));
  EXPECT_TRUE(at::allclose(sae.reconstruct(x), at::mm(at::mm(x, E.t()).relu(), D.t()), 1e-4, 1e-5));
}

TEST(SaeLayouts, SparsifyKinds) {
  const test::TempDir dir;
  const auto E = at::randn({12, 4}), D = at::randn({12, 4}), b = at::randn({4}), skip = at::randn({4, 4}),
             x = at::randn({9, 4});
  const Tensors tensors = {
      {"encoder.weight", E}, {"encoder.bias", at::zeros({12})}, {"W_dec", D}, {"b_dec", b}, {"W_skip", skip}};
  json config = {
      {"d_in", 4},         {"num_latents", 0},       {"expansion_factor", 3}, {"k", 3}, {"activation", "groupmax"},
      {"transcode", true}, {"skip_connection", true}};
  put(dir / "layers.2.mlp", config, tensors, "cfg.json", "sae.safetensors");
  const auto sae = Sae::load(dir / "layers.2.mlp");
  EXPECT_EQ(sae.config().hook_out, (HookPoint{Site::mlp_out, 2}));
  // Three groups of four: the largest positive of each.
  const auto z = at::mm(x, E.t()).relu();
  const auto groups = z.view({9, 3, 4});
  const auto f = at::where(groups == groups.amax(2, true), groups, at::zeros_like(groups)).view({9, 12});
  EXPECT_TRUE(at::allclose(sae.encode(x), f, 1e-4, 1e-5));
  EXPECT_TRUE(at::allclose(sae.reconstruct(x), at::mm(f, D) + b + at::mm(x, skip.t()), 1e-4, 1e-5));
  EXPECT_STEER_ERROR(sae.error(x), ErrorCode::unsupported, "transcoder");
  EXPECT_STEER_ERROR(sae.save(dir / "out"), ErrorCode::unsupported, "groupmax");
}

}  // namespace
}  // namespace steer
