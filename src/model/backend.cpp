#include "model/backend.hpp"

#ifdef STEER_CUDA
#include "model/cuda/backend_cuda.hpp"
#endif

namespace steer::model::detail {

std::unique_ptr<Backend> (*kernel_backend_for_testing)(const Transformer&, KvCache&, bool) = nullptr;

std::unique_ptr<Backend> make_kernel_backend(const Transformer& model, KvCache& cache, bool batch_invariant) {
  if (kernel_backend_for_testing) return kernel_backend_for_testing(model, cache, batch_invariant);
  if (model.device.is_cpu()) return std::make_unique<CpuBackend>(model, cache, batch_invariant);
#ifdef STEER_CUDA
  if (model.device.is_cuda()) return std::make_unique<CudaBackend>(model, cache, batch_invariant);
#endif
  return nullptr;
}

at::Tensor Backend::replay(const BatchView&, std::span<SequenceCache* const>, RopeTables&, PassEdits*,
                           const WholePass&) {
  return {};
}

at::Tensor Backend::embed(const BatchView& batch) {
  at::Tensor x = model_.embed.gather(batch.ids);
  if (model_.config.embed_scale != 1) x.mul_(model_.config.embed_scale);
  if (model_.positions.defined())
    for (const auto& run : batch.runs)
      x.narrow(0, run.begin, run.end - run.begin).add_(model_.positions.narrow(0, run.position, run.end - run.begin));
  return x;
}

void Backend::reserve(std::int64_t layer, const Rows& rows) {
  for (std::size_t i = 0; i < rows.runs.size(); ++i)
    cache_.reserve(cache_of(rows, i, layer), rows.runs[i].position, rows.runs[i].end - rows.runs[i].begin);
}

void Backend::rotate_and_store(std::int64_t layer, at::Tensor& q, at::Tensor& k, const at::Tensor& v,
                               const RopeTables::Rows* rope, const Rows& rows) {
  if (rope) {
    rotate(q, *rope);
    rotate(k, *rope);
  }
  store(layer, k, v, rows);
}

at::Tensor Backend::add_norm(at::Tensor& x, const at::Tensor& y, const Norm& by) {
  add(x, y);
  return norm(x, by, true);
}

at::Tensor Backend::delta_net(std::int64_t layer, const at::Tensor& qkv, const at::Tensor& beta,
                              const at::Tensor& alpha, const Rows& rows) {
  std::vector<DeltaNetRun> runs;
  for (std::size_t i = 0; i < rows.runs.size(); ++i) {
    const TokenRun& run = rows.runs[i];
    DeltaNetRun mine{run.begin, run.end, nullptr};
    for (std::size_t j = 0; j < i; ++j)
      if (rows.sequences[j] == rows.sequences[i]) mine.follows = static_cast<std::int64_t>(j);
    if (mine.follows < 0) mine.before = KvCache::state(cache_of(rows, i, layer), run.position);
    runs.push_back(std::move(mine));
  }
  std::vector<RecurrentState> after(runs.size());
  at::Tensor out = recur(model_.layers[static_cast<std::size_t>(layer)].delta_net, qkv, beta, alpha, runs, after);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const TokenRun& run = rows.runs[i];
    cache_.remember(cache_of(rows, i, layer), run.position + run.end - run.begin,
                    {after[i].memory.detach(), after[i].columns.detach()});
  }
  return out;
}

}  // namespace steer::model::detail
