#include <algorithm>
#include <cmath>
#include <set>

#include <steer/core/error.hpp>
#include <steer/eval/words_judge.hpp>
#include <steer/stats/statistics.hpp>

#include "eval/run/prose.hpp"

namespace steer {
namespace {

constexpr std::size_t kParts = 5;
/// A term that a label's texts never had counts as this many of them.
constexpr double kUnseen = 0.1;

/// Words, and pairs of neighbours.
std::set<std::string> terms_of(std::string_view text) {
  std::set<std::string> terms;
  std::string last;
  for (const auto& word : eval::detail::words_of(eval::detail::prose_of(text))) {
    terms.insert(last + " " + word);
    terms.insert(word);
    last = word;
  }
  return terms;
}

std::vector<double> shares(std::vector<double> log_odds, double temperature) {
  const double most = *std::ranges::max_element(log_odds);
  double sum = 0;
  for (double& x : log_odds) sum += x = std::exp((x - most) / temperature);
  for (double& x : log_odds) x /= sum;
  return log_odds;
}

std::size_t place_of(const std::vector<std::string>& labels, const std::string& label) {
  return static_cast<std::size_t>(std::ranges::lower_bound(labels, label) - labels.begin());
}

}  // namespace

WordClassifier::WordClassifier(std::span<const LabelledText> texts) {
  std::set<std::string> labels;
  std::map<std::string, std::size_t> groups;
  for (const auto& text : texts) {
    labels.insert(text.label);
    groups.try_emplace(text.group, groups.size());
  }
  require(labels.size() >= 2 && groups.size() >= 2, ErrorCode::argument, "WordClassifier",
          "expected texts of at least 2 labels and 2 groups but got {} and {}", labels.size(), groups.size());
  labels_.assign(labels.begin(), labels.end());
  const std::size_t parts = std::min(kParts, groups.size());
  std::vector<std::vector<double>> odds(texts.size());  // of each text by a fit that has not seen its group
  for (std::size_t part = 0; part < parts; ++part) {
    WordClassifier some;
    some.labels_ = labels_;
    for (const auto& text : texts)
      if (groups.at(text.group) % parts != part) some.learn(text.text, place_of(labels_, text.label));
    for (std::size_t i = 0; i < texts.size(); ++i)
      if (groups.at(texts[i].group) % parts == part) odds[i] = some.log_odds(texts[i].text);
  }
  double best = -INFINITY;
  for (double temperature = 1; temperature < 200; temperature *= 1.25) {
    double likelihood = 0;
    for (std::size_t i = 0; i < texts.size(); ++i)
      likelihood += std::log(shares(odds[i], temperature)[place_of(labels_, texts[i].label)] + 1e-12);
    if (likelihood > best) best = likelihood, temperature_ = temperature;
  }
  for (std::size_t label = 0; label < labels_.size(); ++label) {
    std::vector<double> scores;
    std::vector<std::uint8_t> mine;
    double found = 0, all = 0;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const auto p = shares(odds[i], temperature_);
      scores.push_back(p[label]);
      mine.push_back(texts[i].label == labels_[label]);
      if (mine.back()) all += 1, found += std::ranges::max_element(p) - p.begin() == static_cast<std::ptrdiff_t>(label);
    }
    held_out_.recall[labels_[label]] = found / all;
    held_out_.auroc[labels_[label]] = auroc(scores, mine);
    held_out_.accuracy += found / all / static_cast<double>(labels_.size());
  }
  for (const auto& text : texts) learn(text.text, place_of(labels_, text.label));
}

void WordClassifier::learn(std::string_view text, std::size_t label) {
  texts_.resize(labels_.size());
  texts_[label] += 1;
  for (const auto& term : terms_of(text)) {
    auto& counts = counts_[term];
    counts.resize(labels_.size());
    counts[label] += 1;
  }
}

std::vector<double> WordClassifier::log_odds(std::string_view text) const {
  std::vector<double> odds(labels_.size(), 0.0);
  for (const auto& term : terms_of(text)) {
    const auto found = counts_.find(term);
    if (found == counts_.end()) continue;  // in no text: it tells nothing
    for (std::size_t label = 0; label < labels_.size(); ++label)
      odds[label] += std::log((found->second[label] + kUnseen) / (texts_[label] + 2 * kUnseen));
  }
  return odds;
}

std::vector<double> WordClassifier::probabilities(std::string_view text) const {
  return shares(log_odds(text), temperature_);
}

const std::string& WordClassifier::classify(std::string_view text) const {
  const auto odds = log_odds(text);
  return labels_[static_cast<std::size_t>(std::ranges::max_element(odds) - odds.begin())];
}

}  // namespace steer
