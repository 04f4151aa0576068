// Every model of the golden folders against what transformers computed: logits, all recorded activations, steered
// logits and greedy continuations, through both layouts of config.json.
#include <ATen/TensorOperators.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/std.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include <steer/io/tensor_reader.hpp>
#include <steer/model/session.hpp>

#include "core/format_text.hpp"
#include "support.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;

double max_error(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return std::numeric_limits<double>::infinity();
  return (a.cpu().to(at::kFloat) - b.cpu().to(at::kFloat)).abs().max().item<double>();
}

std::vector<std::int64_t> row_of(const at::Tensor& ids, std::int64_t row) {
  const auto values = ids[row].contiguous();
  return {values.const_data_ptr<std::int64_t>(), values.const_data_ptr<std::int64_t>() + values.numel()};
}

class Golden {
 public:
  explicit Golden(const fs::path& folder) : reader_(open_tensors(folder / "golden.safetensors")) {}
  at::Tensor operator[](const std::string& name) const { return reader_->read(name); }
  bool contains(const std::string& name) const { return reader_->contains(name); }
  const std::vector<TensorInfo>& tensors() const { return reader_->tensors(); }
  std::string meta(const std::string& key) const { return reader_->metadata().at(key).get<std::string>(); }

 private:
  std::shared_ptr<const TensorReader> reader_;
};

/// Greedy continuation of all rows together, and the logits of the last step.
std::pair<at::Tensor, at::Tensor> greedy(Session& session, const at::Tensor& prompts, std::int64_t count) {
  const std::int64_t rows = prompts.size(0);
  std::vector<SequenceId> sequences;
  std::vector<std::vector<std::int64_t>> next;
  for (std::int64_t r = 0; r < rows; ++r) {
    sequences.push_back(session.open());
    next.push_back(row_of(prompts, r));
  }
  std::vector<at::Tensor> steps;
  at::Tensor logits;
  for (std::int64_t i = 0; i < count; ++i) {
    std::vector<StepInput> inputs;
    for (std::int64_t r = 0; r < rows; ++r)
      inputs.push_back({sequences[r], next[r], i == 0 ? Phase::prompt : Phase::generated});
    logits = session.step(inputs, Logits::last);
    const at::Tensor best = logits.argmax(-1);
    steps.push_back(best);
    for (std::int64_t r = 0; r < rows; ++r) next[r] = {best[r].item<std::int64_t>()};
  }
  for (const auto sequence : sequences) session.close(sequence);
  return {at::stack(steps, 1), logits};
}

/// The largest error of each thing compared, by name.
using Errors = std::map<std::string, double>;

Errors compare(const Model& model, const Golden& golden) {
  Errors errors;
  const auto note = [&](const std::string& what, double error) { errors[what] = std::max(errors[what], error); };
  Session session(model);
  const at::Tensor ids = golden["input_ids"], gain = model.final_norm_gain();
  for (std::int64_t r = 0; r < ids.size(0); ++r) {
    const auto cache = session.run_with_cache(row_of(ids, r), {"*"});
    note("logits", max_error(cache.logits, golden["logits"][r]));
    const std::string last = format_text("blocks.{}.hook_resid_post", model.config().n_layers - 1);
    if (golden.contains(last)) note("unembed", max_error(model.unembed(golden[last][r]), golden["logits"][r]));
    if (golden.contains("prefix.logits")) {  // a rope that depends on the length: the first tokens alone differ
      const at::Tensor alone = golden["prefix.logits"][r];
      const auto prefix = row_of(ids.narrow(1, 0, alone.size(0)), r);
      note("prefix.logits", max_error(session.forward(prefix), alone));
    }
    for (const auto& info : golden.tensors())
      if (info.name.starts_with("blocks.")) note(info.name, max_error(cache[info.name], golden[info.name][r]));
    if (model.config().norm == NormKind::rms)
      note("final_norm_out", max_error(cache["ln_final.hook_normalized"] * gain, golden["final_norm_out"][r]));
    for (std::int64_t l = 1; l < model.config().n_layers; ++l)
      note("resid_pre is the resid_post before", max_error(cache[format_text("blocks.{}.hook_resid_pre", l)],
                                                           cache[format_text("blocks.{}.hook_resid_post", l - 1)]));
  }

  const at::Tensor direction = golden["steer_vector"].to(model.device());
  const std::string site = golden.meta("steer_site");
  const std::int64_t steps = golden.contains("gen_ids") ? golden["gen_ids"].size(1) : 0;
  const bool generates = golden.contains("gen_ids");
  if (generates) {
    const auto [tokens, logits] = greedy(session, ids, steps);
    note("gen_ids", max_error(tokens, golden["gen_ids"]));
    note("gen_logits_final_step", max_error(logits, golden["gen_logits_final_step"]));
  }
  {
    const auto off = session.hook(site, [&](HookContext& at) { at.value.add_(direction); });
    for (std::int64_t r = 0; r < ids.size(0); ++r)
      note("steered_all.logits", max_error(session.forward(row_of(ids, r)), golden["steered_all.logits"][r]));
    if (generates)
      note("steered_all.gen_ids", max_error(greedy(session, ids, steps).first, golden["steered_all.gen_ids"]));
  }
  {
    const auto off = session.hook(site, [&](HookContext& at) {
      for (const auto& run : at.batch.runs) at.value[run.end - 1].add_(direction);
    });
    for (std::int64_t r = 0; r < ids.size(0); ++r) {
      const at::Tensor logits = session.forward(row_of(ids, r));
      note("steered_last.logits_last", max_error(logits[-1], golden["steered_last.logits_last"][r]));
      note("steered_last, other positions",
           max_error(logits.narrow(0, 0, logits.size(0) - 1), golden["logits"][r].narrow(0, 0, logits.size(0) - 1)));
    }
  }
  return errors;
}

/// Folders of models below `part` of the golden folder, or in it.
std::vector<fs::path> golden_folders(const test::OutsideData& data, const char* part) {
  std::vector<fs::path> out;
  for (const auto& root : {data.path / part, data.path}) {
    if (!fs::is_directory(root)) continue;
    for (const auto& entry : fs::directory_iterator(root))
      if (fs::exists(entry.path() / "golden.safetensors") && fs::exists(entry.path() / "config.json"))
        out.push_back(entry.path());
    if (!out.empty()) break;
  }
  std::sort(out.begin(), out.end());
  return out;
}

/// The other processes, where tests/together.py started several: then each has a part of every model.
std::shared_ptr<Communicator> others() {
  static const auto all = [] {
    const Workers workers = Workers::from_environment();
    return workers.count > 1 ? connect(workers) : nullptr;
  }();
  return all;
}

/// The model in a folder, its configuration taken from another file of it.
Model load_with(const fs::path& folder, const char* config, LoadOptions options = {}) {
  const char* device = std::getenv("STEER_TEST_DEVICE");  // "cuda:0", with bench/gpu/run.sh; else the CPU
  if (device && *device) options.device = at::Device(device);
  options.parallel = others();
  std::ifstream file(folder / config);
  return Model::from_tensors(ModelConfig::from_hugging_face(nlohmann::json::parse(file)), *open_tensors(folder),
                             options);
}

/// Compares the model of a folder, through each layout of its configuration.
void check_folder(const fs::path& folder, const Golden& golden, test::CaseCounter& counter, double& worst) {
  for (const char* config : {"config.json", "config.v5.json"}) {
    if (!fs::exists(folder / config)) continue;
    const std::string name = folder.filename().string();
    try {
      for (const auto& [what, error] : compare(load_with(folder, config), golden)) {
        const double limit = what.ends_with("gen_ids") ? 0 : 1e-4;
        counter.count(error <= limit);
        EXPECT_LE(error, limit) << name << " (" << config << "): " << what;
        worst = std::max(worst, error);
      }
    } catch (const std::exception& error) {
      counter.count(false);
      ADD_FAILURE() << name << " (" << config << "): " << error.what();
    }
  }
}

/// A run in bf16, of weights alone or of activations too, lies as far from the f32 logits as the reference's own does,
/// or nearer.
void check_bf16(const fs::path& folder, const Golden& golden, test::CaseCounter& counter) {
  const at::Tensor reference = golden["logits"];
  for (const auto compute : {ComputeFormat::f32, ComputeFormat::bf16}) {
    Session session(load_with(folder, "config.json", {.weights = WeightFormat::bf16, .compute = compute}));
    for (std::int64_t r = 0; r < reference.size(0); ++r) {
      const auto ours = (session.forward(row_of(golden["input_ids"], r)).cpu() - reference[r]).abs();
      const auto theirs = (golden["bf16.logits"][r].to(at::kFloat) - reference[r]).abs();
      const bool ok = ours.max().item<double>() <= theirs.max().item<double>() &&
                      ours.mean().item<double>() <= theirs.mean().item<double>();
      counter.count(ok);
      EXPECT_TRUE(ok) << folder.filename() << " bf16, activations " << to_string(compute) << ": mean "
                      << ours.mean().item<double>() << " (reference " << theirs.mean().item<double>() << "), max "
                      << ours.max().item<double>() << " (" << theirs.max().item<double>() << ")";
    }
  }
}

/// Eight bits of weights and of activations: a tenth of the logits' own spread is what the first take (model.Load).
void check_int8(const fs::path& folder, const Golden& golden, test::CaseCounter& counter) {
  const at::Tensor reference = golden["logits"];
  Session session(load_with(folder, "config.json", {.weights = WeightFormat::int8, .compute = ComputeFormat::int8}));
  for (std::int64_t r = 0; r < reference.size(0); ++r) {
    const at::Tensor error = (session.forward(row_of(golden["input_ids"], r)).cpu() - reference[r]).abs();
    const bool ok = error.mean().item<double>() <= 0.1 * reference.std().item<double>();
    counter.count(ok);
    EXPECT_TRUE(ok) << folder.filename() << " int8: mean " << error.mean().item<double>() << ", logits' deviation "
                    << reference.std().item<double>();
  }
}

TEST(GoldenModels, EqualTheReference) {
  const auto data = test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden");
  if (!data.present && !data.named)
    GTEST_SKIP() << "no golden models at " << data.path << " (STEER_GOLDEN_DIR names them)";
  test::CaseCounter counter("golden.models");
  double worst = 0;
  for (const auto& folder : golden_folders(data, "models")) {
    const std::string name = folder.filename().string();
    const Golden golden(folder);
    check_folder(folder, golden, counter, worst);
    if (golden.contains("bf16.logits")) check_bf16(folder, golden, counter);
    check_int8(folder, golden, counter);
  }
  std::printf("golden.models: largest absolute error %.2e\n", worst);
  if (data.named) {
    EXPECT_GT(counter.passed() + counter.failed(), 0) << "no case in " << data.path;
  }
}

TEST(GoldenFamilies, EqualTheReference) {
  const auto data = test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden");
  const auto folders = golden_folders(data, "families");
  if (folders.empty() && !data.named)
    GTEST_SKIP() << "no golden families at " << data.path << " (STEER_GOLDEN_DIR names them)";
  test::CaseCounter counter("golden.families");
  double worst = 0;
  for (const auto& folder : folders) {
    const Golden golden(folder);
    check_folder(folder, golden, counter, worst);
    try {
      Session session(Model::load(folder, {.parallel = others()}));
      const double error = max_error(session.forward(row_of(golden["input_ids"], 0)), golden["logits"][0]);
      counter.count(error <= 1e-4);
      EXPECT_LE(error, 1e-4) << folder;
    } catch (const std::exception& error) {
      counter.count(false);
      ADD_FAILURE() << folder << ": " << error.what();
    }
  }
  std::printf("golden.families: largest absolute error %.2e\n", worst);
  if (data.named) {
    EXPECT_FALSE(folders.empty()) << "no case in " << data.path;
  }
}

TEST(GoldenModels, LoadsFromTheFolder) {
  const auto data = test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden");
  if (!data.present && !data.named)
    GTEST_SKIP() << "no golden models at " << data.path << " (STEER_GOLDEN_DIR names them)";
  test::CaseCounter counter("golden.models");
  for (const auto& folder : golden_folders(data, "models")) {
    const Golden golden(folder);
    Session session(Model::load(folder, {.parallel = others()}));
    const double error = max_error(session.forward(row_of(golden["input_ids"], 0)), golden["logits"][0]);
    counter.count(error <= 1e-4);
    EXPECT_LE(error, 1e-4) << folder;
  }
}

}  // namespace
}  // namespace steer
