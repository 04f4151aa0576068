#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <steer/features/contrast.hpp>
#include <steer/sae/labels.hpp>

namespace steer {

/// A feature whose label answers a query.
struct LabelHit {
  std::int64_t feature = 0;
  double score = 0;  ///< BM25; larger is better
  std::string label;
  double contrast = 0;  ///< after `rerank_by_contrast`: standardised difference; 0 where unknown
};

/// Features whose label has words of the query, best first: Okapi BM25 (k1 = 1.2, b = 0.75; Robertson and Zaragoza
/// 2009) over words of letters and digits, ASCII case ignored. A word that only begins with a query word counts half. A
/// query that is a number puts the feature of that index first. One pass over the mapped labels, no index to build or
/// keep: 65,536 labels take milliseconds.
/// @throws Error(argument) for a query without a word or a limit below 1. Thread-safe.
std::vector<LabelHit> search_labels(const FeatureLabels& labels, std::string_view query, std::int64_t limit = 20);

/// The same hits ordered by how well the feature itself tells two sets of texts apart (`contrast_features` of texts
/// about the query against others), largest standardised difference first: labels promise, activations decide. A hit
/// without a contrast counts as 0; equal ones keep their order.
std::vector<LabelHit> rerank_by_contrast(std::vector<LabelHit> hits, std::span<const FeatureContrast> contrasts);

}  // namespace steer
