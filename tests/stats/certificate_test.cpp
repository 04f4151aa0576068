// Certificates in simulated studies of known loss: how often one is given that is not true, and how often one is given.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include <steer/core/random.hpp>
#include <steer/stats/certificate.hpp>

#include "core/format_text.hpp"
#include "stats/suite.hpp"

namespace steer {
namespace {

class CertificateSuite : public test::CountedSuite<CertificateSuite> {
 public:
  static constexpr const char* label = "certificate";
};

constexpr int kRuns = 1000;

/// Losses of one question at one strength.
using Draw = std::function<std::vector<double>(Rng&, std::size_t strength)>;

AskLosses asked_of(const Draw& draw, std::uint64_t seed, std::int64_t* answers = nullptr) {
  return [=](std::size_t strength, std::int64_t first, std::int64_t count) {
    std::vector<std::vector<double>> rows;
    for (std::int64_t q = first; q < first + count; ++q) {
      // A question keeps its luck from strength to strength, as real ones do.
      Rng rng(derive_seed(seed, "question", static_cast<std::uint64_t>(q)));
      rows.push_back(draw(rng, strength));
      if (answers) ++*answers;
    }
    return rows;
  };
}

struct Rates {
  int wrong = 0;     ///< some strength was certified whose true loss is the margin or more
  int given = 0;     ///< some strength was certified
  double asked = 0;  ///< questions, on average
};

Rates rates(const std::vector<double>& strengths, const Draw& draw, std::size_t first_bad,
            const CertificateOptions& options) {
  Rates found;
  for (int run = 0; run < kRuns; ++run) {
    std::int64_t answers = 0;
    const auto certificate =
        certify(strengths, asked_of(draw, derive_seed(7, "run", static_cast<std::uint64_t>(run)), &answers), options);
    found.wrong += certificate.certified >= static_cast<std::int64_t>(first_bad);
    found.given += certificate.certified >= 0;
    found.asked += static_cast<double>(answers) / kRuns;
  }
  return found;
}

TEST_F(CertificateSuite, PublishedFigures) {
  near(certifiable_loss(64, 0), 0.046, 5e-4, "64 questions, none lost");
  near(certifiable_loss(171, 0), 0.017, 5e-4, "171 questions, none lost");
  near(certifiable_loss(500, 4), 0.018, 5e-4, "500 questions, four lost");
  expect(questions_to_certify(0.02, 0) == 149, "the rule of three, exactly: .98^149 < .05 < .98^148");
  for (const int lost : {0, 1, 4, 20}) {
    const auto n = questions_to_certify(0.02, lost);
    expect(certifiable_loss(n, lost) <= 0.02 && certifiable_loss(n - 1, lost) > 0.02, "fewest questions");
  }
  near(certificate_power(171, 0.02, 0), 1, 1e-12, "nothing is ever lost");
  near(certificate_power(171, 0.02, 0.005), std::pow(0.995, 171), 1e-9, "171 questions may lose none");
  expect(certificate_power(64, 0.02, 0) == 0, "64 questions are too few");
  near(certificate_power(1, 0.9, 0.3, 0.8), 0.7, 1e-12, "one question, which must not be lost");
  expect(certificate_plan(64, 0.02).find("4.6 points if none is lost") != std::string::npos,
         certificate_plan(64, 0.02));
  expect(certificate_plan(64, 0.02).find("149 with none lost") != std::string::npos, "how many are needed");
}

TEST_F(CertificateSuite, FalseCertificatesAreRare) {
  // Losses rise with strength; from `bad` on they are the margin exactly, the worst that a certificate may not be of.
  const std::vector<double> strengths{1, 2, 3, 4, 5, 6};
  for (const std::size_t bad : {std::size_t{0}, std::size_t{3}})
    for (const LossBound bound : {LossBound::exact, LossBound::betting})
      for (const int questions : {64, 171, 500})
        for (const double gained : {0.0, 0.03}) {
          const Draw draw = [&](Rng& rng, std::size_t s) -> std::vector<double> {
            const double u = rng.uniform(), lost = (s < bad ? 0.0 : 0.02) + gained;
            return {u < lost ? 1.0 : u > 1 - gained ? -1.0 : 0.0};
          };
          const auto found =
              rates(strengths, draw, bad, {.risks = {{.bound = bound}}, .questions = questions, .batch = 25});
          const auto what =
              format_text("{}, {} questions, {} gained, bad from {}: {} false of {}, {} given, {:.0f} asked",
                          to_string(bound), questions, gained, bad, found.wrong, kRuns, found.given, found.asked);
          if (test::verbose()) fmt::print("{}\n", what);
          expect(found.wrong < 0.05 * kRuns, what);
        }
}

TEST_F(CertificateSuite, AFailureEndsTheTests) {
  // Six strengths that all lose the margin, with luck of their own: whoever went on after a failure would certify one
  // in 1 - .97^6 = .17 of the runs.
  const std::vector<double> strengths{1, 2, 3, 4, 5, 6};
  int wrong = 0;
  for (int run = 0; run < kRuns; ++run) {
    Rng rng(derive_seed(9, "luck", static_cast<std::uint64_t>(run)));
    const auto ask = [&](std::size_t, std::int64_t, std::int64_t count) {
      std::vector<std::vector<double>> rows;
      for (std::int64_t q = 0; q < count; ++q) rows.push_back({rng.uniform() < 0.02 ? 1.0 : 0.0});
      return rows;
    };
    wrong += certify(strengths, ask, {.risks = {{.bound = LossBound::exact}}, .questions = 171}).certified >= 0;
  }
  expect(wrong < 0.05 * kRuns, format_text("{} false of {}", wrong, kRuns));
}

TEST_F(CertificateSuite, SeveralRisksNeedNoCorrection) {
  // Accuracy is safe throughout; format is lost at the margin, or the other way round.
  const std::vector<double> strengths{1, 2, 4};
  for (const bool swap : {false, true}) {
    const Draw draw = [&](Rng& rng, std::size_t) -> std::vector<double> {
      const double bad = rng.uniform() < 0.04 ? 1.0 : 0.0;
      return swap ? std::vector<double>{bad, 0} : std::vector<double>{0, bad};
    };
    const auto found =
        rates(strengths, draw, 0,
              {.risks = {{.name = "accuracy", .margin = 0.04}, {.name = "format", .margin = 0.04}}, .questions = 171});
    expect(found.wrong < 0.05 * kRuns, format_text("{} false", found.wrong));
  }
}

TEST_F(CertificateSuite, SafeStrengthsAreCertifiedAndBetsStopEarly) {
  const std::vector<double> strengths{1, 2, 3, 4};
  const Draw draw = [&](Rng& rng, std::size_t s) -> std::vector<double> {
    return {rng.uniform() < (s < 2 ? 0.001 : 0.3) ? 1.0 : 0.0};
  };
  for (const LossBound bound : {LossBound::exact, LossBound::betting}) {
    const auto found = rates(strengths, draw, 2, {.risks = {{.bound = bound}}, .questions = 500, .batch = 10});
    const auto what =
        format_text("{}: {} given, {} false, {:.0f} asked", to_string(bound), found.given, found.wrong, found.asked);
    if (test::verbose()) fmt::print("{}\n", what);
    expect(found.given > 0.9 * kRuns && found.wrong == 0, what);
    if (bound == LossBound::betting) expect(found.asked < 700, "of 1,010 that both safe strengths may ask, " + what);
    if (bound == LossBound::exact) expect(found.asked < 1100, "the bad strength is given up early, " + what);
  }
}

TEST_F(CertificateSuite, ControlVariateKeepsTheMeanAndTheSize) {
  // The prediction is what the question itself says of its loss; the sampled loss adds luck.
  constexpr int kAll = 2000, kAsked = 300;
  const double margin = 0.1;
  int wrong = 0, plain_given = 0, adjusted_given = 0;
  for (int run = 0; run < kRuns; ++run)
    for (const double true_loss : {margin, 0.02}) {
      Rng rng(derive_seed(8, "variate", static_cast<std::uint64_t>(run)));
      std::vector<double> everywhere, loss;
      for (int q = 0; q < kAll; ++q) {  // half of the questions are touched: some lose, some gain
        const double kind = rng.uniform();
        everywhere.push_back(kind < 0.25 + true_loss ? 0.9 : kind > 0.75 ? -0.9 : 0);
        const double luck = rng.uniform();
        loss.push_back(std::clamp(everywhere.back() + (luck < 0.02 ? 0.1 : luck > 0.98 ? -0.1 : 0.0), -1.0, 1.0));
      }
      const std::vector<double> asked(loss.begin(), loss.begin() + kAsked),
          predicted(everywhere.begin(), everywhere.begin() + kAsked);
      const auto adjusted = adjust_losses(asked, predicted, everywhere, 1);
      const auto given = [&](const std::vector<double>& losses, double highest) {
        const auto ask = [&](std::size_t, std::int64_t first, std::int64_t count) {
          std::vector<std::vector<double>> rows;
          for (std::int64_t q = first; q < first + count; ++q) rows.push_back({losses[static_cast<std::size_t>(q)]});
          return rows;
        };
        const std::vector<double> one{1};
        return certify(one, ask,
                       {.risks = {{.margin = margin, .highest = highest}}, .questions = kAsked, .batch = kAsked})
                   .certified == 0;
      };
      if (true_loss == margin) {
        double mean = 0;  // of this population: about the margin
        for (double x : loss) mean += x / kAll;
        wrong += mean >= margin && given(adjusted.losses, adjusted.highest);
      } else {
        plain_given += given(asked, 1);
        adjusted_given += given(adjusted.losses, adjusted.highest);
      }
      if (run == 0) {
        const auto all = adjust_losses(loss, everywhere, everywhere, 1);
        double before = 0, after = 0;
        for (std::size_t q = 0; q < loss.size(); ++q) {
          before += loss[q] / kAll;
          after += all.losses[q] / kAll;
        }
        near(after, before, 1e-12, "over all questions the mean stays");
        expect(*std::max_element(all.losses.begin(), all.losses.end()) <= all.highest + 1e-12, "bounded as said");
      }
    }
  expect(wrong <= 0.05 * kRuns, format_text("{} false", wrong));
  expect(adjusted_given > plain_given, format_text("{} given with it, {} without", adjusted_given, plain_given));
}

TEST_F(CertificateSuite, Sentences) {
  const std::vector<double> strengths{2, 4, 8};
  const Draw none = [](Rng&, std::size_t s) -> std::vector<double> { return {s < 2 ? 0.0 : 1.0}; };
  CertificateOptions options{.risks = {{.bound = LossBound::exact}}, .questions = 171, .conditions = "512 tokens"};
  const auto given = certify(strengths, asked_of(none, 1), options);
  expect(given.sentence() ==
             "Strength 4: accuracy loss at most 2.0 points with 95 % confidence on questions like these, 512 tokens "
             "(171 asked: 0 lost).",
         given.sentence());
  expect(given.tested.size() == 3 && given.certified == 1 && given.strength == 4, "the third failed");
  expect(given.tested[2].asked < 171, "a hopeless strength is not asked to the end");
  const std::vector<double> but_one{4, 8};
  const Draw weakest = [](Rng&, std::size_t s) -> std::vector<double> { return {s < 1 ? 0.0 : 1.0}; };
  const auto least = certify(but_one, asked_of(weakest, 1), options);
  expect(least.certified == 0 && least.sentence() == given.sentence(), "the weakest alone: " + least.sentence());
  options.questions = 64;
  const auto refused = certify(strengths, asked_of(none, 1), options);
  expect(
      refused.sentence() ==
          "Nothing certified with 64 questions at 95 % confidence, from strength 2 up: the smallest bound reached of "
          "accuracy loss is 4.6 points where 2.0 points was asked for (0 lost).",
      refused.sentence());
  expect(refused.tested.size() == 1, "what is stronger is not tested after a failure");
}

TEST_F(CertificateSuite, BadInputIsAnError) {
  const std::vector<double> rising{1, 2}, falling{2, 1};
  const auto halves = [](std::size_t, std::int64_t, std::int64_t count) {
    return std::vector<std::vector<double>>(static_cast<std::size_t>(count), {0.5});
  };
  const auto one_only = [](std::size_t, std::int64_t, std::int64_t) {
    return std::vector<std::vector<double>>(1, {0});
  };
  EXPECT_STEER_ERROR(certify(falling, halves, {.questions = 10}), ErrorCode::argument, "rising");
  EXPECT_STEER_ERROR(certify({}, halves, {.questions = 10}), ErrorCode::argument, "none");
  EXPECT_STEER_ERROR(certify(rising, halves, {}), ErrorCode::argument, "at least one question");
  EXPECT_STEER_ERROR(certify(rising, halves, {.risks = {{.margin = 0}}, .questions = 10}), ErrorCode::argument,
                     "margin");
  EXPECT_STEER_ERROR(certify(rising, halves, {.risks = {{.bound = LossBound::exact}}, .questions = 10}),
                     ErrorCode::argument, "betting");
  EXPECT_STEER_ERROR(certify(rising, one_only, {.questions = 10}), ErrorCode::shape, "10 questions");
  EXPECT_STEER_ERROR(questions_to_certify(0, 0), ErrorCode::argument, "margin");
  EXPECT_STEER_ERROR(adjust_losses(rising, rising, {}, 1), ErrorCode::argument, "all questions");
}

}  // namespace
}  // namespace steer
