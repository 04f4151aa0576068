#pragma once
// One function a published layout, each in its own file, and what they share. Facts: docs/sae-formats.md.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include <steer/core/error.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/sae/sae.hpp>

namespace steer::sae::detail {

inline constexpr std::string_view kLoad = "Sae::load";

/// An SAE as it lies on disk: tensors, the configuration beside them, and where they came from.
struct SaeFiles {
  std::filesystem::path path;  ///< of the tensors
  std::shared_ptr<const TensorReader> tensors;
  nlohmann::json config;              ///< null without one
  std::filesystem::path config_path;  ///< of `config`
  SaeLoadOptions options;

  bool has(std::string_view name) const { return tensors->contains(name); }
  bool has_all(std::initializer_list<std::string_view> names) const;
  /// @throws Error(format) naming tensor and file.
  at::Tensor read(std::string_view name) const { return tensors->read(name); }
  /// The first of these names that the file has. @throws Error(format) that lists them.
  at::Tensor read_any(std::initializer_list<std::string_view> names) const;
  /// A tensor of one element as a number.
  double scalar(std::string_view name) const;

  /// The value of a key of `config`, nothing when it is absent or null. @throws Error(config) for another type.
  template <class T>
  std::optional<T> get(std::string_view key) const {
    return get_from<T>(config, key);
  }
  template <class T>
  std::optional<T> get_from(const nlohmann::json& object, std::string_view key) const {
    if (!object.is_object()) return {};
    const auto found = object.find(key);
    if (found == object.end() || found->is_null()) return {};
    try {
      if constexpr (std::is_same_v<T, bool>)
        if (!found->is_boolean()) throw_type(key, *found);
      if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>)
        if (!found->is_number_integer()) throw_type(key, *found);
      return found->get<T>();
    } catch (const nlohmann::json::exception&) {
      throw_type(key, *found);
    }
  }
  /// @throws Error(config) when it is absent.
  template <class T>
  T require_key(std::string_view key) const {
    if (auto value = get<T>(key)) return *value;
    fail(ErrorCode::config, kLoad, "expected key \"{}\" in {} but it has none", key, config_path.string());
  }

 private:
  [[noreturn]] void throw_type(std::string_view key, const nlohmann::json& value) const;
};

struct LoadedSae {
  SaeConfig config;
  SaeWeights weights;
};

/// Each returns nothing when keys and configuration say that the file is of another layout, and throws when they say it
/// is of this one but something is wrong with it.
using SaeLayout = std::optional<LoadedSae> (*)(const SaeFiles&);
std::optional<LoadedSae> load_saelens(const SaeFiles&);
std::optional<LoadedSae> load_openmoss(const SaeFiles&);
std::optional<LoadedSae> load_dictionary_learning(const SaeFiles&);
std::optional<LoadedSae> load_sparsify(const SaeFiles&);
std::optional<LoadedSae> load_gemma_scope(const SaeFiles&);
std::optional<LoadedSae> load_circuit_tracer(const SaeFiles&);
std::optional<LoadedSae> load_hook_z(const SaeFiles&);
std::optional<LoadedSae> load_goodfire(const SaeFiles&);
std::optional<LoadedSae> load_qwen_scope(const SaeFiles&);
/// Encoder and decoder as plain linear layers, nothing else said: qresearch's R1 distill.
std::optional<LoadedSae> load_plain_linear(const SaeFiles&);

/// @throws Error(unsupported) naming the key, for kinds of dictionaries that are not one matrix in and one out:
///         crosscoders, cross-layer transcoders, temporal and attention-replacing ones.
void refuse_other_dictionaries(const SaeFiles&);

/// Settings under which TransformerLens loaded the model that the SAE was trained on: centres the input where
/// `center_writing_weights` did. @throws Error(unsupported) naming a setting that changes what the SAE reads in a way
/// that cannot be made up for, or that steer does not know.
void apply_trained_stream(const SaeFiles& files, LoadedSae& sae);

/// The hook point of that name in TransformerLens's or Hugging Face's spelling, where steer has such a site.
std::optional<HookPoint> hook_of(std::string_view name);
/// A hook point at `layer`.
HookPoint residual_after(std::int64_t layer);
/// The number behind `prefix` in one component of the path (the last that has it): "L0_" in "SAE-...-L0_50/layer1.pt".
std::optional<std::int64_t> number_in_path(const std::filesystem::path& path, std::string_view prefix);

/// Scales for an input normalised to mean norm sqrt(d) on the way in and back on the way out: W_enc *= s, W_dec /= s,
/// b_dec /= s (b_enc and threshold stay), as SAELens folds it.
void fold_expected_average(LoadedSae& sae, double s);
/// Gives feature i the scale |W_dec[i]| and its decoder row unit norm.
void fold_decoder_norms(LoadedSae& sae);

}  // namespace steer::sae::detail
