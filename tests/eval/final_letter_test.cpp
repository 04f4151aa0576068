#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>

#include <steer/eval/answer.hpp>

namespace steer {
namespace {

// Ends of responses and the letter that a reader takes as the answer ('-': none), written down before the rule was.
TEST(FinalLetters, AreWhatAReaderTakes) {
  const std::pair<const char*, char> cases[] = {
      {"Either A or B is correct.", '-'},
      {"The answer is B. Wait, that is wrong.", '-'},
      {"<answer>C</answer> Wait, that ignores the sign", '-'},
      {"The answer is B. <answer>None of the above</answer>", '-'},
      {"The answer is B. <answer></answer>", 'B'},
      {"The final answer is: $\\boxed{C}$", 'C'},
      {"Therefore, the correct answer is:\n\n**B) 42**", 'B'},
      {"<answer>A mixture of both</answer>", '-'},
      {"<answer>Both A and B</answer>", '-'},
      {"<answer>B</answer> (not C)", 'B'},
      {"<answer>Choice B</answer>", 'B'},
      {"<answer>B.</answer>", 'B'},
      {"<answer>\\text{B}</answer>", 'B'},
      {"<answer>d</answer>", 'D'},
      {"<answer>an apple</answer>", '-'},
      {"<answer>D-day</answer>", '-'},
      {"<answer>H</answer>", '-'},
      {"<answer>A/B/C/D</answer>", '-'},
      {"<answer>Not B</answer>", '-'},
      {"<answer>Not C, D</answer>", '-'},
      {"The best choice is C.", 'C'},
      {"Therefore (C).", 'C'},
      {"C is the correct answer because heat rises.", 'C'},
      {"I'd go for option C here.", 'C'},
      {"Let's go with C.", 'C'},
      {"The answer should be option C: the liver.", 'C'},
      {"The answer is C – copper.", 'C'},
      {"The answer is 'C'.", 'C'},
      {"Answer: (c)", 'C'},
      {"Answer = C", 'C'},
      {"The answer is B rather than A.", 'B'},
      {"I thought it was A but the answer is B.", 'B'},
      {"I would not choose B.", '-'},
      {"The answer could be A or C.", '-'},
      {"The answer lies between A and B.", '-'},
      {"The note is C sharp.", '-'},
      {"A man walks.", '-'},
      {"A. cat\nB. dog\nC. fish\nD. bird", '-'},
      {"A. cat\nB. dog", '-'},
      {"The answer is not among A to D.", '-'},
      {"Option B says that the sky is green. Option C says", '-'},
      {"The reason is heat.\n\n(B) fire", 'B'},
      {"B, since heat rises.", 'B'},
      {"Option B", 'B'},
      {"Letter: B", 'B'},
      {"```json\n{\"answer\": \"B\"}\n```", 'B'},
      {"{\"answer\": [\"A\", \"B\"]}", '-'},
      {"La réponse est B.", 'B'},
      {"Die Antwort lautet B.", 'B'},
      {"La risposta corretta è la B.", 'B'},
      {"Правильный ответ: B", 'B'},
      {"ПРАВИЛЬНЫЙ ОТВЕТ: B", 'B'},
      {"LA RÉPONSE EST B.", 'B'},
      {"正确答案是 B", 'B'},
      {"정답은 B입니다.", 'B'},
      {"La réponse n'est pas B.", '-'},
      {"<think>The answer is A.", '-'},
      {"<thinking>Hmm <answer>", '-'},
      {"<answer>A</answer> and <answer>B</answer>", '-'},
      {"<answer>letter</answer> <answer>B</answer>", 'B'},
      {"\\boxed{B}", 'B'},
      {"\\boxed{\\text{B) 12}}", 'B'},
      {"The area is \\boxed{12}, so the answer is B.", 'B'},
      {"The answer is $B$.", 'B'},
      {"The answer is <b>B</b>.", 'B'},
      {"THE CORRECT ANSWER IS B", 'B'},
      {"Result: B", 'B'},
      {"-> B", 'B'},
      {"I believe the answer is B.", 'B'},
      {"That leaves B.", 'B'},
      {"This matches option B.", 'B'},
      {"Some think it's B.", '-'},
      {"The answer is B? No.", '-'},
      {"B cells make antibodies.", '-'},
      {"Answer: A man, a plan.", '-'},
      {"The correct answer is **B. Paris**.", 'B'},
      {"A and C are wrong, so the answer is B.", 'B'},
      {"The answer must therefore be B.", 'B'},
      {"Going with B.", 'B'},
      {"The choice is B.", 'B'},
      {"I say B.", 'B'},
      {"Correct option: B", 'B'},
      {"The right option is B.", 'B'},
      {"Option B, because it melts.", 'B'},
      {"Only option B works, so B.", 'B'},
      {"Hence the answer: B.", 'B'},
      {"We conclude that B is correct.", 'B'},
      {"We can exclude B and C.", '-'},
      {"B is not correct.", '-'},
      {"Not B.", '-'},
      {"The answer is definitely not B.", '-'},
      {"Not B but C.", 'C'},
      {"C (not B)", 'C'},
      {"<answer>C (I first thought B)</answer>", 'C'},
      {"<answer>C<answer>", 'C'},
      {"<answer>C</answer></answer>", 'C'},
      {"<answer></answer> The answer is C.", 'C'},
      {"<answer>It is C.</answer>", 'C'},
      {"<answer>#C</answer>", 'C'},
      {"<answer>Option c)</answer>", 'C'},
      {"<answer>C: the sun</answer>", 'C'},
      {"<answer>C the sun</answer>", 'C'},
      {"<answer>The sun, option C</answer>", 'C'},
      {"<answer>A. sun, B. moon</answer>", '-'},
      {"<answer>A, C or D</answer>", '-'},
      {"<answer>ABC</answer>", '-'},
      {"<answer>Any of A, B</answer>", '-'},
      {"<answer>I refuse</answer>", '-'},
      {"<answer>Carbon</answer>", '-'},
      {"<answer>A's</answer>", '-'},
      {"<answer>A large number of people</answer>", '-'},
      {"<ans>D</ans>", 'D'},
      {"<answer=\"D\">", 'D'},
      {"`<answer>D</answer>`", 'D'},
      {"<choice>D</choice>", 'D'},
      {"<thinking>maybe <answer>A</answer> or <answer>B</answer></thinking> <answer>D</answer>", 'D'},
      {"<reasoning>A</reasoning><answer>D</answer>", 'D'},
      {"<thinking>So the answer is D.</thinking>", 'D'},
      {"The answer is:\nD) mercury", 'D'},
      {"Answer: [D]", 'D'},
      {"Answer: \"D\"", 'D'},
      {"Answer is option D", 'D'},
      {"The answer has to be D", 'D'},
      {"The answer is probably D", 'D'},
      {"That's D.", 'D'},
      {"D?", 'D'},
      {"(D) mercury is a metal.", 'D'},
      {"D: mercury\nBecause it is liquid.", 'D'},
      {"A/B", '-'},
      {"A is 3. B is 4. C is 5.", '-'},
      {"I", '-'},
      {"Not sure.", '-'}};
  int wrong = 0;
  for (const auto& [text, letter] : cases) {
    const char got = parse_answer(text).lenient.value_or('-');
    EXPECT_EQ(got, letter) << text;
    wrong += got != letter && got != '-';
  }
  EXPECT_EQ(wrong, 0) << "a wrong letter is worse than none";
}

TEST(FinalLetters, ManyChoices) {
  EXPECT_EQ(parse_answer("The answer is J.", 10).lenient, 'J');
  EXPECT_EQ(parse_answer("The answer is J.", 9).lenient, std::nullopt);
  EXPECT_EQ(parse_answer("I think the answer is (I).", 9).lenient, 'I');
  EXPECT_EQ(parse_answer("I think so.", 9).lenient, std::nullopt) << "a pronoun";
}

TEST(FinalLetters, HostileTextsEndSoon) {
  // Linear in the text: a megabyte of each of these would take minutes if it were not.
  for (const char* unit : {"A ", "<answer>", "</answer>", "<think>", "the answer is ", "A, ", "(((", "\\boxed{", "B. ",
                           "not A but ", "\xff", "so so so "}) {
    std::string text;
    while (text.size() < 300'000) text += unit;
    parse_answer(text);
    parse_answer(text + "The answer is B.");
  }
}

}  // namespace
}  // namespace steer
