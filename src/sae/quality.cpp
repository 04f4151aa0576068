#include <steer/sae/quality.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros.h>

#include <steer/core/error.hpp>

namespace steer {
namespace {

/// Sum of the cross-entropies of ids[1..] given logits [tokens, vocab].
double cross_entropy(const at::Tensor& logits, std::span<const std::int64_t> ids) {
  auto next = at::empty({static_cast<std::int64_t>(ids.size()) - 1}, at::kLong);
  std::copy(ids.begin() + 1, ids.end(), next.data_ptr<std::int64_t>());
  const auto log_p = at::log_softmax(logits.slice(0, 0, -1).to(at::kFloat), -1);
  return -log_p.gather(1, next.to(logits.device()).unsqueeze(1)).sum(at::kDouble).item<double>();
}

}  // namespace

SaeQuality measure_quality(const Sae& sae, const at::Tensor& x) {
  constexpr std::string_view where = "measure_quality";
  require(x.defined() && x.dim() == 2 && x.size(0) > 0, ErrorCode::shape, where, "expected activations [tokens, {}]",
          sae.d_in());
  const at::NoGradGuard no_grad;
  constexpr std::int64_t block = 1024;
  SaeQuality q;
  q.tokens = x.size(0);
  double error = 0, active = 0;
  auto fired = at::zeros({sae.d_sae()}, at::TensorOptions().dtype(at::kBool).device(sae.device()));
  for (std::int64_t begin = 0; begin < q.tokens; begin += block) {
    const auto part = x.slice(0, begin, std::min(q.tokens, begin + block));
    error += sae.error(part).square().sum(at::kDouble).item<double>();
    const auto f = sae.encode_sparse(part);
    active += static_cast<double>(f.index.size(0));
    fired.index_fill_(0, f.index, true);
  }
  const auto wide = x.to(at::kDouble);
  const double spread = (wide - wide.mean(0)).square().sum().item<double>();
  const auto tokens = static_cast<double>(q.tokens);
  q.squared_error = error / tokens;
  q.explained_variance = spread > 0 ? 1 - error / spread : 0;
  q.l0 = active / tokens;
  q.dead_share = 1 - fired.to(at::kDouble).mean().item<double>();
  return q;
}

SpliceQuality splice_quality(Session& session, const Sae& sae, std::span<const std::vector<std::int64_t>> sequences,
                             std::optional<HookPoint> point) {
  constexpr std::string_view where = "splice_quality";
  require(!sae.config().transcoder, ErrorCode::unsupported, where, "expected an autoencoder but got a transcoder");
  if (!point) point = sae.config().hook_in;
  require(point.has_value(), ErrorCode::argument, where, "the SAE's configuration names no hook point; give one");
  const at::NoGradGuard no_grad;
  enum class Put { nothing, reconstruction, zeros } put = Put::nothing;
  const auto hook = session.hook(*point, [&](HookContext& at) {
    if (put == Put::nothing) return;
    for (const auto& run : at.batch.runs) {
      const auto begin = run.begin + (run.position == 0 ? 1 : 0);
      if (begin >= run.end) continue;
      auto rows = at.value.slice(0, begin, run.end);
      if (put == Put::zeros)
        rows.zero_();
      else
        rows.copy_(sae.reconstruct(rows));
    }
  });
  SpliceQuality q;
  for (const auto& ids : sequences) {
    if (ids.size() < 2) continue;
    const auto loss_with = [&](Put what) {
      put = what;
      return cross_entropy(session.forward(ids), ids);
    };
    q.clean_loss += loss_with(Put::nothing);
    q.spliced_loss += loss_with(Put::reconstruction);
    q.zero_loss += loss_with(Put::zeros);
    q.tokens += static_cast<std::int64_t>(ids.size()) - 1;
  }
  require(q.tokens > 0, ErrorCode::argument, where, "expected a sequence of two tokens or more but got none");
  for (double* loss : {&q.clean_loss, &q.spliced_loss, &q.zero_loss}) *loss /= static_cast<double>(q.tokens);
  q.loss_recovered = q.zero_loss == q.clean_loss ? 0 : (q.zero_loss - q.spliced_loss) / (q.zero_loss - q.clean_loss);
  return q;
}

}  // namespace steer
