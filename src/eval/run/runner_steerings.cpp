// What every arm steers every behaviour with: found, checked, and brought to a strength.
#include <set>

#include <steer/core/error.hpp>
#include <steer/model/session.hpp>

#include "core/format_text.hpp"
#include "eval/run/runner.hpp"
#include "features/effect_meter.hpp"

namespace steer::eval::detail {

/// What every source has for every behaviour: looked up, or searched as a stage.
void Runner::find_steerings() {
  std::vector<std::pair<const SteeringSource*, const Behaviour*>> searches;
  Stage<FoundSteering> stage{.name = "steering"};
  std::set<Pair> seen;
  for (const auto& arm : experiment_.arms) {
    if (!arm.source) continue;
    for (const auto& behaviour : experiment_.behaviours) {
      if (!seen.insert({arm.source->name, behaviour.name}).second) continue;
      if (!arm.source->costly) {
        found_[{arm.source->name, behaviour.name}] = arm.source->find(model_, behaviour);
        continue;
      }
      searches.emplace_back(arm.source.get(), &behaviour);
      stage.keys.push_back(arm.source->name + "|" + behaviour.name);
    }
  }
  if (searches.empty()) return;
  stage.make = [&](Indices indices) {
    std::vector<Made<FoundSteering>> made;
    for (auto i : indices) made.push_back({searches[i].first->find(model_, *searches[i].second)});
    return made;
  };
  stage.write = write_steering;
  stage.read = [&](std::size_t i, const std::string& line) { return read_steering(line, searches[i].first->saes); };
  auto found = run(stage);
  for (std::size_t i = 0; i < searches.size(); ++i)
    found_[{searches[i].first->name, searches[i].second->name}] = std::move(found[i]).value();
}

/// What does not fit is an error before the first answer; what a person should look at goes into the report.
void Runner::check_steerings() {
  Session session(model_, {.on_warning = options_.on_warning});
  for (const Arm& arm : experiment_.arms)
    if (arm.source)
      for (const Behaviour& behaviour : experiment_.behaviours)
        session.close(session.open({.steering = arm.apply(found(arm, behaviour).steering, behaviour)}));
  run_.warnings = session.warnings();
}

/// Random features and noise are brought to the effect of what they stand for: an edit of the same length along
/// another direction may change the model's distributions by much more or less.
PlaceboMatch Runner::match(const Arm& arm, const Behaviour& behaviour) const {
  const Steering& as_found = found(arm, behaviour).steering;
  const Steering given = as_found.scaled(arm.strength);
  const auto texts = neutral_texts(model_, given);
  try {
    const StrengthOptions how;
    features::detail::EffectMeter meter(model_, texts, how.quantile);
    const double effect = meter.of(given).quantile;
    const auto matched =
        features::detail::calibrate_strengths(meter, arm.apply(as_found, behaviour), {&effect, 1}, how).front();
    if (matched.reached) return {matched.factor, format_text("brought to the same KL, {:.2g} nats", effect)};
  } catch (const Error& error) {
    // Conditions on the next-token entropy, or an edit that does not act on texts: there is no effect to match.
    if (error.code() != ErrorCode::unsupported && error.code() != ErrorCode::argument) throw;
  }
  return {};
}

/// What every arm steers every behaviour with, and where it comes from.
void Runner::apply_steerings() {
  std::vector<std::pair<const Arm*, const Behaviour*>> placebos;
  Stage<PlaceboMatch> stage{.name = "placebo"};
  for (const auto& arm : experiment_.arms)
    for (const auto& behaviour : experiment_.behaviours) {
      if (!arm.source) continue;
      const FoundSteering& given = found(arm, behaviour);
      run_.steerings[{arm.name, behaviour.name}] = {arm.apply(given.steering, behaviour), given.note};
      if (!is_placebo(arm) || given.steering.empty()) continue;
      placebos.emplace_back(&arm, &behaviour);
      stage.keys.push_back(arm.name + "|" + behaviour.name);
    }
  if (placebos.empty()) return;
  stage.make = [&](Indices indices) {
    std::vector<Made<PlaceboMatch>> made;
    for (auto i : indices) made.push_back({match(*placebos[i].first, *placebos[i].second)});
    return made;
  };
  stage.write = write_match;
  stage.read = [](std::size_t, const std::string& line) { return read_match(line); };
  const auto matches = run(stage);
  for (std::size_t i = 0; i < placebos.size(); ++i) {
    FoundSteering& applied = run_.steerings.at({placebos[i].first->name, placebos[i].second->name});
    applied.steering = applied.steering.scaled(matches[i].value().factor);
    applied.note += "; placebo: " + matches[i]->note;
  }
}

}  // namespace steer::eval::detail
