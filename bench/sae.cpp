// Speed of sparse autoencoders, by lines on stdin, one JSON object a line on stdout (bench/peers/run_sae_pairs.py asks
// it and a Python peer in turn):
//   train ACTIVATION D_IN D_SAE BATCH K STEPS   steps of SaeTrainer on normal noise, after two that warm up
//   encode D_IN D_SAE TOKENS                    dense encode of a jumprelu SAE
//   subset D_IN D_SAE TOKENS FEATURES           encode_subset of the same
//   decode D_IN D_SAE TOKENS K                  sparse decode, K active features a token
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <chrono>
#include <iostream>
#include <map>
#include <sstream>

#include <steer/core/error.hpp>
#include <steer/core/threads.hpp>
#include <steer/sae/trainer.hpp>

namespace {

using namespace steer;

double seconds(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Median seconds of one call, after a first that does not count.
double median(const auto& work, double budget = 2.0) {
  work();
  std::vector<double> times;
  for (double spent = 0; times.size() < 5 || (spent < budget && times.size() < 1000); spent += times.back())
    times.push_back(seconds(work));
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

/// Trainers are kept between lines: a repeat measures steps, not the set-up.
double train(std::istream& line, std::int64_t& tokens) {
  static std::map<std::string, SaeTrainer> trainers;
  std::string activation;
  SaeTrainingOptions o;
  std::int64_t steps = 0;
  line >> activation >> o.d_in >> o.d_sae >> o.batch_tokens >> o.k >> steps;
  o.activation = parse_enum<SaeActivation>(activation, "bench sae");
  o.steps = 1 << 30;
  o.buffer_tokens = 2 * o.batch_tokens;
  auto [at, made] =
      trainers.try_emplace(fmt::format("{} {} {} {} {}", activation, o.d_in, o.d_sae, o.batch_tokens, o.k), o,
                           ActivationSource{.read =
                                                [d = o.d_in](std::int64_t n) {
                                                  return at::randn({n, d});
                                                },
                                            .skip = {}});
  for (int i = 0; made && i < 2; ++i) at->second.step();
  tokens = steps * o.batch_tokens;
  return seconds([&] {
    for (std::int64_t i = 0; i < steps; ++i) at->second.step();
  });
}

const Sae& sae_of(std::int64_t d, std::int64_t f) {
  static std::map<std::pair<std::int64_t, std::int64_t>, Sae> saes;
  if (const auto found = saes.find({d, f}); found != saes.end()) return found->second;
  SaeConfig config;
  config.activation = SaeActivation::jumprelu;
  SaeWeights w;
  w.W_enc = at::randn({d, f});
  w.W_dec = at::randn({f, d});
  w.threshold = at::full({f}, 2.5 * std::sqrt(static_cast<double>(d)));
  return saes.emplace(std::pair{d, f}, Sae::from_weights(config, w)).first->second;
}

}  // namespace

int main() {
  const at::NoGradGuard no_grad;
  set_threads(0);
  fmt::print("{{\"program\": \"steer\", \"threads\": {}}}\n", threads());
  std::fflush(stdout);
  for (std::string text; std::getline(std::cin, text);) {
    std::istringstream line(text);
    std::string what;
    line >> what;
    std::int64_t tokens = 0;
    double time = 0;
    if (what == "train") {
      time = train(line, tokens);
    } else {
      std::int64_t d = 0, f = 0, n = 0;
      line >> d >> f >> tokens >> n;
      const auto& sae = sae_of(d, f);
      const auto x = at::randn({tokens, d});
      std::vector<std::int64_t> features;
      for (std::int64_t i = 0; i < n; ++i) features.push_back((i + 1) * f / (n + 1));
      if (what == "encode") {
        time = median([&] { sae.encode(x); });
      } else if (what == "subset") {
        time = median([&] { sae.encode_subset(x, features); });
      } else if (what == "decode") {
        SparseActivations sparse;
        sparse.d_sae = f;
        sparse.offsets = at::arange(0, (tokens + 1) * n, n, at::kLong).slice(0, 0, tokens + 1);
        sparse.index = at::randint(f, {tokens * n}, at::kLong);
        sparse.value = at::rand({tokens * n});
        time = median([&] { sae.decode(sparse); });
      } else {
        fmt::print(stderr, "unknown work: {}\n", text);
        return 2;
      }
    }
    fmt::print("{{\"work\": \"{}\", \"tokens\": {}, \"seconds\": {:.9f}}}\n", text, tokens, time);
    std::fflush(stdout);
  }
}
