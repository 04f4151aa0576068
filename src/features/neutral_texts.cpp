// Exchanges that show how a model writes when nothing in particular is asked of it.
#include <array>

#include <steer/core/error.hpp>
#include <steer/features/strength.hpp>

#include "core/format_text.hpp"

namespace steer {
namespace {

struct Exchange {
  std::string_view message, reply;
};

constexpr std::array<Exchange, 8> exchanges{{
    {"How does rain form?",
     "Warm air rises and cools. Water vapour in it condenses into droplets around specks of dust. When enough of them "
     "have joined, they are too heavy to float and fall."},
    {"What should I check before a long drive?",
     "Look at the tyre pressure, the oil and the washer fluid. Fill the tank, test the lights, and put water and a "
     "charged phone where you can reach them."},
    {"Name the parts of a plant.",
     "A flowering plant has roots, a stem, leaves and flowers. Roots take up water, the stem carries it, leaves make "
     "sugar from light, and flowers produce seeds."},
    {"How do I boil an egg?",
     "Bring water to the boil, lower the egg in with a spoon, and wait seven minutes for a soft yolk or ten for a hard "
     "one. Then cool it in cold water."},
    {"What is a library catalogue?",
     "It is a list of what a library holds. Each entry gives the title, the author, the year and the shelf, so that a "
     "reader can find a book without searching the building."},
    {"What is 17 times 6?", "17 times 6 is 102. Ten sixes are 60, seven sixes are 42, and 60 plus 42 is 102."},
    {"Why do boats float?",
     "A boat pushes water aside. The water pushes back with a force equal to the weight of what was displaced, and as "
     "long as that is as much as the boat weighs, it floats."},
    {"Summarise: The meeting was moved from Monday to Wednesday because two members were away.",
     "The meeting now takes place on Wednesday instead of Monday, since two members could not come."},
}};

std::string tag_of(const Steering& steering) {
  for (const Edit& edit : steering.edits())
    if (edit.scope.where == Where::inside_tag) return edit.scope.tag;
  return "";
}

}  // namespace

std::vector<TokenizedText> neutral_texts(const Model& model, const Steering& steering) {
  require(model.has_tokenizer(), ErrorCode::config, "neutral_texts",
          "expected a model with a tokenizer; give texts as ids instead (StrengthOptions::texts)");
  const std::string tag = tag_of(steering);
  std::vector<TokenizedText> texts;
  for (const auto& [message, reply] : exchanges) {
    TokenizedText text{.ids = model.chat().render({{Role::user, std::string(message)}}).ids};
    text.begin = std::ssize(text.ids);
    const auto written = tag.empty() ? std::string(reply) : format_text("<{0}>{1}</{0}>", tag, reply);
    const auto ids = model.tokenizer().encode(written, {.add_special = false});
    text.ids.insert(text.ids.end(), ids.begin(), ids.end());
    texts.push_back(std::move(text));
  }
  return texts;
}

}  // namespace steer
