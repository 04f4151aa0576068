// A model of a true shape with random weights on a card: the rows of docs/performance-gpu.md. bench/gpu/run.sh runs it.
//
//   bench/card SHAPE [WEIGHTS] [DEVICE]     SHAPE: tiny, 1b, 8b, 70b (of Llama 3); DEVICE: cuda:0, or cpu to rehearse
//   WEIGHTS: BF16; int8, which is made of it while loading; Q4_K or Q8_0, as a GGUF file has them
//
// Every figure is the median of five repeats with their extremes, after one that is not counted.

#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

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
constexpr Shape kShapes[] = {{"tiny", 2, 256, 4, 2, 512, 512},
                             {"1b", 16, 2048, 32, 8, 8192, 128256},
                             {"8b", 32, 4096, 32, 8, 14336, 128256},
                             {"70b", 80, 8192, 64, 8, 28672, 128256}};

const Shape& shape_of(const std::string& name) {
  for (const auto& shape : kShapes)
    if (name == shape.name) return shape;
  fail(ErrorCode::argument, "bench/card", "expected tiny, 1b, 8b or 70b but got \"{}\"", name);
}

/// How many bytes so many values take, and where half-precision scales lie in them: small, so that sums stay finite.
struct Storage {
  const char* name;
  at::ScalarType type;
  std::int64_t values, bytes;
  std::vector<std::int64_t> scales;
};
const Storage kStorages[] = {{"F32", at::kFloat, 1, 4, {}},
                             {"BF16", at::kBFloat16, 1, 2, {}},
                             {"Q4_K", at::kByte, 256, 144, {0, 2}},
                             {"Q8_0", at::kByte, 32, 34, {0}}};

const Storage& storage_of(const std::string& name) {
  for (const auto& storage : kStorages)
    if (name == storage.name) return storage;
  fail(ErrorCode::argument, "bench/card", "expected weights of BF16, Q4_K or Q8_0, or int8, but got \"{}\"", name);
}

/// Tensors that are windows of one random buffer each kind: the numbers do not matter, the bytes do.
class RandomTensors final : public TensorReader {
 public:
  explicit RandomTensors(const Storage& matrices, std::int64_t largest)
      : matrices_(matrices), ones_(at::ones({largest / 256}, at::kFloat)) {
    if (matrices.type != at::kByte) {
      pool_ = (at::randn({largest}) * 0.02).to(matrices.type).view(at::kByte);
      return;
    }
    pool_ = at::randint(0, 256, {largest / matrices.values, matrices.bytes}, at::kByte);
    for (const std::int64_t at : matrices.scales)
      pool_.narrow(1, at, 2).copy_(at::full({1}, 2e-4, at::kHalf).view(at::kByte).view({1, 2}));
    pool_ = pool_.flatten();
  }
  void add(const std::string& name, std::int64_t out, std::int64_t in) { put(name, {out, in}, matrices_); }
  void add_ones(const std::string& name, std::int64_t width) { put(name, {width}, storage_of("F32")); }
  void finish() { index_names(); }

  std::string_view format() const override { return "memory"; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const nlohmann::json& metadata() const override { return metadata_; }
  const std::filesystem::path& path() const override { return path_; }

 protected:
  at::Tensor read_rows_of(const TensorInfo& info, std::int64_t begin, std::int64_t end) const override {
    if (info.shape.size() == 1) return ones_.narrow(0, begin, end - begin);
    require(matrices_.type != at::kByte, ErrorCode::unsupported, "bench/card",
            "expected blocks to be kept as they are");
    const std::int64_t row = info.bytes / info.shape[0];
    return pool_.narrow(0, begin * row, (end - begin) * row).view(matrices_.type).view({end - begin, info.shape[1]});
  }
  at::Tensor raw_of(const TensorInfo& info) const override { return pool_.narrow(0, 0, info.bytes); }

 private:
  void put(const std::string& name, std::vector<std::int64_t> shape, const Storage& storage) {
    std::int64_t count = 1;
    for (const std::int64_t n : shape) count *= n;
    infos_.push_back({.name = name,
                      .shape = std::move(shape),
                      .storage = storage.name,
                      .dtype = storage.type == at::kByte ? at::kFloat : storage.type,
                      .bytes = count / storage.values * storage.bytes});
  }

  const Storage& matrices_;
  at::Tensor ones_, pool_;
  std::vector<TensorInfo> infos_;
  nlohmann::json metadata_ = nlohmann::json::object();
  std::filesystem::path path_ = "random";
};

Model random_model(const Shape& s, const Storage& storage, const LoadOptions& options) {
  RandomTensors tensors(storage, std::max(s.vocab, s.mlp) * s.d);
  tensors.add("model.embed_tokens.weight", s.vocab, s.d);
  tensors.add("lm_head.weight", s.vocab, s.d);
  tensors.add_ones("model.norm.weight", s.d);
  const std::int64_t kv = s.d / s.heads * s.kv_heads;
  for (std::int64_t l = 0; l < s.layers; ++l) {
    const std::string p = fmt::format("model.layers.{}.", l);
    tensors.add_ones(p + "input_layernorm.weight", s.d);
    tensors.add_ones(p + "post_attention_layernorm.weight", s.d);
    tensors.add(p + "self_attn.q_proj.weight", s.d, s.d);
    tensors.add(p + "self_attn.k_proj.weight", kv, s.d);
    tensors.add(p + "self_attn.v_proj.weight", kv, s.d);
    tensors.add(p + "self_attn.o_proj.weight", s.d, s.d);
    tensors.add(p + "mlp.gate_proj.weight", s.mlp, s.d);
    tensors.add(p + "mlp.up_proj.weight", s.mlp, s.d);
    tensors.add(p + "mlp.down_proj.weight", s.d, s.mlp);
  }
  tensors.finish();
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
  return Model::from_tensors(ModelConfig::from_hugging_face(config), tensors, options);
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
  const std::int64_t vocab = session.model().config().vocab_size;
  std::vector<std::vector<std::int64_t>> last;
  std::vector<StepInput> prompts;
  for (std::int64_t r = 0; r < rows; ++r) last.push_back(prompt_of(128, r, vocab));
  for (std::size_t r = 0; r < last.size(); ++r) {
    open.push_back(steerings.empty() ? session.open() : session.open({.steering = steerings[r % steerings.size()]}));
    prompts.push_back({open.back(), last[r]});
  }
  const auto draw = [&](const std::vector<StepInput>& inputs) {
    const at::Tensor next = session.step(inputs).argmax(-1).cpu();
    for (std::size_t r = 0; r < open.size(); ++r) last[r] = {next.const_data_ptr<std::int64_t>()[r]};
  };
  draw(prompts);
  const double elapsed = bench::seconds([&] {
    for (std::int64_t i = 0; i < steps; ++i) {
      std::vector<StepInput> inputs;
      for (std::size_t r = 0; r < open.size(); ++r) inputs.push_back({open[r], last[r], Phase::generated});
      draw(inputs);
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

void run(const std::string& name, const std::string& weights, at::Device device) {
  const Shape& shape = shape_of(name);
  const bool int8 = weights == "int8";
  const Storage& storage = storage_of(int8 ? "BF16" : weights);
  const double copy = copy_rate(device), product = product_rate(device);
  fmt::print("{} {} on {}: copy {:.0f} GB/s, bf16 products {:.0f} TFLOP/s\n\n", name, weights, device.str(), copy / 1e9,
             product / 1e12);
  double load = 0;
  std::optional<Model> model;
  load = bench::seconds([&] {
    model.emplace(
        random_model(shape, storage, {.weights = int8 ? WeightFormat::int8 : WeightFormat::stored, .device = device}));
  });
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
    fmt::print(stderr, "usage: bench/card tiny|1b|8b|70b [BF16|int8|Q4_K|Q8_0] [cuda:0|cpu]\n");
    return 2;
  }
  try {
    run(argv[1], argc > 2 ? argv[2] : "BF16", at::Device(argc > 3 ? argv[3] : "cuda:0"));
  } catch (const std::exception& error) {
    const std::string what = error.what();
    fmt::print(stderr, "{}\n", what.substr(0, what.find('\n')));  // libtorch's go on with the stack
    return 1;
  }
  return 0;
}
