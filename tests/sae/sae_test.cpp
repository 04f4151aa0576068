// What holds for any SAE: shapes, sparse and narrow ways against the dense one, gradients, bad input, memory, devices.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <sstream>

#include <steer/io/safetensors_writer.hpp>
#include <steer/sae/sae.hpp>

#include "core/format_text.hpp"
#include "sae/kernels.hpp"
#include "support.hpp"

namespace steer {
namespace {

Sae make(SaeActivation activation, std::int64_t d = 24, std::int64_t f = 600) {
  at::manual_seed(17);
  SaeConfig config;
  config.activation = activation;
  config.k = 12;
  config.subtract_b_dec = true;
  SaeWeights w;
  w.W_enc = at::randn({d, f}) / std::sqrt(static_cast<double>(d));
  w.W_dec = at::randn({f, d});
  w.b_enc = at::randn({f}) * 0.1 - 1.5;
  w.b_dec = at::randn({d}) * 0.1;
  w.threshold = at::rand({f});
  w.b_gate = at::randn({f}) - 1.5;
  w.r_mag = at::randn({f}) * 0.1;
  w.b_mag = at::randn({f}) * 0.1;
  return Sae::from_weights(config, w);
}

class Every : public testing::TestWithParam<SaeActivation> {};

TEST_P(Every, SparseNarrowAndDenseAgree) {
  const auto sae = make(GetParam());
  const auto x = at::randn({3, 50, 24});
  const auto f = sae.encode(x);
  EXPECT_EQ(f.sizes(), (at::IntArrayRef{3, 50, 600}));
  const auto sparse = sae.encode_sparse(x);
  EXPECT_TRUE(at::allclose(sparse.dense(), f.view({150, 600}), 1e-5, 1e-6));
  EXPECT_TRUE(at::allclose(sae.decode(sparse), sae.decode(f).view({150, 24}), 1e-4, 1e-4));
  EXPECT_TRUE(at::allclose(sae.reconstruct(x), at::matmul(f, sae.W_dec()) + sae.b_dec(), 1e-4, 1e-4));
  EXPECT_TRUE(at::allclose(sae.error(x), x - sae.reconstruct(x)));
  const std::vector<std::int64_t> some = {599, 3, 3, 0};
  EXPECT_TRUE(
      at::allclose(sae.encode_subset(x, some), f.index_select(-1, at::tensor({599, 3, 3, 0}, at::kLong)), 1e-4, 1e-5));
  // Entries come by descending absolute value, and a limit keeps the first.
  const auto two = sae.encode_sparse(x, 2);
  const auto offsets = two.offsets.diff();
  EXPECT_LE(offsets.max().item<std::int64_t>(), 2);
  const auto top = std::get<0>(f.view({150, 600}).abs().topk(2, 1));
  EXPECT_TRUE(at::allclose(two.dense().abs().sum(1), top.sum(1), 1e-4, 1e-5));
  // In any dtype the arithmetic is f32.
  EXPECT_EQ(sae.encode(x.to(at::kBFloat16)).scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(sae.encode(x.to(at::kBFloat16)), sae.encode(x.to(at::kBFloat16).to(at::kFloat))));
}

TEST_P(Every, GradientsReachTheInput) {
  const auto sae = make(GetParam());
  auto x = at::randn({5, 24}).requires_grad_();
  sae.reconstruct(x).square().sum().backward();
  const auto by_sparse = x.grad().clone();
  x.mutable_grad() = at::Tensor();
  const auto f = sae.encode(x);
  (at::mm(f, sae.W_dec()) + sae.b_dec()).square().sum().backward();
  EXPECT_TRUE(at::allclose(by_sparse, x.grad(), 1e-3, 1e-3));
}

TEST_P(Every, RunsOnAGpu) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
  const auto sae = make(GetParam());
  const auto there = sae.to(at::Device("cuda:0"));
  const auto x = at::randn({40, 24});
  EXPECT_TRUE(at::allclose(there.encode(x).cpu(), sae.encode(x), 1e-4, 1e-4));
  EXPECT_TRUE(at::allclose(there.reconstruct(x).cpu(), sae.reconstruct(x), 1e-3, 1e-3));
  EXPECT_TRUE(at::allclose(there.encode_sparse(x).dense().cpu(), sae.encode_sparse(x).dense(), 1e-4, 1e-4));
}

INSTANTIATE_TEST_SUITE_P(Activations, Every,
                         testing::Values(SaeActivation::relu, SaeActivation::jumprelu, SaeActivation::topk,
                                         SaeActivation::batchtopk, SaeActivation::abstopk, SaeActivation::gated,
                                         SaeActivation::groupmax),
                         [](const auto& info) { return std::string(to_string(info.param)); });

TEST(SaeInput, BadInputIsNamed) {
  const auto sae = make(SaeActivation::relu);
  const std::vector<std::int64_t> out = {600}, negative = {-1};
  EXPECT_STEER_ERROR(sae.encode(at::zeros({4, 23})), ErrorCode::shape, "[.., 24] but got [4, 23]");
  EXPECT_STEER_ERROR(sae.encode(at::zeros({4, 24}, at::kLong)), ErrorCode::argument, "floating");
  EXPECT_STEER_ERROR(sae.encode({}), ErrorCode::shape, "undefined");
  EXPECT_STEER_ERROR(sae.encode_subset(at::zeros({4, 24}), out), ErrorCode::argument, "[0, 600) but got 600");
  EXPECT_STEER_ERROR(sae.decoder_rows(negative), ErrorCode::argument, "[0, 600) but got -1");
  EXPECT_STEER_ERROR(sae.decode(at::zeros({4, 24})), ErrorCode::shape, "[.., 600]");
  EXPECT_STEER_ERROR(make(SaeActivation::topk).select(out), ErrorCode::unsupported, "encode_subset");
  SaeConfig config;
  config.normalization = SaeNormalization::layer_norm;
  const auto normal = Sae::from_weights(config, {.W_enc = at::eye(4), .W_dec = at::eye(4)});
  EXPECT_STEER_ERROR(normal.decode(at::zeros({2, 4})), ErrorCode::argument, "layer_norm");
  EXPECT_STEER_ERROR(Sae::from_weights({}, {.W_enc = at::zeros({4, 8}), .W_dec = at::zeros({7, 4})}), ErrorCode::shape,
                     "W_dec");
  EXPECT_STEER_ERROR(Sae::from_weights({}, {}), ErrorCode::shape, "W_enc");
}

TEST(SaeInput, EdgesOfTheNormalisations) {
  SaeConfig config;
  config.normalization = SaeNormalization::constant_norm_rescale;
  const auto sae = Sae::from_weights(config, {.W_enc = at::eye(4), .W_dec = at::eye(4)});
  // A row of zeros stays zeros instead of becoming NaN, as documented.
  EXPECT_TRUE(at::equal(sae.reconstruct(at::zeros({1, 4})), at::zeros({1, 4})));
  const auto nan = at::full({1, 24}, NAN);
  for (const auto kind : {SaeActivation::relu, SaeActivation::topk}) {
    EXPECT_TRUE(at::isnan(make(kind).encode_sparse(nan).value).any().item<bool>()) << to_string(kind);
    EXPECT_TRUE(at::isnan(make(kind).reconstruct(nan)).any().item<bool>()) << to_string(kind);
  }
  EXPECT_EQ(make(SaeActivation::topk).encode_sparse(at::zeros({0, 24})).offsets.size(0), 1);
}

TEST(SaeHash, TellsSaesApart) {
  const auto a = make(SaeActivation::relu), b = make(SaeActivation::relu);
  EXPECT_EQ(a.hash(), b.hash());
  EXPECT_NE(a.hash(), make(SaeActivation::jumprelu).hash());
  SaeWeights w{.W_enc = a.W_enc().clone(), .b_enc = a.b_enc(), .W_dec = a.W_dec(), .b_dec = a.b_dec()};
  w.W_enc[0][0] += 1;
  EXPECT_NE(a.hash(), Sae::from_weights(a.config(), w).hash());
}

TEST(TopK, EqualsAFullSort) {
  at::manual_seed(5);
  sae::detail::TopKScratch scratch;
  for (const std::int64_t n : {1, 7, 63, 64, 1000, 4097})
    for (const std::int64_t k : {1, 2, 5, 64, 5000}) {
      auto z = at::randn({n});
      z.slice(0, 0, n, 3) = 0.5;  // ties
      const auto want = std::get<1>(z.sort(/*stable=*/true, 0, /*descending=*/true)).slice(0, 0, k);
      std::vector<std::int32_t> got(static_cast<std::size_t>(std::min(n, k)));
      ASSERT_EQ(sae::detail::top_k(z.data_ptr<float>(), n, k, got.data(), scratch), std::min(n, k));
      for (std::size_t i = 0; i < got.size(); ++i)
        ASSERT_EQ(got[i], want[static_cast<std::int64_t>(i)].item<std::int64_t>());
    }
}

#ifdef __linux__
/// Bytes of mapped files in this process's memory.
std::int64_t resident_file_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssFile:")) return std::stoll(line.substr(8)) * 1024;
  return -1;
}

/// Features as columns of W_enc (SAELens) and as rows of W_dec.
void write_sae(const std::filesystem::path& file, std::int64_t d, std::int64_t f) {
  SafetensorsWriter writer(file,
                           {{"W_enc", at::kFloat, {d, f}},
                            {"W_dec", at::kFloat, {f, d}},
                            {"b_enc", at::kFloat, {f}},
                            {"b_dec", at::kFloat, {d}}},
                           {{"cfg", format_text(R"({{"architecture":"standard","d_in":{},"d_sae":{}}})", d, f)}});
  writer.write("W_enc", at::randn({d, f}));
  writer.write("W_dec", at::randn({f, d}));
  writer.write("b_enc", at::zeros({f}));
  writer.write("b_dec", at::zeros({d}));
  writer.finish();
}

TEST(SaeMemory, NarrowUseOfAMappedFileLeavesItOnDisk) {
  const test::TempDir dir;
  const std::int64_t d = 1024, f = 16384;  // 2 x 64 MiB
  write_sae(dir / "sae.safetensors", d, f);
  const std::vector<std::int64_t> features = {5, 8000, 16383};
  const auto x = at::randn({2, d});
  {  // The same work on a small file first: the program's own code is mapped too, and must be in memory before.
    write_sae(dir / "small.safetensors", d, 8);
    const auto small = Sae::load(dir / "small.safetensors");
    const std::vector<std::int64_t> some = {1, 3, 7};
    small.encode_subset(x, some);
    small.decoder_rows(some);
  }
  const auto before = resident_file_bytes();
  const auto sae = Sae::load(dir / "sae.safetensors");
  const auto narrow = sae.encode_subset(x, features);
  const auto rows = sae.decoder_rows(features);
  const auto grown = resident_file_bytes() - before;
  EXPECT_LE(grown, std::int64_t{1} << 20) << grown << " bytes of files came into memory";
  EXPECT_TRUE(at::allclose(narrow, sae.encode(x).index_select(1, at::tensor({5, 8000, 16383}, at::kLong)), 1e-4, 1e-4));
  EXPECT_TRUE(at::equal(rows, sae.W_dec().index_select(0, at::tensor({5, 8000, 16383}, at::kLong))));
}
#endif

}  // namespace
}  // namespace steer
