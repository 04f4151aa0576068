#include <steer/stats/certificate.hpp>

#include <algorithm>
#include <boost/math/distributions/binomial.hpp>
#include <cmath>

#include <steer/core/error.hpp>
#include <steer/stats/betting.hpp>
#include <steer/stats/proportions.hpp>

#include "core/format_text.hpp"

namespace steer {
namespace {

constexpr std::int64_t kMostQuestions = 100'000'000;

/// One risk at one strength, while answers come in.
class Tally {
 public:
  Tally(const Risk& risk, double level) : risk_(risk), level_(level), bets_(risk.margin, risk.highest) {}

  void add(double loss) {
    if (risk_.bound == LossBound::exact)
      require(loss == -1 || loss == 0 || loss == 1, ErrorCode::argument, "certify",
              "expected losses of -1, 0 or 1 for an exact bound of {} but got {}; use LossBound::betting", risk_.name,
              loss);
    bets_.add(loss);
    losses_.push_back(loss);
    evidence_.lost += loss > 0;
    evidence_.gained += loss < 0;
  }

  /// Enough is known to pass; with bets at any time, with an exact bound only when all were asked.
  bool passed(bool all_asked) const {
    if (risk_.bound == LossBound::betting) return bets_.p_anytime() <= 1 - level_;
    return all_asked && exact_p() <= 1 - level_;
  }

  /// It would not pass were nothing lost from here on. Stopping for that can only make certificates rarer.
  bool hopeless(std::int64_t questions) const {
    if (risk_.bound == LossBound::exact)
      return proportion_upper_bound(evidence_.lost, questions, level_) > risk_.margin;
    return bets_.p_anytime() > 1 - level_ &&
           bets_.log_wealth_after_none(questions - bets_.count()) < -std::log(1 - level_);
  }

  RiskEvidence evidence() const {
    RiskEvidence found = evidence_;
    for (double loss : losses_) found.mean_loss += loss / static_cast<double>(losses_.size());
    if (risk_.bound == LossBound::exact) {
      found.p = exact_p();
      found.upper = proportion_upper_bound(found.lost, static_cast<std::int64_t>(losses_.size()), level_);
    } else {
      found.p = bets_.p_anytime();
      found.upper = betting_upper_bound(losses_, level_, risk_.highest);
    }
    return found;
  }

 private:
  double exact_p() const {
    if (losses_.empty()) return 1;
    const boost::math::binomial lost(static_cast<double>(losses_.size()), risk_.margin);
    return boost::math::cdf(lost, static_cast<double>(evidence_.lost));
  }

  const Risk& risk_;
  double level_;
  BettingTest bets_;
  std::vector<double> losses_;
  RiskEvidence evidence_;
};

StrengthEvidence test(std::size_t index, double strength, const AskLosses& losses, const CertificateOptions& options) {
  std::vector<Tally> tallies;
  for (const auto& risk : options.risks) tallies.emplace_back(risk, options.level);
  StrengthEvidence result{.strength = strength, .risks = {}};
  while (result.asked < options.questions) {
    const std::int64_t count = std::min(options.batch, options.questions - result.asked);
    const auto rows = losses(index, result.asked, count);
    require(static_cast<std::int64_t>(rows.size()) == count, ErrorCode::shape, "certify",
            "expected losses of {} questions but got {}", count, rows.size());
    for (const auto& row : rows) {
      require(row.size() == tallies.size(), ErrorCode::shape, "certify", "expected {} losses a question but got {}",
              tallies.size(), row.size());
      for (std::size_t r = 0; r < tallies.size(); ++r) tallies[r].add(row[r]);
    }
    result.asked += count;
    const bool all_asked = result.asked == options.questions;
    result.passed =
        std::all_of(tallies.begin(), tallies.end(), [&](const Tally& tally) { return tally.passed(all_asked); });
    // The weakest strength is asked to the end: its bound is what is said when nothing can be certified.
    if (result.passed || (index > 0 && std::any_of(tallies.begin(), tallies.end(),
                                                   [&](const Tally& t) { return t.hopeless(options.questions); })))
      break;
  }
  for (const auto& tally : tallies) result.risks.push_back(tally.evidence());
  return result;
}

void check(std::span<const double> strengths, const CertificateOptions& options) {
  require(!strengths.empty(), ErrorCode::argument, "certify", "expected strengths to test but got none");
  require(std::is_sorted(strengths.begin(), strengths.end(), std::less_equal<>()), ErrorCode::argument, "certify",
          "expected rising strengths but got {:g} to {:g} in another order", strengths.front(), strengths.back());
  require(!options.risks.empty(), ErrorCode::argument, "certify", "expected a risk to bound but got none");
  require(options.questions >= 1 && options.batch >= 1, ErrorCode::argument, "certify",
          "expected at least one question and batches of at least one but got {} and {}", options.questions,
          options.batch);
  require(options.level > 0 && options.level < 1, ErrorCode::argument, "certify",
          "expected a level between 0 and 1 but got {}", options.level);
  for (const auto& risk : options.risks)
    require(risk.margin > 0 && risk.margin < risk.highest, ErrorCode::argument, "certify",
            "expected a margin of {} between 0 and {} but got {}", risk.name, risk.highest, risk.margin);
}

std::string points(double share) { return format_text("{:.1f} points", share * 100); }

std::string counts(const RiskEvidence& found) {
  return format_text("{} lost{}", found.lost, found.gained > 0 ? format_text(", {} gained", found.gained) : "");
}

}  // namespace

Certificate certify(std::span<const double> strengths, const AskLosses& losses, const CertificateOptions& options) {
  check(strengths, options);
  Certificate certificate{.options = options, .tested = {}};
  for (std::size_t i = 0; i < strengths.size(); ++i) {
    certificate.tested.push_back(test(i, strengths[i], losses, options));
    if (!certificate.tested.back().passed) break;
    certificate.certified = static_cast<std::int64_t>(i);
    certificate.strength = strengths[i];
  }
  return certificate;
}

std::string Certificate::sentence() const {
  const std::string confidence = format_text("{:g} % confidence", options.level * 100);
  std::string text, detail;
  if (certified >= 0) {
    const auto& at = tested[static_cast<std::size_t>(certified)];
    for (std::size_t r = 0; r < options.risks.size(); ++r) {
      text += format_text("{}{} loss at most {}", r == 0 ? "" : ", ", options.risks[r].name,
                          points(options.risks[r].margin));
      detail += (r == 0 ? "" : "; ") + counts(at.risks[r]);
    }
    return format_text("Strength {:g}: {} with {} on questions like these{} ({} asked: {}).", strength, text,
                       confidence, options.conditions.empty() ? "" : ", " + options.conditions, at.asked, detail);
  }
  if (tested.empty()) return "Nothing was tested.";
  const auto& weakest = tested.front();
  for (std::size_t r = 0; r < options.risks.size(); ++r) {
    if (weakest.risks.size() <= r) break;
    text += format_text("{}the smallest bound reached of {} loss is {} where {} was asked for ({})", r == 0 ? "" : "; ",
                        options.risks[r].name, points(weakest.risks[r].upper), points(options.risks[r].margin),
                        counts(weakest.risks[r]));
  }
  return format_text("Nothing certified with {} questions at {}, from strength {:g} up: {}.", weakest.asked, confidence,
                     weakest.strength, text);
}

double certifiable_loss(std::int64_t n, std::int64_t lost, double level) {
  return proportion_upper_bound(lost, n, level);
}

std::int64_t questions_to_certify(double margin, std::int64_t lost, double level) {
  require(lost >= 0 && margin > 0 && margin < 1, ErrorCode::argument, "questions_to_certify",
          "expected a margin between 0 and 1 and a count of lost questions but got {} and {}", margin, lost);
  std::int64_t low = lost, high = std::max<std::int64_t>(lost, 1);
  while (certifiable_loss(high, lost, level) > margin) {
    low = high;
    high *= 2;
    require(high < kMostQuestions, ErrorCode::argument, "questions_to_certify",
            "expected a margin that {} questions can certify but got {}", kMostQuestions, margin);
  }
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (certifiable_loss(middle, lost, level) > margin ? low : high) = middle;
  }
  return high;
}

double certificate_power(std::int64_t n, double margin, double true_loss, double level) {
  require(n >= 1 && margin > 0 && margin < 1 && true_loss >= 0 && true_loss <= 1, ErrorCode::argument,
          "certificate_power", "expected questions and shares between 0 and 1 but got {}, {} and {}", n, margin,
          true_loss);
  std::int64_t most = -1;  // that may be lost
  while (most + 1 < n && certifiable_loss(n, most + 1, level) <= margin) ++most;
  if (most < 0) return 0;
  return boost::math::cdf(boost::math::binomial(static_cast<double>(n), true_loss), static_cast<double>(most));
}

std::string certificate_plan(std::int64_t n, double margin, double level) {
  std::string text = format_text("{} questions certify, at {:g} % confidence, a loss of at most", n, level * 100);
  for (const std::int64_t lost : {0, 1, 2, 4})
    if (lost <= n)
      text += format_text("{} {} if {} lost", lost == 0 ? "" : ",", points(certifiable_loss(n, lost, level)),
                          lost == 0   ? std::string("none is")
                          : lost == 1 ? std::string("one is")
                                      : format_text("{} are", lost));
  text += format_text(". {} needs", points(margin));
  for (const std::int64_t lost : {0, 1, 2, 4})
    text += format_text("{} {} with {} lost", lost == 0 ? "" : ",", questions_to_certify(margin, lost, level),
                        lost == 0 ? std::string("none") : std::to_string(lost));
  return text + ".";
}

AdjustedLosses adjust_losses(std::span<const double> losses, std::span<const double> predicted,
                             std::span<const double> everywhere, double weight) {
  require(losses.size() == predicted.size(), ErrorCode::shape, "adjust_losses",
          "expected a prediction a loss but got {} losses and {} predictions", losses.size(), predicted.size());
  require(!everywhere.empty() && weight >= 0 && weight <= 1, ErrorCode::argument, "adjust_losses",
          "expected predictions of all questions and a weight from 0 to 1 but got {} and {}", everywhere.size(),
          weight);
  for (auto values : {losses, predicted, everywhere})
    for (double value : values)
      require(std::isfinite(value), ErrorCode::argument, "adjust_losses", "expected finite values but got {}", value);
  double mean = 0;
  for (double z : everywhere) mean += z / static_cast<double>(everywhere.size());
  AdjustedLosses result;
  result.highest = 1 + weight * (mean - *std::min_element(everywhere.begin(), everywhere.end()));
  for (std::size_t i = 0; i < losses.size(); ++i) result.losses.push_back(losses[i] - weight * (predicted[i] - mean));
  return result;
}

}  // namespace steer
