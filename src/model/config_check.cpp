#include "model/config_check.hpp"

#include <cmath>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"

namespace steer::model::detail {

void complete_and_check(ModelConfig& c, std::string_view where) {
  const auto check = [&]<class... Args>(bool ok, fmt::format_string<Args...> what, Args&&... args) {
    if (!ok)
      fail(ErrorCode::config, where, "expected a consistent configuration but got {}; correct the file",
           format_text(what, std::forward<Args>(args)...));
  };
  if (c.attn_scale == 0) c.attn_scale = 1 / std::sqrt(static_cast<double>(c.d_head));
  if (c.rotary_dims == 0 && !c.learned_positions) c.rotary_dims = c.d_head;
  for (auto size : {c.vocab_size, c.d_model, c.n_layers, c.n_heads, c.n_kv_heads, c.d_head, c.d_mlp, c.context})
    check(size > 0, "a size of {}", size);
  check(c.n_heads % c.n_kv_heads == 0, "{} heads over {} key-value heads", c.n_heads, c.n_kv_heads);
  check(static_cast<std::int64_t>(c.layers.size()) == c.n_layers, "{} layer descriptions for {} layers",
        c.layers.size(), c.n_layers);
  check(c.rotary_dims % 2 == 0 && c.rotary_dims <= c.d_head, "{} rotary dimensions of {}", c.rotary_dims, c.d_head);
  check(std::isfinite(c.norm_eps) && c.norm_eps >= 0, "a norm epsilon of {}", c.norm_eps);
  check(std::isfinite(c.attn_scale) && c.attn_scale > 0, "an attention scale of {}", c.attn_scale);
  check(c.attn_soft_cap >= 0 && c.logit_soft_cap >= 0, "soft caps of {} and {}", c.attn_soft_cap, c.logit_soft_cap);
  check(std::isfinite(c.embed_scale) && std::isfinite(c.residual_scale) && std::isfinite(c.logit_scale) &&
            c.logit_scale > 0,
        "scales of embedding, residual and logits of {}, {} and {}", c.embed_scale, c.residual_scale, c.logit_scale);
  check(c.query_growth == 0 || c.query_growth_period > 0, "queries that grow every {} tokens", c.query_growth_period);
  const auto& e = c.experts;
  const auto& d = c.delta_net;
  for (const auto& layer : c.layers) {
    if (layer.experts)
      check(e.count > 0 && e.d_mlp > 0 && e.per_token > 0 && e.per_token <= e.count, "{} of {} experts of width {}",
            e.per_token, e.count, e.d_mlp);
    if (layer.mixer == MixerKind::delta_net)
      check(d.key_heads > 0 && d.value_heads % d.key_heads == 0 && d.d_key > 0 && d.d_value > 0 && d.kernel > 0,
            "a DeltaNet of {} key and {} value heads, {} by {}, kernel {}", d.key_heads, d.value_heads, d.d_key,
            d.d_value, d.kernel);
    const auto& r = layer.rope;
    for (const auto* factors : {&r.short_factor, &r.long_factor})
      check(r.kind != RopeKind::longrope || static_cast<std::int64_t>(factors->size()) == c.rotary_dims / 2,
            "{} rope factors for {} rotary dimensions", factors->size(), c.rotary_dims);
  }
  for (auto id : c.bos_ids)
    check(id >= 0 && id < c.vocab_size, "a BOS id of {} in a vocabulary of {}", id, c.vocab_size);
  for (auto id : c.eos_ids)
    check(id >= 0 && id < c.vocab_size, "an EOS id of {} in a vocabulary of {}", id, c.vocab_size);
}

}  // namespace steer::model::detail
