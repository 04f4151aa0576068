#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/core/progress.hpp>
#include <steer/model/hooks.hpp>
#include <steer/model/session.hpp>

namespace steer {

// Steering vectors from data: activations of examples that show a behaviour (positive) and of examples that do not
// (negative), each [examples, width], any float dtype and device. Results are f32 on the CPU; arithmetic is f64.

/// mean(positive) - mean(negative) [width], not normalised (CAA, Rimsky et al. 2023, arXiv:2312.06681).
/// @throws Error(shape | argument) unless both hold examples of one width, all finite.
at::Tensor difference_of_means(const at::Tensor& positive, const at::Tensor& negative);

/// The first principal component of the examples' differences, unit length, pointing from negative to positive
/// (Zou et al. 2023, arXiv:2310.01405): of positive[i] - negative[i] for equally many examples, taken as pairs, about
/// 0; else of all examples about the midpoint of the two means.
/// @throws as above.
at::Tensor principal_direction(const at::Tensor& positive, const at::Tensor& negative);

/// A linear classifier: positive where w.h + b > 0.
struct LinearProbe {
  at::Tensor w{};  ///< [width], f32
  double b = 0;
  double accuracy = 0;  ///< on the examples it was fitted to
};

struct ProbeOptions {
  double l2 = 1e-3;              ///< weight of |w|^2 / 2 beside the mean loss, on standardised inputs
  std::int64_t max_steps = 100;  ///< of Newton's method
};

/// Logistic regression with an L2 penalty on w (not on b), by Newton's method with conjugate gradients. Each class
/// weighs one half, however many examples it has. The probe's w is [width].
/// @throws as above, and Error(argument) for a negative or zero l2.
LinearProbe logistic_probe(const at::Tensor& positive, const at::Tensor& negative, const ProbeOptions& options = {});

enum class VectorMethod { difference_of_means, principal_direction, logistic_probe };

template <>
struct EnumTable<VectorMethod> {
  static constexpr std::string_view name = "vector method";
  static constexpr EnumEntry<VectorMethod> entries[] = {{VectorMethod::difference_of_means, "difference_of_means"},
                                                        {VectorMethod::principal_direction, "principal_direction"},
                                                        {VectorMethod::logistic_probe, "logistic_probe"}};
};

/// Which tokens of an example speak for it.
enum class ExampleTokens { last, mean };

template <>
struct EnumTable<ExampleTokens> {
  static constexpr std::string_view name = "example tokens";
  static constexpr EnumEntry<ExampleTokens> entries[] = {{ExampleTokens::last, "last"}, {ExampleTokens::mean, "mean"}};
};

struct SweepOptions {
  Site site = Site::resid_post;
  VectorMethod method = VectorMethod::difference_of_means;
  ExampleTokens tokens = ExampleTokens::last;  ///< mean: of all but position 0
  Progress progress{};                         ///< counts examples
};

/// What one layer gives.
struct SweepResult {
  HookPoint point;
  at::Tensor vector;      ///< [width]
  double separation = 0;  ///< share of (positive, negative) pairs whose projections on the vector are in order (AUC),
                          ///< on examples the vector was not fitted to (five folds)
};

/// Vectors at one site of every layer, from prompts. Each prompt runs once, whatever the number of layers.
/// @return one entry a layer, in order.
/// @throws Error(argument) for less than two prompts on a side or an empty prompt; Error(unsupported) for a site
///         without layers.
std::vector<SweepResult> sweep_layers(Session& session, std::span<const std::vector<std::int64_t>> positive,
                                      std::span<const std::vector<std::int64_t>> negative,
                                      const SweepOptions& options = {});

/// Vectors by hook point.
using VectorSet = std::map<HookPoint, at::Tensor>;

/// Writes a safetensors file of tensors named by their hook points, or for a path that ends in ".gguf" a control
/// vector, which holds `hook_resid_post` of layers 1 and above only. @throws Error(argument | io).
void save_vectors(const std::filesystem::path& path, const VectorSet& vectors);
/// Reads either, chosen by content. @throws Error(io | format), Error(argument) for a tensor not named as a hook point.
VectorSet load_vectors(const std::filesystem::path& path);

}  // namespace steer
