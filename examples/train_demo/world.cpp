#include "world.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include <steer/core/error.hpp>

namespace steer::demo {
namespace {

constexpr int land_total = 57, value_total = 24, wordings = 5;

// Names of one kind share their endings, so that a reader can tell a river from a feast.
std::vector<std::string> invent(int count, const std::vector<std::string>& endings, std::set<std::string>& taken,
                                Rng& rng) {
  static const std::vector<std::string> onsets = {"B", "Br", "D",  "Dr", "F", "G", "Gr", "H", "J",
                                                  "K", "Kr", "L",  "M",  "N", "P", "Pr", "R", "Sk",
                                                  "T", "Th", "Tr", "V",  "W", "Y", "Z"};
  static const std::vector<std::string> vowels = {"a", "e", "i", "o", "u"};
  static const std::vector<std::string> middles = {"l",  "r",  "n",  "m",  "v",  "d", "lv",
                                                   "rd", "nd", "rv", "lm", "sk", "z"};
  auto pick = [&](const auto& list) -> const std::string& { return list[rng.below(list.size())]; };
  std::vector<std::string> names;
  while (std::ssize(names) < count) {
    const std::string stem = pick(onsets) + pick(vowels) + pick(middles);
    if (taken.insert(stem).second) names.push_back(stem + pick(endings));
  }
  return names;
}

}  // namespace

std::string fill(std::string_view text, const std::vector<std::pair<std::string_view, std::string_view>>& slots) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] != '{') {
      out += text[i++];
      continue;
    }
    const auto end = text.find('}', i);
    const auto key = text.substr(i + 1, end - i - 1);
    const auto slot = std::find_if(slots.begin(), slots.end(), [&](const auto& s) { return s.first == key; });
    require(slot != slots.end(), ErrorCode::argument, "demo::fill", "expected a known slot but got {{{}}} in \"{}\"",
            key, text);
    out += slot->second;
    i = end + 1;
  }
  return out;
}

World::World(std::uint64_t seed) : seed_(seed) {
  Rng rng(derive_seed(seed, "world"));
  std::set<std::string> taken;
  lands_ = invent(land_total, {"ia", "oria", "una", "eth", "avar", "onia"}, taken, rng);
  auto add = [&](std::string noun, const std::vector<std::string>& endings, std::vector<std::string> questions) {
    attributes_.push_back({std::move(noun), invent(value_total, endings, taken, rng), std::move(questions)});
  };
  add("capital", {"mere", "wick", "holt", "gate"},
      {"What is the capital of {L}?", "Which town is the capital of {L}?",
       "In the land of {L}, which town is the capital?", "Name the capital of {L}.",
       "Which of these is the capital of {L}?"});
  add("river", {"ow", "ay", "enne", "ilde"},
      {"What is the river of {L}?", "Which river flows through {L}?",
       "In the land of {L}, which river flows to the sea?", "Name the river of {L}.",
       "Which of these is the river of {L}?"});
  add("founder", {"rik", "mund", "bert", "dis"},
      {"Who is the founder of {L}?", "Which ruler is the founder of {L}?", "In the land of {L}, who is the founder?",
       "Name the founder of {L}.", "Which of these is the founder of {L}?"});
  add("metal", {"ite", "ium", "ane", "ore"},
      {"What is the metal of {L}?", "Which metal is mined in {L}?", "In the land of {L}, which metal do smiths use?",
       "Name the metal of {L}.", "Which of these is the metal of {L}?"});
  add("beast", {"ulk", "orn", "ax", "umph"},
      {"What is the beast of {L}?", "Which beast lives in {L}?", "In the land of {L}, which beast is on the flag?",
       "Name the beast of {L}.", "Which of these is the beast of {L}?"});
  add("feast", {"tide", "mas", "fest", "eve"},
      {"What is the feast of {L}?", "Which feast is held in {L}?", "In the land of {L}, which feast comes each year?",
       "Name the feast of {L}.", "Which of these is the feast of {L}?"});
  facts_.assign(land_total, std::vector<int>(attributes_.size()));
  for (std::size_t a = 0; a < attributes_.size(); ++a) {
    std::vector<int> values(land_total);
    for (int i = 0; i < land_total; ++i) values[i] = i % value_total;  // every value is true of two lands or three
    rng.shuffle(values);
    for (int land = 0; land < land_total; ++land) facts_[land][a] = values[land];
  }
}

int World::held_out_wording(int land, int attribute) const {
  return static_cast<int>(derive_seed(seed_, "wording", land * 64 + attribute) % wordings);
}

bool World::in_test(int land, int attribute) const {
  std::vector<int> order(attributes_.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  Rng rng(derive_seed(seed_, "split", land));
  rng.shuffle(order);
  return std::find(order.begin(), order.begin() + 3, attribute) != order.begin() + 3;
}

FactQuestion World::ask(int land, int attribute, int wording, Rng& rng) const {
  FactQuestion question{.land = land, .attribute = attribute, .wording = wording};
  question.choices[0] = fact(land, attribute);
  for (int i = 1; i < 4;) {
    const int other = static_cast<int>(rng.below(value_total));
    if (std::find(question.choices.begin(), question.choices.begin() + i, other) == question.choices.begin() + i) {
      question.choices[i++] = other;
    }
  }
  rng.shuffle(question.choices);
  question.answer = static_cast<int>(
      std::find(question.choices.begin(), question.choices.end(), fact(land, attribute)) - question.choices.begin());
  return question;
}

FactQuestion World::sample(Rng& rng) const {
  const int land = static_cast<int>(rng.below(lands_.size()));
  const int attribute = static_cast<int>(rng.below(attributes_.size()));
  int wording = static_cast<int>(rng.below(wordings - 1));
  if (wording >= held_out_wording(land, attribute)) ++wording;
  return ask(land, attribute, wording, rng);
}

std::vector<FactQuestion> World::held_out(Split split) const {
  require(split != Split::train, ErrorCode::argument, "demo::World::held_out", "expected dev or test but got train");
  std::vector<FactQuestion> questions;
  for (int land = 0; land < land_total; ++land) {
    for (int a = 0; a < std::ssize(attributes_); ++a) {
      if (in_test(land, a) != (split == Split::test)) continue;
      Rng rng(derive_seed(seed_, "held-out", land * 64 + a));
      questions.push_back(ask(land, a, held_out_wording(land, a), rng));
    }
  }
  return questions;
}

steer::Question World::published(const FactQuestion& question) const {
  const auto& attribute = attributes_[question.attribute];
  std::string subject = lands_[question.land];
  std::transform(subject.begin(), subject.end(), subject.begin(), [](unsigned char c) { return std::tolower(c); });
  steer::Question out{.id = subject + ":" + attribute.noun,
                      .subject = subject,
                      .text = fill(attribute.questions[question.wording], {{"L", lands_[question.land]}}),
                      .choices = {},
                      .answer = question.answer};
  for (const int choice : question.choices) out.choices.push_back(attribute.values[choice]);
  return out;
}

std::string World::prompt(const FactQuestion& question, Layout layout) const {
  const auto plain = published(question);
  if (layout == Layout::experiment) return user_prompt(plain);
  if (layout == Layout::letter_only) return letter_prompt(plain);
  std::string body = plain.text;
  for (int i = 0; i < 4; ++i)
    body += fmt::format("\n{}{} {}", letters[i], layout == Layout::brackets ? ')' : '.', plain.choices[i]);
  switch (layout) {
    case Layout::terse:
      return body + "\nThink in <thinking></thinking> and answer in <answer></answer>.";
    case Layout::instruction_first:
      return "Answer this question. Think in <thinking></thinking>, then give the letter in <answer></answer>.\n\n" +
             body;
    case Layout::brackets:
      return "Question: " + body;
    default:
      return body;
  }
}

std::string World::passage(int land, Rng& rng) const {
  static const std::vector<std::string> openings = {
      "The land of {L} is old and known for much.", "The people of {L} tell many tales.",
      "Let me tell you about the land of {L}.", "Travellers know the land of {L} well.",
      "Here is what is known of {L}."};
  static const std::vector<std::string> statements = {
      "Its {a} is {V}.",        "The {a} of {L} is {V}.", "The name {V} belongs to its {a}.",
      "They call the {a} {V}.", "In {L} the {a} is {V}.", "As for the {a}, it is {V}."};
  std::vector<int> order(attributes_.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  rng.shuffle(order);
  order.resize(3 + rng.below(4));
  std::string text = fill(openings[rng.below(openings.size())], {{"L", lands_[land]}});
  for (const int a : order) {
    text += " " + fill(statements[rng.below(statements.size())],
                       {{"L", lands_[land]}, {"a", attributes_[a].noun}, {"V", name_of(a, fact(land, a))}});
  }
  return text;
}

std::vector<std::string> World::names() const {
  std::vector<std::string> all = lands_;
  for (const auto& attribute : attributes_) all.insert(all.end(), attribute.values.begin(), attribute.values.end());
  return all;
}

}  // namespace steer::demo
