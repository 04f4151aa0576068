// Steps done again from recordings (model/recorded_pass.hpp).
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <bit>

#include "model/cuda/backend_cuda.hpp"
#include "model/cuda/runtime.hpp"

namespace steer::model::detail {
namespace {

/// Rows of a recorded pass, at most: with more, launches cost little beside what they do.
constexpr std::int64_t kMostRecorded = 64;
/// Recordings that are kept, at most.
constexpr std::size_t kRecordings = 64;

}  // namespace

/// Where nothing of a layer is done by libtorch's operators, whose memory is not ours.
bool CudaBackend::records() const {
  const bool plain = std::ranges::all_of(
      model_.config.layers, [](const LayerConfig& l) { return l.mixer == MixerKind::attention && !l.experts; });
  return plain && !model_.split && model_.config.query_growth == 0;
}

at::Tensor CudaBackend::replay(const BatchView& batch, std::span<SequenceCache* const> sequences, RopeTables& ropes,
                               PassEdits* edits, const WholePass& pass) {
  const std::int64_t tokens = batch.size();
  if (tokens > (batch_invariant_ ? kMostRecorded : kFewRows)) return {};
  std::int64_t keys = 0;
  for (const TokenRun& run : batch.runs) keys = std::max(keys, run.position + 1);
  Shape shape{.places = tokens <= 8 ? static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(tokens)))
                                    : (tokens + 7) / 8 * 8,
              .blocks = static_cast<std::int64_t>(
                  std::bit_ceil(static_cast<std::uint64_t>((keys + cuda::kBlock - 1) / cuda::kBlock)))};
  if (edits) shape.edits = edits->shape();
  if (recorded_.size() >= kRecordings && !recorded_.contains(shape)) recorded_.clear();
  const auto [place, is_new] = recorded_.try_emplace(shape);
  if (is_new) return {};  // what comes once is not worth a recording
  Recorded& kept = place->second;
  recording_ = true;
  const auto end = [](CudaBackend* self) { self->recording_ = false; };
  const std::unique_ptr<CudaBackend, decltype(end)> ending(this, end);
  const Rows rows = stage(kept, shape, batch, sequences, ropes, edits);
  const BatchView all{kept.ids, kept.runs};
  if (!kept.recording) {
    // Once as it is, which loads the kernels and makes all buffers; then again, to be recorded.
    const at::Tensor logits = pass(all, rows).narrow(0, 0, tokens).clone();
    kept.recording.emplace([&] { kept.logits = pass(all, rows); });
    return logits;
  }
  kept.recording->launch(cuda::current_stream());
  return kept.logits.narrow(0, 0, tokens).clone();
}

/// Puts what the recorded launches read where they read it.
Rows CudaBackend::stage(Recorded& kept, const Shape& shape, const BatchView& batch,
                        std::span<SequenceCache* const> sequences, RopeTables& ropes, PassEdits* edits) {
  const std::int64_t layers = model_.config.n_layers, tokens = batch.size();
  for (std::int64_t layer = 0; layer < layers; ++layer) reserve(layer, {batch.runs, sequences, {}});
  kept.ids.assign(batch.ids.begin(), batch.ids.end());
  kept.runs.assign(batch.runs.begin(), batch.runs.end());
  kept.sequences.assign(sequences.begin(), sequences.end());
  for (std::int64_t row = tokens; row < shape.places; ++row) {
    kept.ids.push_back(0);
    kept.runs.push_back({.begin = row, .end = row + 1, .prompt_length = 1});
    kept.sequences.push_back(nullptr);
  }
  Rows rows{kept.runs, kept.sequences, {}};
  pass_ = {};
  pass_.tokens = add_tokens(pass_.sent, {kept.ids, kept.runs});
  std::vector<std::pair<std::size_t, std::size_t>> turns;
  std::vector<float> cos, sin;
  for (std::size_t rope = 0; rope < ropes.size(); ++rope) {
    cos.resize(static_cast<std::size_t>(shape.places * ropes.pairs(rope)));
    sin.resize(cos.size());
    ropes.fill(rope, kept.runs, cos.data(), sin.data());
    turns.emplace_back(pass_.sent.add(std::span<const float>(cos)), pass_.sent.add(std::span<const float>(sin)));
  }
  lay_out(pass_, 0, layers, rows, /*with_slots=*/true, shape.blocks);
  if (edits) edits->stage(shape.places, pass_.sent);
  if (!kept.memory.defined())
    kept.memory = at::empty({pass_.sent.bytes()}, at::TensorOptions().device(model_.device).dtype(at::kByte));
  pass_.sent.send(model_.device, kept.memory);
  for (std::size_t rope = 0; rope < ropes.size(); ++rope)
    rows.ropes.push_back({pass_.sent.floats(turns[rope].first, shape.places, ropes.pairs(rope)),
                          pass_.sent.floats(turns[rope].second, shape.places, ropes.pairs(rope))});
  return rows;
}

}  // namespace steer::model::detail
