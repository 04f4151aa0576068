#pragma once

#include <steer/model/config.hpp>

#include "model/config_reader.hpp"

namespace steer::model::detail {

/// What the rope keys of a config.json mean where they leave something out.
struct RopeDefaults {
  double theta = 10000;
  double local_theta = 10000;     ///< of sliding layers, where they have a rope of their own
  std::int64_t context = 0;       ///< max_position_embeddings
  std::int64_t head = 0;          ///< width of a head
  double rotary_share = 1;        ///< partial_rotary_factor
  std::int64_t original = 0;      ///< original_max_position_embeddings; 0: that key, then the context
  bool yarn_is_longrope = false;  ///< Phi-3 files say "su" or "yarn"
  nlohmann::json rope = nullptr;  ///< of files without any rope object (gpt-oss, Ministral 3)
};

/// The ropes of a model's layers.
struct Ropes {
  RopeConfig full, sliding;
  double rotary_share = 1;
  double query_growth = 0;  ///< llama_4_scaling_beta
};

/// One rope for all layers, from any layout: `rope_theta` and `rope_scaling` beside each other (published files),
/// `rope_parameters` (transformers 5), both, or one entry of `rope_parameters` for each kind of layer.
/// @param theta_key  the base's published name.
/// @throws Error(config) that shows both when two of them disagree.
Ropes read_ropes(ConfigReader& in, const RopeDefaults& defaults, const char* theta_key = "rope_theta");
/// Full and sliding layers each have their own: of published files `rope_scaling` is the full layers' alone.
/// @param local_theta_key  base of the sliding layers' rope, or null where files have none.
Ropes read_layered_ropes(ConfigReader& in, const RopeDefaults& defaults, const char* local_theta_key);

}  // namespace steer::model::detail
