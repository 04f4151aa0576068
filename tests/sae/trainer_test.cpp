// Training, judged by truths that are known without us: the directions synthetic data was made of, a loss that
// gradients of libtorch's autograd lower in the same way, and an interrupted run that must end where an unbroken one
// ends.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <steer/core/random.hpp>
#include <steer/sae/trainer.hpp>

#include "core/format_text.hpp"
#include "sae/train_step.hpp"
#include "support.hpp"

namespace steer {
namespace {

/// Sparse sums of known unit directions: each is present in a share of the tokens, with a strength in [0.5, 1.5].
class Synthetic {
 public:
  Synthetic(std::int64_t features, std::int64_t d, double share, std::uint64_t seed) : share_(share), seed_(seed) {
    directions_ = normals({features, d}, derive_seed(seed, "directions"));
    directions_ /= directions_.norm(2, {1}, true);
  }
  const at::Tensor& directions() const { return directions_; }
  at::Tensor block(std::int64_t index, std::int64_t tokens) const {
    Rng rng(derive_seed(seed_, "tokens", static_cast<std::uint64_t>(index)));
    auto f = at::zeros({tokens, directions_.size(0)});
    auto* value = f.data_ptr<float>();
    for (std::int64_t i = 0; i < f.numel(); ++i)
      if (rng.uniform() < share_) value[i] = static_cast<float>(0.5 + rng.uniform());
    return at::mm(f, directions_);
  }
  ActivationSource source(std::int64_t block_tokens) const {
    auto next = std::make_shared<std::int64_t>(0);
    return {.read = [*this, next, block_tokens](std::int64_t) { return block((*next)++, block_tokens); },
            .skip = [next, block_tokens](std::int64_t tokens) { *next = tokens / block_tokens; }};
  }
  /// Share of the true directions that some decoder row has a cosine above 0.9 with.
  double recovered(const Sae& sae) const {
    const auto rows = sae.W_dec() / sae.W_dec().norm(2, {1}, true);
    return (at::mm(directions_, rows.t()).amax(1) > 0.9).to(at::kDouble).mean().item<double>();
  }

  static at::Tensor normals(at::IntArrayRef shape, std::uint64_t seed) {
    auto t = at::empty(shape);
    Rng rng(seed);
    for (std::int64_t i = 0; i < t.numel(); ++i) t.data_ptr<float>()[i] = static_cast<float>(rng.normal());
    return t;
  }

 private:
  at::Tensor directions_;
  double share_;
  std::uint64_t seed_;
};

SaeTrainingOptions small(SaeActivation activation) {
  SaeTrainingOptions o;
  o.d_in = 32;
  o.d_sae = 96;
  o.activation = activation;
  o.k = 4;
  o.steps = 1500;
  o.batch_tokens = 512;
  o.buffer_tokens = 8192;
  o.learning_rate = 3e-3;
  o.warmup_steps = 50;
  o.decay_steps = 300;
  o.sparsity_warmup_steps = 200;
  o.dead_after_tokens = 50'000;
  o.seed = 3;
  return o;
}

class Recovery : public testing::TestWithParam<SaeActivation> {};

TEST_P(Recovery, FindsKnownDirections) {
  const Synthetic data(64, 48, 3.0 / 64, 11);
  auto o = small(GetParam());
  o.d_in = 48;
  o.k = 3;  // as many as are present on average
  if (GetParam() == SaeActivation::relu) o.l1 = 1.5;
  if (GetParam() == SaeActivation::batchtopk) o.learning_rate = 6e-3;
  if (GetParam() == SaeActivation::jumprelu) o.l0 = 1, o.bandwidth = 1, o.initial_threshold = 1.5;
  SaeTrainingMetrics last;
  o.on_step = [&](const SaeTrainingMetrics& m) { last = m; };
  SaeTrainer trainer(o, data.source(4096));
  const auto sae = trainer.train();
  EXPECT_GE(data.recovered(sae), 0.95) << "L0 " << last.l0 << ", explained " << last.explained_variance;
  EXPECT_GT(last.explained_variance, 0.8);
  EXPECT_EQ(last.step, o.steps);
  // The result works on raw activations: it explains fresh ones.
  const auto x = data.block(1 << 20, 2048);
  const double left = sae.error(x).square().sum().item<double>() / (x - x.mean(0)).square().sum().item<double>();
  EXPECT_LT(left, 0.25);
}

INSTANTIATE_TEST_SUITE_P(Activations, Recovery,
                         testing::Values(SaeActivation::relu, SaeActivation::topk, SaeActivation::batchtopk,
                                         SaeActivation::jumprelu),
                         [](const auto& info) { return std::string(to_string(info.param)); });

// --- one step against autograd ---

/// The same loss written with differentiable operators.
at::Tensor reference_loss(const SaeTrainingOptions& o, const at::Tensor& x, const at::Tensor& encoder,
                          const at::Tensor& b_enc, const at::Tensor& decoder, const at::Tensor& b_dec) {
  const auto z = at::mm(o.subtract_b_dec ? x - b_dec : x, encoder.t()) + b_enc;
  at::Tensor f = z.relu();
  if (o.activation == SaeActivation::topk) {
    const auto [value, at] = z.topk(o.k, 1);
    f = at::zeros_like(z).scatter(1, at, value.relu());
  } else if (o.activation == SaeActivation::batchtopk) {
    const auto cut = std::get<0>(z.flatten().topk(o.k * x.size(0))).min().detach();
    f = at::where(z >= cut, z.relu(), at::zeros_like(z));
  } else if (o.activation == SaeActivation::jumprelu) {
    f = at::where(z > o.initial_threshold, z.relu(), at::zeros_like(z));
  }
  auto loss = (at::mm(f, decoder) + b_dec - x).square().sum() / static_cast<double>(x.size(0));
  if (o.activation == SaeActivation::relu) loss = loss + f.sum() * (o.l1 / static_cast<double>(x.size(0)));
  return loss;
}

class Gradients : public testing::TestWithParam<std::tuple<SaeActivation, double>> {};

TEST_P(Gradients, MatchAutograd) {
  const auto [activation, bias] = GetParam();
  auto o = small(activation);
  o.d_sae = 80;
  o.l1 = 0.7;
  o.initial_threshold = 0.4;
  o.sparsity_warmup_steps = o.warmup_steps = o.decay_steps = 0;
  const auto x = Synthetic::normals({48, o.d_in}, 5);
  auto state = sae::detail::initial_state(o, Synthetic::normals({o.d_in}, 6) * 0.1);
  // Unlike encoder and decoder, and a bias that makes activations rare (sparse path) or common (dense path).
  state.encoder.value.copy_(Synthetic::normals({o.d_sae, o.d_in}, 7) * 0.2);
  state.b_enc.value.copy_(Synthetic::normals({o.d_sae}, 8) * 0.1 + bias);
  std::vector<at::Tensor> p;
  for (auto* t : {&state.encoder, &state.b_enc, &state.decoder, &state.b_dec})
    p.push_back(t->value.clone().requires_grad_());
  const auto loss = reference_loss(o, x, p[0], p[1], p[2], p[3]);
  loss.backward();
  sae::detail::TrainScratch scratch;
  const auto metrics = sae::detail::train_step(o, state, x, scratch);
  if (activation != SaeActivation::jumprelu) {
    EXPECT_NEAR(metrics.loss, loss.item<double>(), 1e-4 * loss.item<double>());
  }
  // After one step the first moments are (1 - beta1) times the gradient.
  const auto gradient = [&](const sae::detail::Trained& t) { return t.m / (1 - o.beta1); };
  auto by_decoder = p[2].grad();
  by_decoder = by_decoder - (by_decoder * p[2].detach()).sum(1, true) * p[2].detach();
  const std::pair<at::Tensor, at::Tensor> pairs[] = {{gradient(state.encoder), p[0].grad()},
                                                     {gradient(state.b_enc), p[1].grad()},
                                                     {gradient(state.decoder), by_decoder},
                                                     {gradient(state.b_dec), p[3].grad()}};
  for (const auto& [got, want] : pairs) {
    ASSERT_GT(want.abs().max().item<double>(), 0);
    EXPECT_LT((got - want).abs().max().item<double>(), 1e-4 * want.abs().max().item<double>());
  }
  EXPECT_LT((state.decoder.value.norm(2, {1}) - 1).abs().max().item<double>(), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(SparseAndDense, Gradients,
                         testing::Combine(testing::Values(SaeActivation::relu, SaeActivation::topk,
                                                          SaeActivation::batchtopk, SaeActivation::jumprelu),
                                          testing::Values(-2.0, 0.0)));

TEST(JumpReluTraining, ThresholdGradientIsTheStraightThroughEstimator) {
  auto o = small(SaeActivation::jumprelu);
  o.sparsity_warmup_steps = o.warmup_steps = o.decay_steps = 0;
  o.bandwidth = 0.5;
  o.initial_threshold = 0.6;
  o.l0 = 0.3;
  const auto x = Synthetic::normals({40, o.d_in}, 15);
  auto state = sae::detail::initial_state(o, at::zeros({o.d_in}));
  const auto z = at::mm(x, state.encoder.value.t());
  const auto f = at::where(z > 0.6, z, at::zeros_like(z));
  const auto by_f = at::mm((at::mm(f, state.decoder.value) - x) * (2.0 / 40), state.decoder.value.t());
  const auto window =
      ((z - 0.6).abs() < 0.25).to(at::kFloat);  // eqs. 11 and 12 of the paper, chained through the logarithm
  const auto want = -(window * (0.6 * by_f + 0.3 / 40) / 0.5).sum(0) * 0.6;
  sae::detail::TrainScratch scratch;
  sae::detail::train_step(o, state, x, scratch);
  EXPECT_LT((state.log_threshold.m / (1 - o.beta1) - want).abs().max().item<double>(),
            1e-4 * want.abs().max().item<double>());
}

// --- stopping and going on ---

TEST(Kill, SaeTrainerGoesOnExactlyWhereItWasKilled) {
  const Synthetic data(64, 32, 0.04, 12);
  auto o = small(SaeActivation::topk);
  o.steps = 300;
  o.checkpoint_every = 20;
  at::set_num_threads(1);  // as in the child, whose thread pool does not survive the fork
  const auto unbroken = SaeTrainer(o, data.source(1024)).train();

  const test::TempDir folder;
  o.checkpoint = folder / "checkpoint.safetensors";
  std::fflush(nullptr);
  const auto child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    SaeTrainer(o, data.source(1024)).train();
    _exit(0);
  }
  while (!std::filesystem::exists(o.checkpoint)) usleep(1000);
  usleep(30'000);
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  SaeTrainer trainer(o, data.source(1024));
  EXPECT_GT(trainer.steps_done(), 0);
  EXPECT_EQ(trainer.steps_done() % 20, 0);
  const auto resumed = trainer.train();
  EXPECT_TRUE(at::equal(unbroken.W_enc(), resumed.W_enc()));
  EXPECT_TRUE(at::equal(unbroken.W_dec(), resumed.W_dec()));
  EXPECT_TRUE(at::equal(unbroken.b_dec(), resumed.b_dec()));
  EXPECT_EQ(SaeTrainer(o, data.source(1024)).steps_done(), 300);
  o.learning_rate *= 2;
  EXPECT_STEER_ERROR(SaeTrainer(o, data.source(1024)), ErrorCode::config, "other options");
}

TEST(SaeTrainerInput, BadInputIsNamed) {
  const Synthetic data(64, 32, 0.04, 13);
  auto o = small(SaeActivation::topk);
  o.k = 97;
  EXPECT_STEER_ERROR(SaeTrainer(o, data.source(64)), ErrorCode::argument, "k between 1 and d_sae 96");
  o = small(SaeActivation::gated);
  EXPECT_STEER_ERROR(SaeTrainer(o, data.source(64)), ErrorCode::unsupported, "gated");
  o = small(SaeActivation::relu);
  EXPECT_STEER_ERROR(SaeTrainer(o, {}), ErrorCode::argument, "source of activations");
  EXPECT_STEER_ERROR(SaeTrainer(o, {.read = [](auto) { return at::Tensor(); }, .skip = {}}).step(), ErrorCode::argument,
                     "ended after 0 tokens");
  EXPECT_STEER_ERROR(SaeTrainer(o, {.read =
                                        [](auto n) {
                                          return at::ones({n, 5});
                                        },
                                    .skip = {}})
                         .step(),
                     ErrorCode::shape, "[n, 32]");
  EXPECT_STEER_ERROR(SaeTrainer(o, {.read =
                                        [](auto n) {
                                          return at::full({n, 32}, NAN);
                                        },
                                    .skip = {}})
                         .step(),
                     ErrorCode::argument, "finite");
}

TEST(Trainer, SaysHowFullItsBufferIsWhileItFills) {
  test::TempDir dir;
  std::FILE* file = std::fopen((dir / "log").c_str(), "w");
  auto o = small(SaeActivation::topk);
  o.steps = 1;
  o.progress = Progress("training", o.steps, ProgressStyle::lines, file);
  SaeTrainer(o, Synthetic(8, o.d_in, 0.1, 1).source(o.buffer_tokens / 2)).train();
  o.progress.finish();
  std::fclose(file);
  const std::string log = test::read_file(dir / "log");
  EXPECT_TRUE(log.starts_with("training 0/1")) << log;
  EXPECT_NE(log.find(format_text("{} of {} activations in the buffer", o.buffer_tokens / 2, o.buffer_tokens)),
            std::string::npos)
      << log;
}

}  // namespace
}  // namespace steer
