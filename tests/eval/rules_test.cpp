#include <steer/eval/rules.hpp>

#include <gtest/gtest.h>

#include <steer/eval/behaviours.hpp>

#include "support.hpp"

namespace steer {
namespace {

TEST(Rules, AreFactsOfATextsProse) {
  const Rule five{.kind = RuleKind::at_most_words, .limit = 5};
  EXPECT_TRUE(
      keeps_rule(five, "<thinking>One two - three.</thinking>\n<answer>B and many more words</answer> four, five!"));
  EXPECT_FALSE(keeps_rule(five, "one two three four five six"));
  EXPECT_TRUE(keeps_rule(five, "it's well-known, isn't it?"));
  EXPECT_FALSE(keeps_rule(five, " ... ")) << "nothing was said";

  const Rule exclaims{.kind = RuleKind::exclaims};
  for (const char* kept : {"Hot!", "Hot! Very hot!!", "He said \"go!\" So we went!",
                           "<thinking>Yes! No!</thinking><answer>B</answer>", "It is 3.5 metres!", "What?!"})
    EXPECT_TRUE(keeps_rule(exclaims, kept)) << kept;
  for (const char* broken :
       {"Hot.", "Hot! Cold.", "Hot! Cold", "Is it? Yes!", "A list\nof things!", "<answer>B!</answer>"})
    EXPECT_FALSE(keeps_rule(exclaims, broken)) << broken;

  const Rule digits{.kind = RuleKind::no_digits};
  EXPECT_TRUE(keeps_rule(digits, "twelve <answer>12</answer>"));
  EXPECT_FALSE(keeps_rule(digits, "twelve 12"));

  const Rule word{.kind = RuleKind::says_word, .word = "However"};
  EXPECT_TRUE(keeps_rule(word, "It is, however, so."));
  EXPECT_FALSE(keeps_rule(word, "howevermuch"));
}

TEST(Rules, BehavioursBringTheirCheck) {
  for (const auto& behaviour : rule_behaviours()) {
    ASSERT_TRUE(behaviour.rule.has_value()) << behaviour.name;
    EXPECT_TRUE(behaviour.criteria.empty()) << "nothing to judge";
    EXPECT_FALSE(keeps_rule(*behaviour.rule, ""));
  }
  EXPECT_NE(system_prompt(rule_behaviours()[0]).find("40 words"), std::string::npos);
  // An answer in nobody's style breaks each rule that a request could move.
  const std::string plain =
      "In 1969 three men flew to the Moon. Two of them walked on it for 2 hours. They took pictures, collected stones "
      "and "
      "set up devices. The third waited in orbit. After 8 days all of them were back on Earth, well and healthy, and "
      "much was learnt.";
  for (const auto& behaviour : rule_behaviours()) EXPECT_FALSE(keeps_rule(*behaviour.rule, plain)) << behaviour.name;
}

}  // namespace
}  // namespace steer
