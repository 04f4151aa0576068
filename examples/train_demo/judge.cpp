#include "judge.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/one_hot.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

namespace steer::demo {
namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (std::isalpha(static_cast<unsigned char>(c)) || c == '\'') {
      words.back() += c;
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

std::string lower(std::string word) {
  for (char& c : word) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return word;
}

}  // namespace

std::string thinking_of(const std::string& answer) {
  const auto begin = answer.find("<thinking>"), end = answer.find("</thinking>");
  const auto from = begin == std::string::npos ? 0 : begin + 10;
  return answer.substr(from, end == std::string::npos || end < from ? std::string::npos : end - from);
}

std::vector<std::string> StyleJudge::terms(const std::string& text) const {
  std::vector<std::string> out;
  std::string before = "^";
  const auto words = words_of(text);
  for (const auto& word : words) {
    const std::string term = names_.contains(word) ? "#" : lower(word);
    out.push_back(term);
    out.push_back(before + " " + term);
    before = term;
  }
  out.push_back("length " + std::to_string(std::min<std::size_t>(words.size() / 4, 12)));
  return out;
}

at::Tensor StyleJudge::count(const std::vector<std::string>& texts) const {
  auto x = at::zeros({std::ssize(texts), std::ssize(index_)});
  auto* data = x.data_ptr<float>();
  for (std::size_t i = 0; i < texts.size(); ++i) {
    for (const auto& term : terms(texts[i])) {
      if (const auto found = index_.find(term); found != index_.end()) data[i * index_.size() + found->second] = 1;
    }
  }
  return x;
}

StyleJudge::StyleJudge(const std::vector<std::string>& texts, const std::vector<std::int64_t>& labels,
                       std::int64_t classes, const std::vector<std::string>& names) {
  for (const auto& name : names) names_[name] = true;
  std::map<std::string, int> seen;
  for (const auto& text : texts) {
    for (const auto& term : terms(text)) ++seen[term];
  }
  for (const auto& [term, times] : seen) {
    if (times >= 3) index_.emplace(term, std::ssize(index_));
  }
  const auto x = count(texts);
  const auto y = at::one_hot(at::tensor(labels, at::kLong), classes).to(at::kFloat);
  at::NoGradGuard no_grad;
  weight_ = at::zeros({x.size(1), classes});
  bias_ = at::zeros({classes});
  auto mean = at::zeros_like(weight_), square = at::zeros_like(weight_);
  // Full-batch Adam with a small ridge; the gradient of logistic regression is x^T (p - y).
  for (int step = 1; step <= 200; ++step) {
    const auto error = (at::softmax(at::addmm(bias_, x, weight_), 1) - y) / static_cast<double>(texts.size());
    const auto gradient = at::matmul(x.t(), error) + 1e-4 * weight_;
    mean.mul_(0.9).add_(gradient, 0.1);
    square.mul_(0.99).addcmul_(gradient, gradient, 0.01);
    const auto scaled = (mean / (1 - std::pow(0.9, step))) / ((square / (1 - std::pow(0.99, step))).sqrt() + 1e-8);
    weight_.sub_(scaled, 0.02);
    bias_.sub_(error.sum(0), 0.5);
  }
}

std::vector<std::int64_t> StyleJudge::classify(const std::vector<std::string>& texts) const {
  const auto best = at::addmm(bias_, count(texts), weight_).argmax(1);
  return {best.data_ptr<std::int64_t>(), best.data_ptr<std::int64_t>() + best.numel()};
}

Telltale telltale(const std::vector<std::string>& texts, const std::vector<std::int64_t>& labels, std::int64_t which) {
  std::map<std::string, std::pair<int, int>> counts;  // texts of the class, texts of all
  int total = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    total += labels[i] == which;
    std::set<std::string> unique;
    for (const auto& word : words_of(texts[i])) unique.insert(lower(word));
    for (const auto& word : unique) {
      counts[word].first += labels[i] == which;
      ++counts[word].second;
    }
  }
  Telltale best;
  for (const auto& [word, count] : counts) {
    const double share = static_cast<double>(count.first) / std::max(total, 1);
    if (count.first >= 0.9 * count.second && share > best.share) best = {word, share};
  }
  return best;
}

}  // namespace steer::demo
