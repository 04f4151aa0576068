// A model of a true shape with random weights on a card: the rows of docs/performance-gpu.md. bench/gpu/run.sh runs it.
//
//   bench/card SHAPE [stored|int8] [DEVICE]     SHAPE: tiny, 1b, 8b (of Llama 3); DEVICE: cuda:0, or cpu to rehearse
//
// Every figure is the median of five repeats with their extremes, after one that is not counted.

#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/core/error.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/model/model.hpp>
#include <steer/model/session.hpp>
#include <steer/steering/steering.hpp>

#include "limits.hpp"

namespace {

using namespace steer;

struct Shape {
  const char* name;
  std::int64_t layers, d, heads, kv_heads, mlp, vocab;
};
constexpr Shape kShapes[] = {
    {"tiny", 2, 64, 4, 2, 128, 512}, {"1b", 16, 2048, 32, 8, 8192, 128256}, {"8b", 32, 4096, 32, 8, 14336, 128256}};

const Shape& shape_of(const std::string& name) {
  for (const auto& shape : kShapes)
    if (name == shape.name) return shape;
  fail(ErrorCode::argument, "bench/card", "expected tiny, 1b or 8b but got \"{}\"", name);
}

/// Every matrix is a window of one random buffer: the numbers do not matter, the bytes do.
Model random_model(const Shape& s, const LoadOptions& options) {
  const std::int64_t largest = std::max(s.vocab, s.mlp) * s.d;
  const at::Tensor pool = (at::randn({largest}) * 0.02).to(at::kBFloat16), ones = at::ones({s.d}, at::kBFloat16);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  const auto add = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    tensors.emplace_back(name, pool.narrow(0, 0, out * in).view({out, in}));
  };
  add("model.embed_tokens.weight", s.vocab, s.d);
  add("lm_head.weight", s.vocab, s.d);
  tensors.emplace_back("model.norm.weight", ones);
  const std::int64_t kv = s.d / s.heads * s.kv_heads;
  for (std::int64_t l = 0; l < s.layers; ++l) {
    const std::string p = fmt::format("model.layers.{}.", l);
    tensors.emplace_back(p + "input_layernorm.weight", ones);
    tensors.emplace_back(p + "post_attention_layernorm.weight", ones);
    add(p + "self_attn.q_proj.weight", s.d, s.d), add(p + "self_attn.o_proj.weight", s.d, s.d);
    add(p + "self_attn.k_proj.weight", kv, s.d), add(p + "self_attn.v_proj.weight", kv, s.d);
    add(p + "mlp.gate_proj.weight", s.mlp, s.d), add(p + "mlp.up_proj.weight", s.mlp, s.d);
    add(p + "mlp.down_proj.weight", s.d, s.mlp);
  }
  const nlohmann::json config = {{"model_type", "llama"},
                                 {"hidden_size", s.d},
                                 {"num_hidden_layers", s.layers},
                                 {"num_attention_heads", s.heads},
                                 {"num_key_value_heads", s.kv_heads},
                                 {"intermediate_size", s.mlp},
                                 {"vocab_size", s.vocab},
                                 {"max_position_embeddings", 8192},
                                 {"rms_norm_eps", 1e-5},
                                 {"tie_word_embeddings", false}};
  return Model::from_tensors(ModelConfig::from_hugging_face(config), *tensors_in_memory(std::move(tensors), {}),
                             options);
}

std::vector<std::int64_t> prompt_of(std::int64_t length, std::int64_t row, std::int64_t vocab) {
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < length; ++i)
    ids.push_back((17 + 31 * i + 101 * row) % std::min<std::int64_t>(vocab, 30000));
  return ids;
}

using Steerings = std::vector<InterventionPtr>;

/// Seconds of one greedy step of all rows, after prompts of 128 tokens. @param steerings  of rows by turns; or none.
double step_seconds(Session& session, std::int64_t rows, std::int64_t steps, const Steerings& steerings = {}) {
  std::vector<SequenceId> open;
  std::vector<std::vector<std::int64_t>> last;
  const std::int64_t vocab = session.model().config().vocab_size;
  for (std::int64_t r = 0; r < rows; ++r) {
    open.push_back(steerings.empty()
                       ? session.open()
                       : session.open({.steering = steerings[static_cast<std::size_t>(r) % steerings.size()]}));
    const auto ids = prompt_of(128, r, vocab);
    last.push_back({session.step({{open.back(), ids}}).argmax(-1).item<std::int64_t>()});
  }
  const double elapsed = bench::seconds([&] {
    for (std::int64_t i = 0; i < steps; ++i) {
      std::vector<StepInput> inputs;
      for (std::size_t r = 0; r < open.size(); ++r) inputs.push_back({open[r], last[r], Phase::generated});
      const at::Tensor next = session.step(inputs).argmax(-1).cpu();
      for (std::size_t r = 0; r < open.size(); ++r) last[r] = {next.const_data_ptr<std::int64_t>()[r]};
    }
  });
  for (const auto id : open) session.close(id);
  return elapsed / static_cast<double>(steps);
}

double prompt_seconds(Session& session, std::int64_t tokens) {
  const auto ids = prompt_of(tokens, 1, session.model().config().vocab_size);
  return bench::seconds([&] {
    const SequenceId sequence = session.open();
    session.step({{sequence, ids}}).argmax(-1).item<std::int64_t>();
    session.close(sequence);
  });
}

/// Bytes a second of a large copy, both ways counted.
double copy_rate(at::Device device) {
  const std::int64_t bytes = device.is_cuda() ? std::int64_t{4} << 30 : std::int64_t{64} << 20;
  const at::Tensor from = at::zeros({bytes}, at::TensorOptions().dtype(at::kByte).device(device));
  at::Tensor to = at::empty_like(from);
  double best = 0;
  for (int i = 0; i < 5; ++i)
    best = std::max(best, 2 * static_cast<double>(bytes) / bench::seconds([&] {
                            to.copy_(from);
                            to[0].item<std::uint8_t>();
                          }));
  return best;
}

/// Operations a second of a square product in bf16.
double product_rate(at::Device device) {
  const std::int64_t n = device.is_cuda() ? 8192 : 256;
  const at::Tensor a = at::randn({n, n}, at::TensorOptions().device(device)).to(at::kBFloat16);
  double best = 0;
  for (int i = 0; i < 5; ++i)
    best = std::max(best, 20.0 * static_cast<double>(n * n * n) / bench::seconds([&] {
                            at::Tensor out;
                            for (int j = 0; j < 10; ++j) out = at::mm(a, a);
                            out[0][0].item<float>();
                          }));
  return best;
}

void row(const std::string& work, const std::string& unit, const std::function<double()>& measure) {
  measure();
  std::vector<double> values;
  for (int i = 0; i < 5; ++i) values.push_back(measure());
  std::sort(values.begin(), values.end());
  fmt::print("| {} | {:.4g} [{:.4g}, {:.4g}] | {} |\n", work, values[2], values[0], values[4], unit);
  std::fflush(stdout);
}

/// Adds a vector at each of three layers. @param conditional  where a probe there says so.
InterventionPtr three_vectors(const Model& model, std::int64_t seed, bool conditional = false) {
  const auto& c = model.config();
  Steering steering;
  for (std::int64_t i = 0; i < 3; ++i) {
    const HookPoint at{Site::resid_post, (i + 1) * c.n_layers / 4};
    const at::Tensor v = at::sin(at::arange(c.d_model, at::kFloat) + static_cast<double>(seed * 3 + i));
    EditOptions options;
    if (conditional) options.when = Condition::probe_above(v, 0, {.point = at});
    steering.add(v, at, 0.1, options);
  }
  return steering;
}

void run(const std::string& name, WeightFormat weights, at::Device device) {
  const Shape& shape = shape_of(name);
  const double copy = copy_rate(device), product = product_rate(device);
  fmt::print("{} {} on {}: copy {:.0f} GB/s, bf16 products {:.0f} TFLOP/s\n\n", name,
             EnumTable<WeightFormat>::entries[static_cast<std::size_t>(weights)].name, device.str(), copy / 1e9,
             product / 1e12);
  double load = 0;
  std::optional<Model> model;
  load = bench::seconds([&] { model.emplace(random_model(shape, {.weights = weights, .device = device})); });
  const auto bytes = static_cast<double>(model->weight_bytes());
  fmt::print("{:.2f} GB of weights, loaded in {:.1f} s\n\n| work | median [least, most] | unit |\n|---|---|---|\n",
             bytes / 1e9, load);
  const bool real = device.is_cuda();
  Session session(*model, {.cache = CacheFormat::bf16}),
      invariant(*model, {.batch_invariant = true, .cache = CacheFormat::bf16}),
      launched(*model, {.cache = CacheFormat::bf16, .graphs = false});
  const std::int64_t steps = real ? 32 : 2;
  for (const std::int64_t rows : {1, 8, 64})
    row(fmt::format("decode, {} rows", rows), "tokens/s",
        [&] { return static_cast<double>(rows) / step_seconds(session, rows, steps); });
  row("decode, 1 row: share of the copy's rate", "", [&] { return bytes / step_seconds(session, 1, steps) / copy; });
  for (const std::int64_t rows : {8, 64})
    row(fmt::format("decode, {} rows, batch_invariant", rows), "tokens/s",
        [&] { return static_cast<double>(rows) / step_seconds(invariant, rows, steps); });
  for (const std::int64_t rows : {1, 8})
    row(fmt::format("decode, {} rows: time without graphs over with", rows), "",
        [&] { return step_seconds(launched, rows, steps) / step_seconds(session, rows, steps); });
  const std::int64_t prompt = real ? 2048 : 48;
  const double work = 2 * static_cast<double>(prompt) *
                      static_cast<double>(shape.layers * shape.d *
                                          (2 * shape.d + 2 * shape.d / shape.heads * shape.kv_heads + 3 * shape.mlp));
  row(fmt::format("prompt of {}", prompt), "tokens/s",
      [&] { return static_cast<double>(prompt) / prompt_seconds(session, prompt); });
  row(fmt::format("prompt of {}: share of the products' rate", prompt), "",
      [&] { return work / prompt_seconds(session, prompt) / product; });
  for (const std::int64_t rows : {1, 64}) {
    const Steerings one{three_vectors(*model, 1)};
    row(fmt::format("three vectors, {} rows: time over unsteered", rows), "",
        [&] { return step_seconds(session, rows, steps, one) / step_seconds(session, rows, steps); });
  }
  Steerings many;
  for (std::int64_t i = 0; i < 64; ++i) many.push_back(three_vectors(*model, i));
  row("64 rows, 64 steerings: time over unsteered", "",
      [&] { return step_seconds(session, 64, steps, many) / step_seconds(session, 64, steps); });
  const Steerings gated{three_vectors(*model, 1, /*conditional=*/true)};
  row("three vectors under a condition, 8 rows: time over unsteered", "",
      [&] { return step_seconds(session, 8, steps, gated) / step_seconds(session, 8, steps); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print(stderr, "usage: bench/card tiny|1b|8b [stored|int8] [cuda:0|cpu]\n");
    return 2;
  }
  try {
    run(argv[1], argc > 2 ? steer::parse_enum<steer::WeightFormat>(argv[2], "bench/card") : steer::WeightFormat::stored,
        at::Device(argc > 3 ? argv[3] : "cuda:0"));
  } catch (const std::exception& error) {
    const std::string what = error.what();
    fmt::print(stderr, "{}\n", what.substr(0, what.find('\n')));  // libtorch's go on with the stack
    return 1;
  }
  return 0;
}
