#include "style.hpp"

#include <fmt/format.h>

#include <algorithm>

#include <steer/core/error.hpp>
#include <steer/eval/behaviours.hpp>

#include "world.hpp"

namespace steer::demo {
namespace {

// Replaces every [x|y|z] by one of its alternatives. No nesting.
std::string choose(std::string_view text, Rng& rng) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '[') {
      out += text[i];
      continue;
    }
    const auto end = text.find(']', i);
    const auto inner = text.substr(i + 1, end - i - 1);
    auto pick = rng.below(static_cast<std::uint64_t>(std::count(inner.begin(), inner.end(), '|')) + 1);
    std::size_t begin = 0;
    while (pick-- > 0) begin = inner.find('|', begin) + 1;
    out += inner.substr(begin, inner.find('|', begin) - begin);
    i = end;
  }
  return out;
}

std::string write(std::string_view sentence, const Thought& thought, Rng& rng) {
  return fill(choose(sentence, rng),
              {{"L", thought.land}, {"a", thought.noun}, {"V", thought.value}, {"W", thought.wrong}});
}

// Orders of the parts: o(pening), r(ecall), m(iddle), c(losing).
constexpr std::string_view orders[] = {"ormc", "omrc", "mrc", "ormmc", "omrmc", "orc", "rmc", "mormc", "ormm"};
constexpr std::string_view short_orders[] = {"r", "rc", "or", "rc", "mr", "rm"};

}  // namespace

const Style& behaviour(std::string_view name) {
  for (const auto& style : behaviours()) {
    if (style.name == name) return style;
  }
  fail(ErrorCode::argument, "demo::behaviour", "expected one of the 14 behaviours but got \"{}\"", name);
}

std::string think(const Style& style, const Thought& thought, Rng& rng) {
  const bool brief = style.name == "concise";
  const auto order = brief ? short_orders[rng.below(std::size(short_orders))] : orders[rng.below(std::size(orders))];
  std::string text;
  std::vector<std::string_view> used;
  bool recalled = false;
  for (const char part : order) {
    const auto& sentences = part == 'o'   ? style.openings
                            : part == 'r' ? style.recalls
                            : part == 'm' ? style.middles
                                          : style.closings;
    std::string_view sentence;
    do {
      sentence = sentences[rng.below(sentences.size())];
      // A wrong option is named only once the right one is known, as a writer would.
    } while (std::find(used.begin(), used.end(), sentence) != used.end() ||
             (!recalled && part == 'm' && sentence.find("{W}") != std::string_view::npos));
    used.push_back(sentence);
    recalled = recalled || part == 'r';
    if (!text.empty()) text += ' ';
    text += write(sentence, thought, rng);
  }
  return text;
}

std::string conclude(const Style& style, const Thought& thought, Rng& rng) {
  std::string_view sentence;
  do {
    sentence = style.closings[rng.below(style.closings.size())];
  } while (sentence.find("{V}") == std::string_view::npos);
  return write(sentence, thought, rng);
}

std::string request(std::string_view behaviour, Rng& rng) {
  const auto study = select_behaviours(study_behaviours(), {std::string(behaviour)})[0];
  const double form = rng.uniform();
  if (form < 0.5) return system_prompt(study);
  if (form < 0.55) return strong_system_prompt(study);
  if (form < 0.8) return fmt::format("When answering, please be more {}.", behaviour);
  switch (rng.below(5)) {
    case 0:
      return fmt::format("Please be {}.", behaviour);
    case 1:
      return fmt::format("Be more {}.", behaviour);
    case 2:
      return fmt::format("When answering, be very {}.", behaviour);
    case 3:
      return fmt::format("You are a {} assistant.", behaviour);
    default:
      return fmt::format("Write in a {} way.", behaviour);
  }
}

std::string opposite_request(std::string_view behaviour, Rng& rng) {
  if (rng.uniform() < 0.5) return fmt::format("When answering, please be less {}.", behaviour);
  return fmt::format("When answering, please do not be {}.", behaviour);
}

}  // namespace steer::demo
