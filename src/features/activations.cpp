#include <steer/features/activations.hpp>

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include <steer/core/error.hpp>

namespace steer {
namespace {

/// Texts are run this many tokens at a time: enough to fill the products, little enough to stay in cache.
constexpr std::int64_t tokens_a_step = 1024;

struct Counted {
  std::int64_t begin, end;
};

Counted counted(const TokenizedText& text, std::size_t place) {
  const auto size = static_cast<std::int64_t>(text.ids.size());
  require(size > 0, ErrorCode::argument, "visit_activations",
          "expected texts of at least one token but text {} is empty", place);
  const auto end = text.end < 0 ? size : text.end;
  require(text.begin >= 0 && text.begin <= end && end <= size, ErrorCode::argument, "visit_activations",
          "expected a range within the {} tokens of text {} but got [{}, {})", size, place, text.begin, end);
  const auto begin = std::max<std::int64_t>(text.begin, 1);
  return {std::min(begin, end), end};
}

void visit_at(Session& session, const HookPoint& point, std::span<const TokenizedText> texts,
              const std::function<void(std::size_t, const at::Tensor&)>& visit, Progress& progress) {
  at::NoGradGuard no_grad;
  // A long text is computed in chunks, so the hook may fire more than once a step.
  std::vector<at::Tensor> pieces;
  const auto hook =
      session.hook(point, [&](HookContext& at) { pieces.push_back(at.value.to(at::kFloat, false, true)); },
                   {.read_only = true, .order = 1000});
  // No layer above the one that is read. Sites of layer L are computed by layers [0, L + 1).
  LayerRange layers;
  if (point.site != Site::ln_final) layers.last = point.layer + 1;
  for (std::size_t next = 0; next < texts.size();) {
    std::vector<StepInput> inputs;
    std::vector<Counted> ranges;
    std::int64_t tokens = 0;
    std::size_t end = next;
    for (; end < texts.size() &&
           (end == next || tokens + static_cast<std::int64_t>(texts[end].ids.size()) <= tokens_a_step);
         ++end) {
      ranges.push_back(counted(texts[end], end));
      inputs.push_back({session.open(), texts[end].ids, Phase::prompt});
      tokens += static_cast<std::int64_t>(texts[end].ids.size());
    }
    pieces.clear();
    session.step(inputs, Logits::none, layers);
    const at::Tensor all = pieces.size() == 1 ? pieces[0] : at::cat(pieces);
    std::int64_t start = 0;
    for (std::size_t i = next; i < end; ++i) {
      const auto [begin, stop] = ranges[i - next];
      visit(i, all.slice(0, start + begin, start + stop));
      start += static_cast<std::int64_t>(texts[i].ids.size());
      session.close(inputs[i - next].sequence);
    }
    progress.advance(static_cast<std::int64_t>(end - next));
    next = end;
  }
}

at::Tensor pool(const at::Tensor& values, Pooling pooling) {
  if (values.size(0) == 0) return at::zeros({values.size(1)}, values.options());
  switch (pooling) {
    case Pooling::mean:
      return values.mean(0);
    case Pooling::max:
      return values.amax(0);
    case Pooling::last:
      return values[-1].clone();
    case Pooling::active:
      return values.ne(0).to(at::kFloat).mean(0);
  }
  fail(ErrorCode::argument, "pooled_features", "expected a pooling but got {}", static_cast<int>(pooling));
}

}  // namespace

HookPoint sae_point(const Model& model, const Sae& sae) {
  constexpr auto where = "sae_point";
  require(sae.config().hook_in.has_value(), ErrorCode::config, where,
          "expected an SAE that names the hook point it was trained at but its file does not; set SaeConfig::hook_in");
  const HookPoint point = *sae.config().hook_in;
  const ModelConfig& config = model.config();
  require(point.layer >= 0 && point.layer < config.n_layers, ErrorCode::shape, where,
          "expected an SAE for one of the model's {} layers but got one for {}", config.n_layers, point.name());
  const bool residual = point.site != Site::attn_z && point.site != Site::attn_q && point.site != Site::attn_k &&
                        point.site != Site::attn_v && point.site != Site::mlp_pre && point.site != Site::mlp_post;
  require(!residual || sae.d_in() == config.d_model, ErrorCode::shape, where,
          "expected an SAE of width {} (the model's residual stream) but got one of width {} for {}", config.d_model,
          sae.d_in(), point.name());
  return point;
}

void visit_activations(Session& session, const Sae& sae, std::span<const TokenizedText> texts,
                       const std::function<void(std::size_t, const at::Tensor&)>& visit, Progress progress) {
  visit_at(session, sae_point(session.model(), sae), texts, visit, progress);
}

void visit_activations(Session& session, const HookPoint& point, std::span<const TokenizedText> texts,
                       const std::function<void(std::size_t, const at::Tensor&)>& visit, Progress progress) {
  visit_at(session, point, texts, visit, progress);
}

at::Tensor pooled_features(Session& session, const Sae& sae, std::span<const TokenizedText> texts, Pooling pooling,
                           Progress progress) {
  at::Tensor rows = at::zeros({static_cast<std::int64_t>(texts.size()), sae.d_sae()}, at::kFloat);
  visit_activations(
      session, sae, texts,
      [&](std::size_t i, const at::Tensor& x) {
        rows[static_cast<std::int64_t>(i)].copy_(pool(sae.encode(x), pooling));
      },
      progress);
  return rows;
}

at::Tensor pooled_residuals(Session& session, const HookPoint& point, std::span<const TokenizedText> texts,
                            Pooling pooling, Progress progress) {
  require(pooling != Pooling::active, ErrorCode::argument, "pooled_residuals",
          "expected mean, max or last but got active: a residual is never zero");
  std::vector<at::Tensor> rows(texts.size());
  visit_at(
      session, point, texts, [&](std::size_t i, const at::Tensor& x) { rows[i] = pool(x, pooling); }, progress);
  require(!rows.empty(), ErrorCode::argument, "pooled_residuals", "expected at least one text but got none");
  return at::stack(rows);
}

}  // namespace steer
