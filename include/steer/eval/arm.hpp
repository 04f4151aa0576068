#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <steer/core/enum.hpp>
#include <steer/eval/behaviours.hpp>
#include <steer/model/model.hpp>
#include <steer/sae/sae.hpp>
#include <steer/steering/steering.hpp>

namespace steer {

/// What the system prompt asks for.
enum class Asking {
  nothing,   ///< there is no system prompt
  plainly,   ///< "When answering, please be funny.": the prompting arm of arXiv 2602.04903
  strongly,  ///< see strong_system_prompt
};

template <>
struct EnumTable<Asking> {
  static constexpr std::string_view name = "asking";
  static constexpr EnumEntry<Asking> entries[] = {
      {Asking::nothing, "nothing"}, {Asking::plainly, "plainly"}, {Asking::strongly, "strongly"}};
};

/// What an arm makes of the steering it is given. All but `as_given` are controls: they disturb the model as much in
/// another direction, and show which part of an effect any disturbance has. Edits towards a target, or that scale a
/// direction, keep target and strength along a random direction. An experiment brings random features and noise to the
/// KL of what they stand for (`calibrate_strength` on `neutral_texts`), where that can be measured and reached; the
/// report says so.
enum class ArmVariant {
  as_given,
  flipped,          ///< every strength negated
  random_features,  ///< every feature edit on another feature of the SAE, drawn by seed, its strength scaled to the
                    ///< same length of change; vectors are replaced by random ones of the same norm
  noise,            ///< every edit becomes the addition of Gaussian noise (one draw) with the norm of its change
};

template <>
struct EnumTable<ArmVariant> {
  static constexpr std::string_view name = "variant";
  static constexpr EnumEntry<ArmVariant> entries[] = {{ArmVariant::as_given, "as_given"},
                                                      {ArmVariant::flipped, "flipped"},
                                                      {ArmVariant::random_features, "random_features"},
                                                      {ArmVariant::noise, "noise"}};
};

/// A steering for a behaviour, and a sentence on where it comes from.
struct FoundSteering {
  Steering steering{};  ///< empty: there is none for this behaviour; the arm answers unsteered
  std::string note = {};
};

/// Where steerings come from: files, a map, a search on the model.
struct SteeringSource {
  std::string name{};      ///< identifies the source within an experiment
  std::string identity{};  ///< all that the steerings depend on, for journals
  std::function<FoundSteering(const Model&, const Behaviour&)> find{};
  bool costly = false;         ///< a search: its results are journalled and shared by the arms of this source
  std::vector<Sae> saes = {};  ///< that its steerings refer to: needed to read a journalled one
  std::int64_t answers = 0;    ///< that a search takes from the model, at most about: for plans
  std::string sought = {};     ///< the measure a search maximises; a report that shows the same one says so
};

/// One condition of an experiment: what is asked, and how the model is steered. A value.
struct Arm {
  std::string name{};
  std::string description{};
  Asking asking = Asking::nothing;
  std::shared_ptr<const SteeringSource> source = {};  ///< none: unsteered
  ArmVariant variant = ArmVariant::as_given;
  double strength = 1;       ///< multiplies every edit
  std::string family = {};   ///< arms that differ in strength only
  std::uint64_t seed = 42;   ///< of random features and noise
  std::string draw_of = {};  ///< arms that differ in the seed of their search only carry the name of the first
  std::int64_t every = 1;    ///< answers every n-th question only: for sweeps; trade-offs leave such an arm out

  /// No request, no steering: what the others are compared with.
  static Arm control();
  /// The request in the system prompt.
  static Arm prompt();
  /// A system prompt that insists.
  static Arm strong_prompt();
  /// One steering for each behaviour (by name), or one for all under the empty name.
  /// @throws Error(argument) for no steering at all.
  static Arm steered(std::string name, std::map<std::string, Steering> steerings);
  /// From a source of one's own.
  static Arm steered(std::string name, std::string description, SteeringSource source);
  /// Steering files (see Steering::load): one for all behaviours, or a folder of `<behaviour>.json`.
  /// @throws Error(io) for a folder without such files; whatever Steering::load throws.
  static Arm from_files(std::string name, const std::filesystem::path& path, const SteeringLoadOptions& options = {});

  // Variations of a steered arm. @throws Error(argument) for an arm without steering.

  /// The same steering, and the request in the system prompt.
  Arm with_prompt() const;
  /// Its controls: see ArmVariant.
  Arm random_features(std::uint64_t seed = 42) const;
  Arm noise(std::uint64_t seed = 42) const;
  Arm flipped() const;
  /// Every edit's strength multiplied.
  Arm at_strength(double factor) const;
  /// One arm a strength, of one family: the report draws them as a curve.
  /// @param every  see Arm::every.
  std::vector<Arm> strength_sweep(const std::vector<double>& strengths, std::int64_t every = 1) const;
  /// Draw number `number` (from 1) of its method: a search made with another seed, under a name of its own.
  /// @throws Error(argument) also for a number below 1.
  Arm draw(std::int64_t number) const;

  /// Whether its answers differ between behaviours.
  bool depends_on_behaviour() const { return asking != Asking::nothing || source; }
  /// What this arm does with a steering of its source. @throws Error(unsupported) for an edit the variant has no
  /// counterpart of, naming it.
  Steering apply(const Steering& given, const Behaviour& behaviour) const;
};

}  // namespace steer
