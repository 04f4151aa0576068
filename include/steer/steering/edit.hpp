#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/model/hooks.hpp>
#include <steer/sae/sae.hpp>
#include <steer/steering/condition.hpp>

namespace steer {

/// What a strength is measured in.
enum class StrengthUnit {
  raw,             ///< multiplies the vector or decoder row as it is
  max_activation,  ///< of the feature's maximum activation
  residual_norm,   ///< share of the token's |h|, along the unit vector
};

template <>
struct EnumTable<StrengthUnit> {
  static constexpr std::string_view name = "strength unit";
  static constexpr EnumEntry<StrengthUnit> entries[] = {{StrengthUnit::raw, "raw"},
                                                        {StrengthUnit::max_activation, "max_activation"},
                                                        {StrengthUnit::residual_norm, "residual_norm"}};
};

/// Which positions an edit touches.
enum class Where {
  all,
  prompt,
  generated,
  onset,       ///< the first `count` generated tokens
  last,        ///< the last token of the prompt
  from_last,   ///< the last token of the prompt and all generated ones: every pass that chooses a generated token
  span,        ///< positions [begin, end); a negative begin counts both from the end of the prompt
  inside_tag,  ///< between `<tag>` and `</tag>`
  outside_tag,
};

template <>
struct EnumTable<Where> {
  static constexpr std::string_view name = "scope";
  static constexpr EnumEntry<Where> entries[] = {{Where::all, "all"},
                                                 {Where::prompt, "prompt"},
                                                 {Where::generated, "generated"},
                                                 {Where::onset, "onset"},
                                                 {Where::last, "last"},
                                                 {Where::from_last, "from_last"},
                                                 {Where::span, "span"},
                                                 {Where::inside_tag, "inside_tag"},
                                                 {Where::outside_tag, "outside_tag"}};
};

/// Positions, as a value.
///
/// `generated` selects passes over generated tokens. The pass that chooses the first generated token is over the last
/// token of the prompt, so it is not among them: with `max_tokens = 1` nothing is. `from_last` begins one pass earlier.
///
/// Tags are found in the sequence's text, prompt included. A token counts as inside when the text up to and with it
/// ends inside the tag: the token that completes `<tag>` is inside (what it predicts is), the one that completes
/// `</tag>` is outside.
struct Scope {
  Where where = Where::all;
  std::int64_t count = 0;              ///< onset: how many generated tokens
  std::int64_t begin = 0, end = 0;     ///< span; {-3, 0} are the last three tokens of the prompt
  std::string tag{};                   ///< inside_tag, outside_tag: e.g. "thinking"
  bool include_bos = false;            ///< position 0 is an attention sink: left alone unless asked
  std::vector<std::int64_t> tokens{};  ///< of these, only tokens with one of these ids; empty: any
  std::vector<Scope> except{};         ///< of these, none that one of these scopes selects
  friend bool operator==(const Scope& a, const Scope& b);
  /// @throws Error(argument) for a scope that can match nothing, or a member that its `where` does not look at.
  void validate(std::string_view where) const;
  /// In words: "onset 3", "span [4, 9)".
  std::string describe() const;
};

/// On which side of its target a projection is moved.
enum class TargetSide {
  below,  ///< raised to the target when below it
  above,  ///< lowered to the target when above it
  both,   ///< set to the target always
};

template <>
struct EnumTable<TargetSide> {
  static constexpr std::string_view name = "side";
  static constexpr EnumEntry<TargetSide> entries[] = {
      {TargetSide::below, "below"}, {TargetSide::above, "above"}, {TargetSide::both, "both"}};
};

/// What a custom edit gets: the tokens of one row that its scope and condition select.
struct CustomContext {
  HookPoint point;
  at::Tensor h;         ///< [tokens, width], f32, a copy; at attn.hook_pattern [heads, tokens, keys] of all the run's
                        ///< tokens, of which those selected take what the function returns
  at::Tensor position;  ///< [tokens], i64
  SequenceId sequence = 0;
};

using CustomFunction = std::function<at::Tensor(const CustomContext&)>;

namespace steering::detail {
class Operation;
}

/// One edit, a value. The builders of `Steering` make them and say what each kind does; change a copy's other members
/// and give it to `Steering::edit`.
struct Edit {
  HookPoint point;
  std::shared_ptr<const steering::detail::Operation> op{};  ///< the kind and its parameters
  double strength = 1;  ///< multiplies what the edit changes; 0 leaves every bit alone
  StrengthUnit unit = StrengthUnit::raw;
  Scope scope{};
  std::optional<Condition> when{};
  std::string name{};  ///< what the audit calls it; empty: `describe()`

  /// The kind, as JSON and messages name it: "add", "nudge", ..., "custom".
  std::string_view kind() const;
  /// A parameter by the name it has in files (docs/steering-schema.md): "value", "target", "feature"; "vector", "a".
  /// @throws Error(argument) that lists the kind's parameters.
  double number(std::string_view parameter) const;
  /// The same for a vector, [width], f32.
  at::Tensor vector(std::string_view parameter) const;
  /// In words: "nudge 1234 by 0.6".
  std::string describe() const;
  /// @throws Error(argument | shape | config) for what can be wrong without knowing the model: NaN or infinite
  ///         numbers, an empty, NaN or zero vector, a feature outside its SAE (giving the range), a unit the kind
  ///         does not take, a scope that can match nothing, an SAE whose width does not fit itself.
  void validate(std::string_view where) const;
  /// Same kind, numbers, vectors (by content) and SAEs (by hash). Custom functions differ always, but from their copy.
  friend bool operator==(const Edit&, const Edit&);
};

}  // namespace steer
