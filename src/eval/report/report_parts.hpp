#pragma once

#include <string>
#include <vector>

#include <steer/eval/report.hpp>

namespace steer::eval::detail {

/// "64.1"; "-" for NaN. What rounds to nothing has no sign.
std::string number(double value, int digits);
/// "+0.52", "-0.10", "0.00".
std::string signed_number(double value, int digits);
/// "64.1 [60.0, 68.2]".
std::string with_interval(double value, const Interval& interval, double scale, int digits);
/// "< .0001" or ".0123".
std::string p_text(double p);
const ArmNote* note_of(const Report& report, const std::string& arm);
/// Groups of arms that differ in strength only and have at least three strengths, by rising strength.
struct StrengthFamily {
  std::string name;
  std::vector<const ArmNote*> arms;
};
std::vector<StrengthFamily> strength_families(const Report& report);

/// Questions worth showing of one behaviour: where the arm gained most over the baseline, least, and one by chance.
struct Samples {
  std::vector<std::pair<std::string, std::string>> questions;  ///< why it is shown, id
};
Samples choose_samples(const Report& report, const std::string& behaviour);
/// The arm that gains most behaviour over all, not counting the baseline; empty if none.
/// @param steered_only  only among arms that were steered and not asked.
std::string leading_arm(const Report& report, bool steered_only = false);
/// The arm whose best and worst answers are shown: the leading steered one, where there is one.
std::string sampled_arm(const Report& report);

}  // namespace steer::eval::detail
