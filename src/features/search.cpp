#include <steer/features/search.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>

#include <steer/core/error.hpp>

namespace steer {
namespace {

constexpr double k1 = 1.2, b = 0.75;
constexpr double prefix_weight = 0.5;

/// Bytes of other scripts count as letters: words in UTF-8 stay whole.
bool in_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         static_cast<unsigned char>(c) >= 0x80;
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

template <class Visit>
void for_each_word(std::string_view text, Visit&& visit) {
  for (std::size_t begin = 0; begin < text.size();) {
    while (begin < text.size() && !in_word(text[begin])) ++begin;
    std::size_t end = begin;
    while (end < text.size() && in_word(text[end])) ++end;
    if (end > begin) visit(text.substr(begin, end - begin));
    begin = end;
  }
}

/// 1 for the same word, prefix_weight for one that begins so, else 0. `query` is lower case.
double match(std::string_view word, std::string_view query) {
  if (word.size() < query.size()) return 0;
  for (std::size_t i = 0; i < query.size(); ++i)
    if (lower(word[i]) != query[i]) return 0;
  return word.size() == query.size() ? 1 : prefix_weight;
}

struct Match {
  std::int64_t feature;
  double words;                     ///< of the label
  std::vector<double> frequencies;  ///< of each query word
};

}  // namespace

std::vector<LabelHit> search_labels(const FeatureLabels& labels, std::string_view query, std::int64_t limit) {
  constexpr auto where = "search_labels";
  require(limit > 0, ErrorCode::argument, where, "expected a limit of at least 1 but got {}", limit);
  std::vector<std::string> terms;
  for_each_word(query, [&](std::string_view word) {
    std::string term(word);
    std::ranges::transform(term, term.begin(), lower);
    if (std::ranges::find(terms, term) == terms.end()) terms.push_back(std::move(term));
  });
  require(!terms.empty(), ErrorCode::argument, where, "expected a query with at least one word but got \"{}\"", query);

  std::vector<Match> matches;
  std::vector<double> documents(terms.size());
  double total_words = 0, labelled = 0;
  std::vector<double> frequencies(terms.size());
  for (std::int64_t feature = 0; feature < labels.size(); ++feature) {
    double words = 0, found = 0;
    std::ranges::fill(frequencies, 0);
    for_each_word(labels.label(feature), [&](std::string_view word) {
      ++words;
      for (std::size_t t = 0; t < terms.size(); ++t) {
        const double weight = match(word, terms[t]);
        frequencies[t] += weight;
        found += weight;
      }
    });
    if (words == 0) continue;
    ++labelled;
    total_words += words;
    if (found == 0) continue;
    for (std::size_t t = 0; t < terms.size(); ++t) documents[t] += frequencies[t] > 0;
    matches.push_back({feature, words, frequencies});
  }

  const double average = total_words / std::max(labelled, 1.0);
  std::vector<LabelHit> hits;
  for (const auto& [feature, words, tf] : matches) {
    double score = 0;
    for (std::size_t t = 0; t < terms.size(); ++t) {
      const double idf = std::log(1 + (labelled - documents[t] + 0.5) / (documents[t] + 0.5));
      score += idf * tf[t] * (k1 + 1) / (tf[t] + k1 * (1 - b + b * words / average));
    }
    hits.push_back({feature, score, std::string(labels.label(feature))});
  }
  const auto order = [](const LabelHit& x, const LabelHit& y) {
    return x.score != y.score ? x.score > y.score : x.feature < y.feature;
  };
  std::ranges::sort(hits, order);

  std::int64_t index = -1;
  const auto* end = query.data() + query.size();
  if (auto [rest, error] = std::from_chars(query.data(), end, index);
      error == std::errc() && rest == end && index >= 0 && index < labels.size()) {
    std::erase_if(hits, [&](const LabelHit& hit) { return hit.feature == index; });
    hits.insert(hits.begin(), {index, hits.empty() ? 1.0 : hits.front().score + 1, std::string(labels.label(index))});
  }
  if (static_cast<std::int64_t>(hits.size()) > limit) hits.resize(static_cast<std::size_t>(limit));
  return hits;
}

std::vector<LabelHit> rerank_by_contrast(std::vector<LabelHit> hits, std::span<const FeatureContrast> contrasts) {
  for (auto& hit : hits) {
    const auto found = std::ranges::find(contrasts, hit.feature, &FeatureContrast::feature);
    hit.contrast = found == contrasts.end() ? 0 : found->standardised;
  }
  std::ranges::stable_sort(hits, std::greater{}, &LabelHit::contrast);
  return hits;
}

}  // namespace steer
