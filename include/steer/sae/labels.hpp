#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace steer {

class Sae;

/// What is known of one feature besides its weights.
struct FeatureRecord {
  std::int64_t feature = 0;
  std::vector<std::string> explanations{};  ///< any number; the first is the label
  std::optional<float> max_activation{};    ///< in units of a decoder row of norm 1 (Neuronpedia's maxActApprox)
  std::optional<float> frac_nonzero{};      ///< share of tokens on which it is active
  std::optional<float> default_strength{};  ///< Neuronpedia's vectorDefaultSteerStrength
};

/// Labels and statistics of an SAE's features in a compact local file. The file is mapped, not read: opening takes
/// the same time for any number of features. Immutable, cheap to copy, safe to share between threads.
class FeatureLabels {
 public:
  /// Opens a file that `write` or `import_neuronpedia` made. @throws Error(io | format), naming the file.
  static FeatureLabels open(const std::filesystem::path& path);
  /// Reads a Neuronpedia export (`.../v1/{model}/{source}` with folders `explanations` and `features`, either may be
  /// missing, of `batch-N.jsonl.gz` or `.jsonl`; or one such file), writes it to `store` and opens that. Rows may
  /// come in any order; an index may be text or a number and have any number of explanations; unknown fields, nulls and
  /// NaN are passed over.
  /// @throws Error(io) when there is no batch or it cannot be read, Error(format) naming file and line.
  static FeatureLabels import_neuronpedia(const std::filesystem::path& folder, const std::filesystem::path& store);
  /// Writes a store; the file appears complete or not at all. Records may come in any order; those of one feature are
  /// joined. @throws Error(argument) for an index outside [0, 2^24), Error(io).
  static void write(const std::filesystem::path& store, std::span<const FeatureRecord> records,
                    std::string_view model_id = {}, std::string_view source_id = {});

  /// One past the largest feature index known.
  std::int64_t size() const;
  const std::string& model_id() const;   ///< e.g. "llama3.1-8b-it"; may be empty
  const std::string& source_id() const;  ///< e.g. "19-goodfire"; may be empty
  /// @throws Error(config) if they cannot be this SAE's labels: more features than it has, or a source id of another
  ///         layer than it was trained at.
  void require_of(const Sae& sae) const;

  /// The first explanation; empty without one, also for features outside [0, size()). Valid as long as any copy lives.
  std::string_view label(std::int64_t feature) const;
  /// All explanations, in the order of the export.
  std::vector<std::string_view> explanations(std::int64_t feature) const;
  std::optional<float> max_activation(std::int64_t feature) const;
  std::optional<float> frac_nonzero(std::int64_t feature) const;
  std::optional<float> default_strength(std::int64_t feature) const;

 private:
  struct Impl;
  explicit FeatureLabels(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

}  // namespace steer
