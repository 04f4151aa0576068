#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace steer {

/// Properties of a text that need no model. Words are runs of letters, digits and bytes above 127, lower-cased; every
/// other visible character is a word of its own.
struct TextMetrics {
  std::int64_t bytes = 0;
  std::int64_t words = 0;
  double distinct_1 = 1;  ///< distinct words / words (Li et al. 2016); 1 for texts too short to have any
  double distinct_2 = 1;  ///< the same of word pairs
  double distinct_3 = 1;
  double repetition = 0;         ///< share of 4-word sequences that occurred before in the text
  double compression_ratio = 1;  ///< bytes after zlib (level 6) / bytes; loops are far below 0.3, garble near 1
};

/// Measures a text, read as bytes: nothing in it can make this fail.
TextMetrics text_metrics(std::string_view text);

/// What the screen looks at besides the text.
struct CollapseHints {
  bool expects_tags = false;       ///< the prompt asked for `<thinking>` and `<answer>` tags
  bool truncated = false;          ///< generation stopped at its token limit
  std::optional<double> nll = {};  ///< of the text under the unsteered model, nats a token
};

/// A cheap warning that a response has fallen apart. It is a screen, not a coherence score: on the 1,738 stored pilot
/// responses of arXiv 2602.04903 it separates judged coherence <= 3 from the rest with AUROC .74, and its rank
/// correlation with the judge is only -.39, far too little to stand in for one (test PaperScreen).
struct CollapseScreen {
  double score = 0;        ///< 2 repetition + 2 truncated + 1 reasoning tag never closed + 4 (compression ratio - 0.5),
                           ///< texts of 300 bytes and more, + (nll - 4), each part at least 0
  bool collapsed = false;  ///< score >= 2
  std::string reason;      ///< the largest part, in words; empty when not collapsed
};

/// @param metrics  of the same text.
CollapseScreen collapse_screen(std::string_view text, const TextMetrics& metrics, const CollapseHints& hints = {});

}  // namespace steer
