// The verdict in words: one plain sentence, then the numbers it stands on.

#include <steer/eval/report.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <steer/stats/certificate.hpp>
#include <steer/stats/draws.hpp>

#include "core/format_text.hpp"
#include "eval/report/report_parts.hpp"

namespace steer {
namespace {

using namespace eval::detail;

/// "+0.52 [0.31, 0.73]", by the interval that allows for having chosen among the arms.
std::string change(const ArmComparison& comparison, double scale, int digits) {
  const double mean = comparison.difference.mean;
  if (comparison.unsteered()) return "0 (unsteered: the same answers)";
  return (signed_number(mean * scale, digits).front() == '+' ? "+" : "") +
         with_interval(mean, comparison.simultaneous, scale, digits);
}

std::string points(double share) { return format_text("{} points", number(share * 100, 1)); }

class Words {
 public:
  explicit Words(const Report& report) : report_(report), a_(report.analysis), base_(a_.options.baseline) {
    graded_ = a_.cell(base_).accuracy.n > 0;
    if (!usable("behaviour")) return;
    leader_ = leading_arm(report);
    steered_ = leading_arm(report, true);
  }

  std::string headline() const {
    if (leader_.empty()) return graded_ ? letters() : "There is no verdict: nothing was judged that one may rest on.";
    const bool any_beyond = gains(leader_), steered_beyond = !steered_.empty() && gains(steered_);
    const std::string& arm = steered_beyond || steered_.empty() ? (steered_beyond ? steered_ : leader_) : leader_;
    if (!any_beyond) return format_text("No arm shows more of the behaviour than {} beyond chance.", base_);
    std::string text;
    if (!steered_.empty() && !steered_beyond)
      text =
          format_text("No arm steered without being asked shows more of the behaviour than {} beyond chance; ", base_);
    text += format_text("{} shows more of {} ({} on a scale from 1 to 5)", arm,
                        text.empty() ? "the behaviour than " + base_ : "it",
                        signed_mean(*a_.comparison(arm, "behaviour"), 1, 2));
    return text + price(arm) + ".";
  }

  std::vector<std::string> findings() const {
    std::vector<std::string> lines{control()};
    if (!leader_.empty())
      lines.push_back(format_text("Most behaviour is gained by {}: {}.", leader_, numbers(leader_)));
    if (!steered_.empty() && steered_ != leader_)
      lines.push_back(format_text("Of the steered arms it is {}: {}.", steered_, numbers(steered_)));
    if (leader_.empty() && graded_) lines.push_back(least_accurate());
    for (const auto& note : report_.arms)
      if (note.placebo && usable("behaviour") && a_.comparison(note.name, "behaviour"))
        lines.push_back(
            format_text("For scale, a disturbance as large to no purpose ({}): {}.", note.name, numbers(note.name)));
    draws(lines);
    behaviours(lines);
    if (!leader_.empty() && graded_) limits(lines);
    if (a_.arms.size() > 2)
      lines.push_back(format_text(
          "Intervals of differences hold for all {} arms together at {:g} %, so that the largest may be read.",
          a_.arms.size() - 1, a_.options.level * 100));
    std::int64_t missing = 0;
    for (const auto& result : report_.results) missing += static_cast<std::int64_t>(result.failed.size());
    if (missing > 0)
      lines.push_back(
          format_text("{} judgements failed and count as missing; the table bounds what they could change.", missing));
    for (const auto& [measure, reason] : report_.withheld)
      lines.push_back(format_text("No verdict on {}: {}.", measure, reason));
    return lines;
  }

 private:
  /// Whether the judge of a measure is good enough to conclude from.
  bool usable(const char* measure) const { return !report_.withheld.contains(measure); }

  static std::string signed_mean(const ArmComparison& c, double scale, int digits) {
    return signed_number(c.difference.mean * scale, digits);
  }

  bool gains(const std::string& arm) const { return a_.comparison(arm, "behaviour")->simultaneous.low > 0; }

  /// Whether a loss of the limit or more is ruled out for this arm among all that were looked at: which one is named
  /// depends on what they show.
  bool ruled_out(const ArmComparison& accuracy) const { return accuracy.p_non_inferior_holm <= 1 - a_.options.level; }

  /// What a loss that is not ruled out may be.
  std::string undecided(const ArmComparison& accuracy) const {
    if (accuracy.p_non_inferior <= 1 - a_.options.level)
      return format_text("a loss of {} or more is excluded for this arm by itself, not for all arms together",
                         points(a_.options.accuracy_loss));
    return format_text("a loss of up to {} is not excluded", points(std::max(0.0, accuracy.loss_bound)));
  }

  /// What the interval of an accuracy difference lets one say.
  std::string accuracy_verdict(const ArmComparison& accuracy) const {
    if (accuracy.unsteered()) return "no answer was steered";
    if (accuracy.simultaneous.high < 0) return "a loss beyond chance";
    if (accuracy.simultaneous.low > 0) return "a gain beyond chance";
    if (ruled_out(accuracy)) return "no loss of " + points(a_.options.accuracy_loss) + " or more";
    return "undecided: " + undecided(accuracy);
  }

  std::string price(const std::string& arm) const {
    const auto* accuracy = a_.comparison(arm, "accuracy");
    if (!accuracy || accuracy->unsteered()) return "";
    if (accuracy->simultaneous.high < 0)
      return format_text(" and loses accuracy ({} points)", signed_mean(*accuracy, 100, 1));
    if (accuracy->simultaneous.low > 0)
      return format_text(" and gains accuracy ({} points)", signed_mean(*accuracy, 100, 1));
    if (ruled_out(*accuracy))
      return format_text(" and loses less than {} of accuracy", points(a_.options.accuracy_loss));
    return format_text("; whether that costs accuracy is undecided ({})", undecided(*accuracy));
  }

  std::string numbers(const std::string& arm) const {
    std::string text = change(*a_.comparison(arm, "behaviour"), 1, 2) + " of behaviour";
    if (const auto* accuracy = a_.comparison(arm, "accuracy"))
      text += format_text(", {} points of accuracy ({})", change(*accuracy, 100, 1), accuracy_verdict(*accuracy));
    if (const auto* coherence = usable("coherence") ? a_.comparison(arm, "coherence") : nullptr)
      text += format_text(", {} of coherence", change(*coherence, 1, 2));
    return text;
  }

  std::string control() const {
    const ArmCell& control = a_.cell(base_);
    std::set<std::string> asked;
    for (const auto& result : report_.results) asked.insert(result.question);
    std::string text = format_text("Over {} questions and {} behaviour{}, {}", asked.size(), a_.behaviours.size(),
                                   a_.behaviours.size() == 1 ? "" : "s", base_);
    if (graded_) {
      text += format_text(" gets {} % right", with_interval(control.accuracy.value, control.accuracy.interval, 100, 1));
      if (control.accuracy.design_effect > 1.05)
        text += format_text(" (design effect {}: {} rows say as much as {} independent ones)",
                            number(control.accuracy.design_effect, 1), control.accuracy.n,
                            number(static_cast<double>(control.accuracy.n) / control.accuracy.design_effect, 0));
    }
    const auto score = [&](const char* name) {
      const auto& s = control.scores.at(name);
      return with_interval(s.summary.mean, s.interval, 1, 2);
    };
    if (usable("behaviour") && control.scores.contains("behaviour"))
      text += format_text("{} scores {} of 5 for behaviour", graded_ ? " and" : "", score("behaviour"));
    if (usable("coherence") && control.scores.contains("coherence"))
      text += format_text(", {} for coherence", score("coherence"));
    return text + ".";
  }

  const ArmComparison* lowest() const {
    const ArmComparison* worst = nullptr;
    for (const auto& arm : a_.arms)
      if (const auto* accuracy = a_.comparison(arm, "accuracy"))
        if (!worst || accuracy->difference.mean < worst->difference.mean) worst = accuracy;
    return worst;
  }

  /// Letters alone: accuracy is all there is.
  std::string letters() const {
    const ArmComparison* worst = lowest();
    if (worst && worst->simultaneous.high < 0)
      return format_text("{} is right less often than {} ({} points).", worst->arm, base_, signed_mean(*worst, 100, 1));
    return format_text("No arm is right less often than {} beyond chance.", base_);
  }

  std::string least_accurate() const {
    const ArmComparison* worst = lowest();
    if (!worst) return format_text("There is no arm besides {}.", base_);
    const auto what = format_text("{} points of accuracy ({})", change(*worst, 100, 1), accuracy_verdict(*worst));
    if (worst->difference.mean >= 0)
      return format_text("No arm is less accurate than {}; the nearest to it is {}: {}.", base_, worst->arm, what);
    return format_text("The least accurate arm is {}: {}.", worst->arm, what);
  }

  void limits(std::vector<std::string>& lines) const {
    const Tradeoff& all = a_.tradeoffs.back();
    const double limit = a_.options.accuracy_loss, level = a_.options.level;
    if (all.within_limit.empty()) {
      lines.push_back(format_text(
          "No arm's loss of accuracy is shown to be below {} with {} questions, all arms looked at together{}; {} with "
          "none lost would do for one arm.",
          points(limit), all.questions,
          all.safest.empty() ? ""
                             : format_text(" (smallest bound of one by itself: {}, of {})",
                                           points(std::max(0.0, all.safest_bound)), all.safest),
          questions_to_certify(limit, 0, level)));
      return;
    }
    std::string names;
    for (const auto& arm : all.within_limit) names += (names.empty() ? "" : ", ") + arm;
    lines.push_back(
        format_text("Loses less than {} of accuracy, by its bound: {}. Of these, chosen on one half of the "
                    "questions and measured on the other: {}.",
                    points(limit), names, gain_text(all.within_accuracy)));
    if (usable("coherence") && a_.cell(base_).scores.contains("coherence"))
      lines.push_back(format_text("At coherence of {:g} or more as well: {}.", a_.options.coherence,
                                  gain_text(all.within_accuracy_and_coherence)));
  }

  /// Differences from the baseline on one measure: [arms][questions], of the questions that all of them answered.
  std::vector<std::vector<double>> effects(const std::vector<std::string>& arms, const std::string& measure) const {
    const auto value = [&](const ResultRow& r) {
      if (measure == "accuracy") return r.gold.empty() ? NAN : static_cast<double>(r.correct());
      return r.scores.contains(measure) ? r.scores.at(measure) : NAN;
    };
    std::map<std::string, double> base;  // by behaviour and question
    for (const auto& r : report_.results)
      if (r.arm == base_) base[r.behaviour + "|" + r.question] = value(r);
    std::map<std::string, std::vector<Summary>> by_question;
    for (const auto& r : report_.results) {
      const auto arm = std::find(arms.begin(), arms.end(), r.arm);
      const auto found = base.find(r.behaviour + "|" + r.question);
      if (arm == arms.end() || found == base.end() || std::isnan(value(r) - found->second)) continue;
      auto& sums = by_question[r.question];
      sums.resize(arms.size());
      auto& sum = sums[static_cast<std::size_t>(arm - arms.begin())];
      sum.mean += value(r) - found->second;
      ++sum.n;
    }
    std::vector<std::vector<double>> made(arms.size());
    for (const auto& [question, sums] : by_question)
      if (std::all_of(sums.begin(), sums.end(), [](const Summary& s) { return s.n > 0; }))
        for (std::size_t i = 0; i < arms.size(); ++i) made[i].push_back(sums[i].mean / static_cast<double>(sums[i].n));
    return made;
  }

  /// Searches repeated with other seeds: how far they lie apart.
  void draws(std::vector<std::string>& lines) const {
    std::map<std::string, std::vector<std::string>> methods;
    for (const auto& note : report_.arms)
      if (!note.draw_of.empty()) methods[note.draw_of].push_back(note.name);
    for (const auto& [method, arms] : methods) {
      if (arms.size() < 2) continue;
      std::string text;
      for (const char* measure : {"behaviour", "accuracy"}) {
        if (!usable(measure)) continue;
        const auto values = effects(arms, measure);
        if (values.front().size() < 2) continue;
        const auto spread = draw_spread(values, a_.options.level);
        const bool accuracy = std::string_view(measure) == "accuracy";
        text += format_text("{} {} {}, draws apart by a standard deviation of {}", text.empty() ? "" : ";",
                            with_interval(spread.mean, spread.interval, accuracy ? 100 : 1, accuracy ? 1 : 2),
                            accuracy ? "points of accuracy" : "of behaviour",
                            number(spread.between_sd * (accuracy ? 100 : 1), accuracy ? 1 : 2));
      }
      if (!text.empty())
        lines.push_back(format_text("Over {} draws of {} and the questions:{}.", arms.size(), method, text));
    }
  }

  /// What holds of behaviours at large, not only of those that were asked for.
  void behaviours(std::vector<std::string>& lines) const {
    std::vector<std::string> shown{leader_, steered_};
    if (leader_.empty() && graded_ && lowest()) shown = {lowest()->arm};
    std::string text;
    for (std::size_t i = 0; i < shown.size(); ++i) {
      if (shown[i].empty() || (i > 0 && shown[i] == shown[0])) continue;
      std::string one;
      for (const char* measure : {"behaviour", "accuracy"}) {
        const auto* c = usable(measure) ? a_.comparison(shown[i], measure) : nullptr;
        if (!c || std::isnan(c->over_behaviours.low)) continue;
        const bool accuracy = std::string_view(measure) == "accuracy";
        one += format_text("{} {} {} (behaviours apart by a standard deviation of {})", one.empty() ? "" : ",",
                           with_interval(c->difference.mean, c->over_behaviours, accuracy ? 100 : 1, accuracy ? 1 : 2),
                           accuracy ? "points of accuracy" : "of behaviour",
                           number(c->between_behaviours * (accuracy ? 100 : 1), accuracy ? 1 : 2));
      }
      if (!one.empty()) text += format_text("{} {}{}", text.empty() ? "" : ";", shown[i], one);
    }
    if (!text.empty())
      lines.push_back(format_text("If the {} behaviours are a sample as the questions are, and others may follow:{}.",
                                  a_.behaviours.size(), text));
  }

  static std::string gain_text(const BestGain& best) {
    if (best.arm.empty()) return "none gains behaviour";
    const bool agree = best.by_half[0] == best.arm && best.by_half[1] == best.arm;
    return format_text("{}{}, {}{}", best.arm, agree ? "" : " (the halves choose differently)",
                       signed_number(best.gain, 2).front() == '+' ? "+" : "",
                       with_interval(best.gain, best.interval, 1, 2));
  }

  const Report& report_;
  const Analysis& a_;
  const std::string& base_;
  bool graded_ = false;
  std::string leader_, steered_;
};

}  // namespace

std::string Report::headline() const { return Words(*this).headline(); }

std::vector<std::string> Report::findings() const { return Words(*this).findings(); }

std::string Report::verdict() const {
  std::string text = headline() + "\n";
  for (const auto& line : findings()) text += "\n- " + line;
  return text;
}

}  // namespace steer
