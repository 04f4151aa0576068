#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/core/progress.hpp>
#include <steer/model/session.hpp>
#include <steer/sae/sae.hpp>

namespace steer {

/// A text as ids, and the tokens [begin, end) of it that count: an assistant's answer, say.
struct TokenizedText {
  std::vector<std::int64_t> ids{};
  std::int64_t begin = 0;
  std::int64_t end = -1;  ///< -1: to the end
};

/// How the activations of a text's tokens become one number a feature.
enum class Pooling {
  mean,
  max,
  last,    ///< of the last token that counts
  active,  ///< share of tokens on which the feature is not zero
};

template <>
struct EnumTable<Pooling> {
  static constexpr std::string_view name = "pooling";
  static constexpr EnumEntry<Pooling> entries[] = {
      {Pooling::mean, "mean"}, {Pooling::max, "max"}, {Pooling::last, "last"}, {Pooling::active, "active"}};
};

/// The hook point an SAE reads on a model, after checking that the two fit.
/// @throws Error(config) when the SAE names none; Error(shape) for another width or a layer the model does not have,
///         naming both.
HookPoint sae_point(const Model& model, const Sae& sae);

/// Runs texts through the model and hands over each one's residuals at the SAE's hook point.
/// @param visit  gets the text's place in `texts` and its activations [end - begin, d_in], f32, of the tokens that
///               count; position 0 (an attention sink that dwarfs all others) never does. May be empty: [0, d_in].
/// @throws Error(argument) for an empty text or a range outside it.
void visit_activations(Session& session, const Sae& sae, std::span<const TokenizedText> texts,
                       const std::function<void(std::size_t, const at::Tensor&)>& visit, Progress progress = {});

/// The same at any hook point whose values are [tokens, width].
void visit_activations(Session& session, const HookPoint& point, std::span<const TokenizedText> texts,
                       const std::function<void(std::size_t, const at::Tensor&)>& visit, Progress progress = {});

/// One row a text: its feature activations pooled over the tokens that count. [texts, d_sae], f32; a text without a
/// token that counts gives zeros. @throws as `visit_activations`.
at::Tensor pooled_features(Session& session, const Sae& sae, std::span<const TokenizedText> texts,
                           Pooling pooling = Pooling::mean, Progress progress = {});

/// The same for the residuals themselves: [texts, d_in], f32. `Pooling::active` is refused.
at::Tensor pooled_residuals(Session& session, const HookPoint& point, std::span<const TokenizedText> texts,
                            Pooling pooling = Pooling::mean, Progress progress = {});

}  // namespace steer
