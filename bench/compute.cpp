// What rounding activations costs (LoadOptions::compute): the next token's distribution after every token of a text,
// against the same weights with activations as they are.
//
//   bench/compute PATH [stored|f32|bf16|int8] [TOKENS] < TEXT      PATH: a Hugging Face folder or a GGUF file
//
// prints for each format of activations, over TOKENS (2000) tokens in pieces of 100: the Kullback-Leibler divergence in
// nats (mean, median, 99th of 100, most), how often the likeliest token is the same, and the largest difference of a
// log-probability of the text's own next token.

#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/core/threads.hpp>
#include <steer/model/model.hpp>
#include <steer/model/session.hpp>

namespace {

using namespace steer;

constexpr std::int64_t kPiece = 100;

using Pieces = std::vector<std::vector<std::int64_t>>;

Pieces pieces_of(const Model& model, const std::string& text, std::int64_t tokens) {
  const auto ids = model.tokenizer().encode(text);
  require(std::ssize(ids) >= tokens && tokens >= kPiece, ErrorCode::argument, "bench",
          "expected a text of at least {} tokens but got {}", std::max(tokens, kPiece), ids.size());
  Pieces out;
  for (std::int64_t at = 0; at + kPiece <= tokens; at += kPiece)
    out.emplace_back(ids.begin() + at, ids.begin() + at + kPiece);
  return out;
}

struct Differences {
  std::vector<double> divergence;  ///< of each token
  std::int64_t same = 0;           ///< tokens whose likeliest successor is the same
  double most_log_probability = 0;
};

void compare(Session& exact, Session& rounded, std::span<const std::int64_t> ids, Differences& out) {
  const auto logs = [&](Session& session) { return at::log_softmax(session.forward(ids), -1).to(at::kDouble); };
  const at::Tensor p = logs(exact), q = logs(rounded);
  const at::Tensor divergence = (p.exp() * (p - q)).sum(-1).contiguous();
  out.divergence.insert(out.divergence.end(), divergence.const_data_ptr<double>(),
                        divergence.const_data_ptr<double>() + divergence.numel());
  out.same += p.argmax(-1).eq(q.argmax(-1)).sum().item<std::int64_t>();
  const at::Tensor next = at::tensor(at::ArrayRef(ids.data() + 1, ids.size() - 1)).unsqueeze(1);
  const at::Tensor change = (p - q).narrow(0, 0, next.size(0)).gather(1, next).abs();
  out.most_log_probability = std::max(out.most_log_probability, change.max().item<double>());
}

void run(const std::string& path, WeightFormat weights, std::int64_t tokens) {
  const std::string text{std::istreambuf_iterator<char>(std::cin), {}};
  const Model exact = Model::load(path, {.weights = weights});
  const Pieces pieces = pieces_of(exact, text, tokens);
  fmt::print("{:8} {:>10} {:>10} {:>10} {:>10} {:>8} {:>10}\n", "compute", "mean KL", "median", "99 %", "most", "same",
             "log p");
  Session one(exact);
  for (const auto& entry : EnumTable<ComputeFormat>::entries) {
    Session other(Model::load(path, {.weights = weights, .compute = entry.value}));
    Differences d;
    for (const auto& ids : pieces) compare(one, other, ids, d);
    std::sort(d.divergence.begin(), d.divergence.end());
    double sum = 0;
    for (double v : d.divergence) sum += v;
    const auto count = d.divergence.size();
    fmt::print("{:8} {:10.2e} {:10.2e} {:10.2e} {:10.2e} {:7.2f}% {:10.2e}\n", entry.name,
               sum / static_cast<double>(count), d.divergence[count / 2], d.divergence[count * 99 / 100],
               d.divergence.back(), 100.0 * static_cast<double>(d.same) / static_cast<double>(count),
               d.most_log_probability);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: bench/compute PATH [stored|f32|bf16|int8] [TOKENS] < TEXT\n");
    return 2;
  }
  try {
    set_threads(0);
    run(argv[1], argc > 2 ? parse_enum<WeightFormat>(argv[2], "bench") : WeightFormat::stored,
        argc > 3 ? std::stoll(argv[3]) : 2000);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
