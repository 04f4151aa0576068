// Turns three SAE features up, and shows the answer before and after and what each edit did.
//   three_features MODEL SAE FEATURE FEATURE FEATURE VALUE "What is a transistor?"
//   three_features examples/data/demo examples/data/demo/sae.safetensors 137 320 340 1.5 "What is a transistor?"
#include <fmt/format.h>

#include <cstdlib>

#include <steer/core/error.hpp>
#include <steer/generate/generate.hpp>
#include <steer/sae/sae.hpp>
#include <steer/steering/steering.hpp>

int main(int argc, char** argv) {
  if (argc != 8) return fmt::print(stderr, "usage: {} MODEL SAE FEATURE FEATURE FEATURE VALUE TEXT\n", argv[0]), 2;
  try {
    const auto model = steer::Model::load(argv[1]);
    for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
    const auto sae = steer::Sae::load(argv[2]);
    steer::Steering funny;
    for (int i = 3; i < 6; ++i) funny.nudge(sae, std::atoll(argv[i]), std::atof(argv[6]));

    const std::vector<steer::Message> chat{{steer::Role::user, argv[7]}};
    const auto before = steer::generate(model, chat, {.max_tokens = 40});
    const auto after = steer::generate(model, chat, {.max_tokens = 40, .steering = funny, .require_fired = true});
    for (const std::string& warning : after.warnings) fmt::print(stderr, "mind: {}\n", warning);
    fmt::print("before: {}\n\nafter: {}\n\n{}", before.text, after.text, after.audit.describe());
  } catch (const steer::Error& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
