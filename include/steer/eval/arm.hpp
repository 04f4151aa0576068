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
enum class Variant {
  as_given,
  flipped,          ///< every strength negated
  random_features,  ///< every feature edit on another feature of the SAE, drawn by seed, its strength scaled to the
                    ///< same length of change; vectors are replaced by random ones of the same norm
  noise,            ///< every edit becomes the addition of Gaussian noise (one draw) with the norm of its change
};

template <>
struct EnumTable<Variant> {
  static constexpr std::string_view name = "variant";
  static constexpr EnumEntry<Variant> entries[] = {{Variant::as_given, "as_given"},
                                                   {Variant::flipped, "flipped"},
                                                   {Variant::random_features, "random_features"},
                                                   {Variant::noise, "noise"}};
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
  std::function<FoundSteering(const Model&, const Behaviour&)> find;
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
  Variant variant = Variant::as_given;
  double strength = 1;       ///< multiplies every edit
  std::string family = {};   ///< arms that differ in strength only
  std::uint64_t seed = 42;   ///< of random features and noise
  std::string draw_of = {};  ///< arms that differ in the seed of their search only carry the name of the first
  std::int64_t every = 1;    ///< answers every n-th question only: for sweeps; trade-offs leave such an arm out

  /// Whether its answers differ between behaviours.
  bool depends_on_behaviour() const { return asking != Asking::nothing || source; }
  /// What this arm does with a steering of its source. @throws Error(unsupported) for an edit the variant has no
  /// counterpart of, naming it.
  Steering apply(const Steering& given, const Behaviour& behaviour) const;
};

/// No request, no steering: what the others are compared with.
Arm control();
/// The request in the system prompt.
Arm prompt();
/// A system prompt that insists.
Arm strong_prompt();
/// One steering for each behaviour (by name), or one for all under the empty name.
/// @throws Error(argument) for no steering at all.
Arm steered(std::string name, std::map<std::string, Steering> steerings);
/// From a source of one's own.
Arm steered(std::string name, std::string description, SteeringSource source);
/// Steering files (see Steering::load): one for all behaviours, or a folder of `<behaviour>.json`.
/// @throws Error(io) for a folder without such files; whatever Steering::load throws.
Arm steering_files(std::string name, const std::filesystem::path& path, const SteeringLoadOptions& options = {});

/// Variations of a steered arm. @throws Error(argument) for an arm without steering.
Arm with_prompt(Arm arm);
Arm random_features(Arm arm, std::uint64_t seed = 42);
Arm noise(Arm arm, std::uint64_t seed = 42);
Arm flipped(Arm arm);
Arm at_strength(Arm arm, double strength);
/// `arm` as draw number `draw` (from 1) of a method: a search made with another seed, under a name of its own.
/// @throws Error(argument) for an arm without steering or draw < 1.
Arm as_draw(Arm arm, std::int64_t draw);
/// One arm a strength, of one family: the report draws them as a curve.
/// @param every  see Arm::every.
std::vector<Arm> strength_sweep(const Arm& arm, const std::vector<double>& strengths, std::int64_t every = 1);

}  // namespace steer
