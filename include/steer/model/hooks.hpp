#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <steer/core/enum.hpp>

namespace steer {

/// The places in a transformer where activations can be read and edited, by their TransformerLens names.
enum class Site {
  embed,          ///< hook_embed: after the embedding, its scale and learned positions
  resid_pre,      ///< blocks.L.hook_resid_pre
  ln1,            ///< blocks.L.ln1.hook_normalized: before the gain
  attn_q,         ///< blocks.L.attn.hook_q: [tokens, heads * d_head], after norm, before rope
  attn_k,         ///< blocks.L.attn.hook_k
  attn_v,         ///< blocks.L.attn.hook_v
  attn_pattern,   ///< blocks.L.attn.hook_pattern: one call a run, [heads, queries, keys]
  attn_z,         ///< blocks.L.attn.hook_z: the output projection's input, [tokens, heads * d_head]
  attn_out,       ///< blocks.L.hook_attn_out: what is added to the residual stream
  resid_mid,      ///< blocks.L.hook_resid_mid; absent in parallel-residual families
  ln2,            ///< blocks.L.ln2.hook_normalized
  router_logits,  ///< blocks.L.mlp.hook_router_logits: [tokens, experts], before any softmax; in layers of experts only
  mlp_pre,        ///< blocks.L.mlp.hook_pre: the gate's input to the activation function
  mlp_post,       ///< blocks.L.mlp.hook_post: the down projection's input
  mlp_out,        ///< blocks.L.hook_mlp_out: what is added to the residual stream
  resid_post,     ///< blocks.L.hook_resid_post: the block's output; of the last block, before the final norm
  ln_final,       ///< ln_final.hook_normalized
};

template <>
struct EnumTable<Site> {
  static constexpr std::string_view name = "hook site";
  static constexpr EnumEntry<Site> entries[] = {{Site::embed, "hook_embed"},
                                                {Site::resid_pre, "hook_resid_pre"},
                                                {Site::ln1, "ln1.hook_normalized"},
                                                {Site::attn_q, "attn.hook_q"},
                                                {Site::attn_k, "attn.hook_k"},
                                                {Site::attn_v, "attn.hook_v"},
                                                {Site::attn_pattern, "attn.hook_pattern"},
                                                {Site::attn_z, "attn.hook_z"},
                                                {Site::attn_out, "hook_attn_out"},
                                                {Site::resid_mid, "hook_resid_mid"},
                                                {Site::ln2, "ln2.hook_normalized"},
                                                {Site::router_logits, "mlp.hook_router_logits"},
                                                {Site::mlp_pre, "mlp.hook_pre"},
                                                {Site::mlp_post, "mlp.hook_post"},
                                                {Site::mlp_out, "hook_mlp_out"},
                                                {Site::resid_post, "hook_resid_post"},
                                                {Site::ln_final, "ln_final.hook_normalized"}};
};

/// A site of one layer.
struct HookPoint {
  Site site = Site::resid_post;
  std::int64_t layer = 0;  ///< 0 for `embed` and `ln_final`

  /// `resid_post` of layer 0.
  constexpr HookPoint() = default;
  /// A site of a layer; 0 for those of none.
  constexpr HookPoint(Site at, std::int64_t of_layer) : site(at), layer(of_layer) {}
  /// By its name: implicit, so that whatever takes a hook point takes its name. @throws as `parse`.
  HookPoint(std::string_view name) : HookPoint(parse(name)) {}
  HookPoint(const char* name) : HookPoint(parse(name)) {}
  HookPoint(const std::string& name) : HookPoint(parse(name)) {}

  /// From a TransformerLens name ("blocks.6.hook_resid_post", "hook_embed") or that of a Hugging Face module, whose
  /// output it is: "model.layers.6" (resid_post), "model.layers.6.self_attn" and ".mlp" (what they add to the residual
  /// stream: where a norm follows them, as in Gemma, after it), "model.embed_tokens"; with ".input" behind it
  /// "....self_attn.o_proj" (attn_z) and "....mlp.down_proj" (mlp_post). @throws Error(argument) for anything else.
  static HookPoint parse(std::string_view name);
  /// The TransformerLens name.
  std::string name() const;
  friend auto operator<=>(const HookPoint&, const HookPoint&) = default;
};

/// Whether a token came with the prompt or was generated after it.
enum class Phase : std::uint8_t { prompt, generated };

template <>
struct EnumTable<Phase> {
  static constexpr std::string_view name = "phase";
  static constexpr EnumEntry<Phase> entries[] = {{Phase::prompt, "prompt"}, {Phase::generated, "generated"}};
};

/// Names one sequence of a session.
using SequenceId = std::int32_t;

/// Consecutive tokens of one sequence within a step: rows [begin, end) of every activation.
struct TokenRun {
  SequenceId sequence = 0;
  std::int64_t begin = 0, end = 0;
  std::int64_t position = 0;       ///< of the first token in its sequence; 0 is BOS where the model has one
  std::int64_t prompt_length = 0;  ///< the sequence's prompt tokens; generated token k has position prompt_length + k
  Phase phase = Phase::prompt;
};

/// The tokens of one step: a flat batch without padding.
struct BatchView {
  std::span<const std::int64_t> ids;  ///< [tokens]
  std::span<const TokenRun> runs;     ///< cover [0, tokens) in order
  std::int64_t size() const { return static_cast<std::int64_t>(ids.size()); }
};

/// What a hook gets. Edit in place (`at.value.add_(v)`) or assign a tensor of the same shape, dtype and device.
/// A tensor kept beyond the call must be cloned: buffers are reused.
struct HookContext {
  HookPoint point;
  at::Tensor& value;       ///< [tokens, width]; attn_pattern: [heads, queries, keys] of `batch.runs[0]`
  const BatchView& batch;  ///< per-token sequence, position and phase
};

using HookFunction = std::function<void(HookContext&)>;

struct HookOptions {
  bool read_only = false;  ///< the hook promises not to edit; lets results be shared between sequences
  int order = 0;           ///< lower runs first; equal orders run in order of registration
};

}  // namespace steer
