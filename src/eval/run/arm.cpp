#include <steer/eval/arm.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/core/random.hpp>

#include "core/format_text.hpp"
#include "steering/edits/operation.hpp"

namespace steer {
namespace {

Edit as_noise(const Edit& edit, Rng& rng) {
  auto noise = edit.op->noise(edit, rng);
  require(noise.has_value(), ErrorCode::unsupported, "Arm::apply",
          "expected edits that add a vector or move along one to replace by noise but got \"{}\"", edit.describe());
  return *std::move(noise);
}

Edit elsewhere(const Edit& edit, Rng& rng) {
  auto other = edit.op->elsewhere(edit, rng);
  require(other.has_value(), ErrorCode::unsupported, "Arm::apply",
          "expected edits of features, or along a vector, to randomise but got \"{}\"", edit.describe());
  return *std::move(other);
}

void require_steered(const Arm& arm, const char* where) {
  require(arm.source != nullptr, ErrorCode::argument, where, "expected an arm with steering but got \"{}\"", arm.name);
}

Arm varied(Arm arm, ArmVariant variant, const char* where, std::string name, std::string description,
           std::uint64_t seed) {
  require_steered(arm, where);
  arm.variant = variant;
  arm.name = std::move(name);
  arm.description = std::move(description);
  arm.seed = seed;
  return arm;
}

}  // namespace

Steering Arm::apply(const Steering& given, const Behaviour& behaviour) const {
  const Steering scaled = strength == 1 ? given : given.scaled(strength);
  if (variant == ArmVariant::as_given) return scaled;
  if (variant == ArmVariant::flipped) return scaled.scaled(-1);
  Steering result;
  std::uint64_t index = 0;
  for (const Edit& edit : scaled.edits()) {
    Rng rng(derive_seed(derive_seed(seed, to_string(variant)), behaviour.name, index++));
    result.edit(variant == ArmVariant::noise ? as_noise(edit, rng) : elsewhere(edit, rng));
  }
  return result;
}

Arm Arm::control() {
  return {.name = "control", .description = "the model as it is, asked for nothing but the answer"};
}

Arm Arm::prompt() {
  return {.name = "prompt",
          .description = "system prompt \"When answering, please <behaviour>.\"",
          .asking = Asking::plainly};
}

Arm Arm::strong_prompt() {
  return {.name = "strong prompt",
          .description = "a system prompt that makes the behaviour the first rule",
          .asking = Asking::strongly};
}

Arm Arm::steered(std::string name, std::string description, SteeringSource source) {
  require(source.find != nullptr && !source.name.empty(), ErrorCode::argument, "Arm::steered",
          "expected a source with a name and a function");
  Arm arm{.name = std::move(name), .description = std::move(description)};
  arm.source = std::make_shared<const SteeringSource>(std::move(source));
  return arm;
}

Arm Arm::steered(std::string name, std::map<std::string, Steering> steerings) {
  require(!steerings.empty(), ErrorCode::argument, "Arm::steered", "expected at least one steering for the arm \"{}\"",
          name);
  ContentHasher hasher;
  for (const auto& [behaviour, steering] : steerings)
    hasher.update(behaviour).update("\n").update(steering.to_json().dump()).update("\n");
  const auto find = [steerings = std::move(steerings)](const Model&, const Behaviour& behaviour) -> FoundSteering {
    for (const std::string& name : {behaviour.name, std::string()})
      if (const auto found = steerings.find(name); found != steerings.end()) return {found->second, "given"};
    return {{}, "no steering given for this behaviour"};
  };
  return steered(name, "a steering that was given", {.name = name, .identity = hasher.hex(), .find = find});
}

Arm Arm::from_files(std::string name, const std::filesystem::path& path, const SteeringLoadOptions& options) {
  std::map<std::string, Steering> steerings;
  if (std::filesystem::is_directory(path)) {
    for (const auto& entry : std::filesystem::directory_iterator(path))
      if (entry.path().extension() == ".json")
        steerings[entry.path().stem().string()] = Steering::load(entry.path(), options);
    require(!steerings.empty(), ErrorCode::io, "Arm::from_files",
            "expected files \"<behaviour>.json\" but got none in \"{}\"", path.string());
  } else {
    steerings[""] = Steering::load(path, options);
  }
  return steered(std::move(name), std::move(steerings));
}

Arm Arm::with_prompt() const {
  require_steered(*this, "Arm::with_prompt");
  Arm arm = *this;
  arm.asking = Asking::plainly;
  arm.description += ", and the prompt of the prompting arm";
  arm.name += " + prompt";
  return arm;
}

Arm Arm::random_features(std::uint64_t with_seed) const {
  return varied(*this, ArmVariant::random_features, "Arm::random_features", "random features",
                "as many random features, brought to the KL of " + name, with_seed);
}

Arm Arm::noise(std::uint64_t with_seed) const {
  return varied(*this, ArmVariant::noise, "Arm::noise", "noise", "Gaussian noise, brought to the KL of " + name,
                with_seed);
}

Arm Arm::flipped() const {
  return varied(*this, ArmVariant::flipped, "Arm::flipped", name + " flipped", name + " with every sign turned", seed);
}

Arm Arm::at_strength(double factor) const {
  require_steered(*this, "Arm::at_strength");
  Arm arm = *this;
  arm.family = family.empty() ? name : family;
  arm.name = format_text("{} x {:g}", arm.family, factor);
  arm.description = format_text("{} at {:g} times its strength", arm.family, factor);
  arm.strength *= factor;
  return arm;
}

std::vector<Arm> Arm::strength_sweep(const std::vector<double>& strengths, std::int64_t every_nth) const {
  std::vector<Arm> arms;
  for (double factor : strengths) {
    arms.push_back(at_strength(factor));
    arms.back().every = every_nth;
  }
  return arms;
}

Arm Arm::draw(std::int64_t number) const {
  require(source && number >= 1, ErrorCode::argument, "Arm::draw",
          "expected a steered arm and a draw from 1 on but got \"{}\" and {}", name, number);
  Arm arm = *this;
  arm.draw_of = name;
  if (number == 1) return arm;
  const std::string suffix = format_text(", draw {}", number);
  SteeringSource other = *source;
  other.name += suffix;
  arm.name += suffix;
  arm.source = std::make_shared<const SteeringSource>(std::move(other));
  return arm;
}

}  // namespace steer
