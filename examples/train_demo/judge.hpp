#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace steer::demo {

/// Tells which behaviour a thinking text shows: a logistic classifier over the words and pairs of words it was fitted
/// on. It learns from sampled answers alone and never sees the generator's tables; names of the world are left out.
class StyleJudge {
 public:
  /// @param labels  0 .. classes - 1, one a text.
  StyleJudge(const std::vector<std::string>& texts, const std::vector<std::int64_t>& labels, std::int64_t classes,
             const std::vector<std::string>& names);
  /// The likeliest class of each text.
  std::vector<std::int64_t> classify(const std::vector<std::string>& texts) const;

 private:
  std::vector<std::string> terms(const std::string& text) const;
  at::Tensor count(const std::vector<std::string>& texts) const;

  std::unordered_map<std::string, std::int64_t> index_;
  std::unordered_map<std::string, bool> names_;
  at::Tensor weight_, bias_;  // [terms, classes], [classes]
};

/// How well a single word gives a class away: the largest share of its texts that hold a word found at least nine
/// times in ten in that class.
struct Telltale {
  std::string word;
  double share = 0;
};
Telltale telltale(const std::vector<std::string>& texts, const std::vector<std::int64_t>& labels, std::int64_t which);

/// What stands between <thinking> and </thinking>, or the whole text without them.
std::string thinking_of(const std::string& answer);

}  // namespace steer::demo
