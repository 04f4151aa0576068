#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include <steer/model/session.hpp>
#include <steer/sae/sae.hpp>
#include <steer/text/chat_template.hpp>

namespace steer {

/// A feature and how active it is.
struct FeatureValue {
  std::int64_t feature = 0;
  double value = 0;
};

/// One token of an inspected text.
struct InspectedToken {
  std::int64_t id = 0;
  std::string text;  ///< of a special token its spelling, e.g. "<|eot_id|>"
  bool special = false;
  std::vector<FeatureValue> top;  ///< the most active features, by value; none for position 0
};

/// A feature over the whole text.
struct InspectedFeature {
  std::int64_t feature = 0;
  std::string label;  ///< empty without labels
  double mean = 0, max = 0;
  double active = 0;                ///< share of tokens on which it is not zero
  std::vector<double> activations;  ///< [tokens]; position 0 is 0
};

/// Which features a text activates, and where.
struct Inspection {
  std::string hook_point;
  std::vector<InspectedToken> tokens;
  std::vector<InspectedFeature> features;  ///< the strongest of the text, by largest activation

  /// @throws Error(argument) for a feature that is not among `features`.
  const InspectedFeature& feature(std::int64_t index) const;
  /// {"hook_point", "tokens": [{"id", "text", "special", "top"}], "features": [{"feature", "label", "mean", "max",
  /// "active", "activations"}]}.
  nlohmann::json to_json() const;
  /// A page of its own, no other file needed: the text, tokens shaded by the chosen feature's activation, and the list
  /// of features to choose from. Light and dark.
  std::string to_html(std::string_view title = "Feature activations") const;
  /// Writes `to_html` or, for a name ending in .json, `to_json`. @throws Error(io).
  void write(const std::filesystem::path& file) const;
};

struct InspectOptions {
  std::int64_t top_features = 30;  ///< over the text
  std::int64_t top_per_token = 5;
  std::function<std::string(std::int64_t)> label{};  ///< names features, e.g. from FeatureLabels
};

/// Feature activations of a text given as ids (BOS included where the model has one). Position 0 is left out: it is an
/// attention sink whose features mean nothing. @throws Error(argument) for an empty text or limits below 1; as
/// `sae_point`.
Inspection inspect_features(Session& session, const Sae& sae, std::span<const std::int64_t> ids,
                            const InspectOptions& options = {});
/// The same for a conversation in the model's chat format.
Inspection inspect_features(Session& session, const Sae& sae, const std::vector<Message>& conversation,
                            const InspectOptions& options = {});

}  // namespace steer
