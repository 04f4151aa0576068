#include <steer/stats/betting.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>

#include <steer/core/error.hpp>

namespace steer {
namespace {

constexpr double kLowest = -std::numeric_limits<double>::infinity();

/// A share of the first wealth and the bet it is put on.
struct Bet {
  double log_share, size;
};

const std::vector<Bet>& bets() {
  static const std::vector<Bet> all = [] {
    constexpr int kSpread = 32;
    std::vector<Bet> made{{std::log(0.5), 1.0}};
    for (int i = 0; i < kSpread; ++i) {  // the arcsine law's quantiles at the middles of equal shares
      const double sine = std::sin(std::numbers::pi / 2 * (i + 0.5) / kSpread);
      made.push_back({std::log(0.5 / kSpread), sine * sine});
    }
    return made;
  }();
  return all;
}

double log_sum(std::span<const double> logs) {
  const double most = *std::max_element(logs.begin(), logs.end());
  if (most == kLowest) return kLowest;
  double sum = 0;
  for (double x : logs) sum += std::exp(x - most);
  return most + std::log(sum);
}

void require_loss(double loss, double highest, std::string_view where) {
  require(std::isfinite(loss) && loss <= highest + 1e-9, ErrorCode::argument, where,
          "expected a loss of at most {} but got {}", highest, loss);
}

}  // namespace

BettingTest::BettingTest(double margin, double highest) : margin_(margin), highest_(highest) {
  require(std::isfinite(highest) && margin < highest, ErrorCode::argument, "BettingTest",
          "expected a margin below the highest loss but got {} and {}", margin, highest);
  for (const auto& bet : bets()) log_wealth_.push_back(bet.log_share);
}

void BettingTest::add(double loss) {
  require_loss(loss, highest_, "BettingTest::add");
  const double gain = (margin_ - std::min(loss, highest_)) / (highest_ - margin_);
  for (std::size_t i = 0; i < log_wealth_.size(); ++i)
    log_wealth_[i] += std::log1p(bets()[i].size * std::max(gain, -1.0));
  ++count_;
  largest_ = std::max(largest_, log_wealth());
}

double BettingTest::log_wealth() const { return log_sum(log_wealth_); }

double BettingTest::log_wealth_after_none(std::int64_t more) const {
  std::vector<double> then = log_wealth_;
  for (std::size_t i = 0; i < then.size(); ++i)
    then[i] += static_cast<double>(more) * std::log1p(bets()[i].size * margin_ / (highest_ - margin_));
  return log_sum(then);
}

double BettingTest::p() const { return std::exp(-std::max(0.0, log_wealth())); }
double BettingTest::p_anytime() const { return std::exp(-largest_); }

double betting_p(std::span<const double> losses, double margin, double highest) {
  BettingTest test(margin, highest);
  for (double loss : losses) test.add(loss);
  return test.p();
}

double betting_upper_bound(std::span<const double> losses, double level, double highest) {
  require(level > 0 && level < 1, ErrorCode::argument, "betting_upper_bound",
          "expected a level between 0 and 1 but got {}", level);
  if (losses.empty()) return highest;
  std::map<double, double> counts;  // most losses are equal, and their order does not matter
  for (double loss : losses) {
    require_loss(loss, highest, "betting_upper_bound");
    ++counts[std::min(loss, highest)];
  }
  const auto refuted = [&](double margin) {
    std::vector<double> logs;
    for (const auto& bet : bets()) {
      double log_wealth = bet.log_share;
      for (const auto& [loss, times] : counts)
        log_wealth += times * std::log1p(bet.size * std::max((margin - loss) / (highest - margin), -1.0));
      logs.push_back(log_wealth);
    }
    return log_sum(logs) >= -std::log(1 - level);
  };
  // The wealth rises with the margin: of every bet, and so of their average.
  double low = counts.begin()->first - 1e-9, high = highest;
  for (int i = 0; i < 50 && high - low > 1e-8; ++i) {
    const double middle = (low + high) / 2;
    (refuted(middle) ? high : low) = middle;
  }
  return high;
}

}  // namespace steer
