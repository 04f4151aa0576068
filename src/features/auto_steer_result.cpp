// What a search found, as JSON and as a page of text.
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include <steer/features/auto_steer.hpp>

#include "core/format_text.hpp"

namespace steer {

nlohmann::json AutoSteerResult::to_json() const {
  nlohmann::json features = nlohmann::json::array(), tried = nlohmann::json::array();
  for (const auto& c : candidates)
    features.push_back({{"feature", c.feature},
                        {"label", c.label},
                        {"standardised", c.contrast.standardised},
                        {"auroc", c.contrast.auroc},
                        {"auroc_low", c.contrast.auroc_low},
                        {"auroc_high", c.contrast.auroc_high},
                        {"max_activation", c.max_activation},
                        {"attribution", c.attribution},
                        {"output_score", c.output_score},
                        {"dropped", c.dropped}});
  for (const auto& t : trials)
    tried.push_back({{"form", t.form},
                     {"strength", t.strength},
                     {"target", t.target},
                     {"effect", t.effect},
                     {"features", t.features},
                     {"behaviour", t.behaviour},
                     {"accuracy", t.accuracy},
                     {"format", t.format},
                     {"loops", t.loops},
                     {"kl", t.kl},
                     {"nll_gain", t.nll_gain},
                     {"screened_out", t.screened_out},
                     {"within_bounds", t.within_bounds},
                     {"dropped", t.dropped}});
  return {{"behaviour", behaviour},
          {"mode", to_string(mode)},
          {"verdict", to_string(verdict)},
          {"reason", reason},
          {"certificate", certificate ? nlohmann::json(certificate->sentence()) : nlohmann::json()},
          {"score_unsteered", score_unsteered},
          {"score_asked", score_asked},
          {"score_opposite", score_opposite},
          {"chosen", chosen},
          {"candidates", features},
          {"trials", tried},
          {"accuracy_unsteered", accuracy_unsteered},
          {"format_unsteered", format_unsteered},
          {"loops_unsteered", loops_unsteered}};
}

namespace {

std::string figure(double value, int width, int digits) {
  if (std::isnan(value)) return format_text("{:>{}}", "-", width);
  const double scale = std::pow(10, digits), rounded = std::round(value * scale) / scale;
  return format_text("{:>{}.{}f}", rounded == 0 ? 0 : rounded, width, digits);  // no "-0.00"
}

}  // namespace

std::string AutoSteerResult::explain() const {
  std::string text = format_text("{} ({}): {}\n{}\n", behaviour, to_string(mode), to_string(verdict), reason);
  if (!steering.empty()) text += steering.describe() + "\n";
  for (const std::string& warning : warnings) text += "mind: " + warning + "\n";
  text += "\n  feature  d     AUROC [low, high]   attribution  alone  label / why dropped\n";
  for (const auto& c : candidates)
    text += format_text("  {:>7}  {:>5.2f}  {:.2f} [{:.2f}, {:.2f}]  {}  {}  {}{}{}\n", c.feature,
                        c.contrast.standardised, c.contrast.auroc, c.contrast.auroc_low, c.contrast.auroc_high,
                        figure(c.attribution, 11, 4), figure(c.output_score, 5, 2), c.label,
                        c.label.empty() || c.dropped.empty() ? "" : " / ", c.dropped);
  text += "\n  behaviour  accuracy  format  loops  KL     NLL gain  effect  strength  form / why not chosen\n";
  for (std::size_t t = 0; t < trials.size(); ++t) {
    const auto& trial = trials[t];
    if (std::isnan(trial.nll_gain)) continue;
    text += format_text("{} {}  {}  {}  {}  {}  {}  {:>6.3g}  {:>8.2f}  {}{}{}\n",
                        static_cast<std::int64_t>(t) == chosen ? ">" : " ", figure(trial.behaviour, 9, 2),
                        figure(trial.accuracy, 8, 2), figure(trial.format, 6, 2), figure(trial.loops, 5, 2),
                        figure(trial.kl, 5, 3), figure(trial.nll_gain, 8, 3), trial.effect, trial.strength, trial.form,
                        trial.dropped.empty() ? "" : " / ", trial.dropped);
  }
  std::map<std::string, std::array<std::int64_t, 3>>
      dropped;  // of each form: tried, gained or collapsed too early, outdone
  for (const auto& trial : trials) {
    auto& [tried, screened, outdone] = dropped[trial.form];
    ++tried, screened += trial.screened_out, outdone += !trial.screened_out && std::isnan(trial.nll_gain);
  }
  for (const auto& [form, counts] : dropped)
    if (counts[1] + counts[2] > 0)
      text += format_text("  {}: {} tried, {} dropped on the first tokens, {} outdone there by others of the form\n",
                          form, counts[0], counts[1], counts[2]);
  return text;
}

}  // namespace steer
