// What templates see of a message.
#include <gtest/gtest.h>

#include <steer/text/chat_template.hpp>

#include "support.hpp"

namespace steer {
namespace {

constexpr std::string_view kTemplate =
    "{% for m in messages %}<{{ m.role }}>{% if m.reasoning_content is defined %}({{ m.reasoning_content }}|"
    "{{ m.thinking }}){% endif %}{{ m.content }}{% endfor %}";

ChatTemplate chat() {
  return {kTemplate, Tokenizer::load(std::filesystem::path(steer_source_dir()) / "tests/data/text/byte_level.json")};
}

TEST(ChatMessages, ReasoningIsSeenUnderBothNamesAndOnlyWhereThereIsSome) {
  const std::vector<Message> messages{{Role::user, "Why?"}, {Role::assistant, "So.", "Because."}, {Role::user, "Oh"}};
  EXPECT_EQ(chat().render(messages).text, "<user>Why?<assistant>(Because.|Because.)So.<user>Oh");
}

TEST(ChatMessages, AMessagesSpanHoldsItsReasoningToo) {
  const ChatTemplate format = chat();
  const RenderedChat out = format.render({{Role::user, "Why?"}, {Role::assistant, "So.", "Because."}});
  const auto& span = out.messages[1];
  const Tokenizer tokenizer =
      Tokenizer::load(std::filesystem::path(steer_source_dir()) / "tests/data/text/byte_level.json");
  const std::string text = tokenizer.decode({out.ids.begin() + span.begin, out.ids.begin() + span.end});
  EXPECT_NE(text.find("Because."), std::string::npos) << text;
  EXPECT_NE(text.find("So."), std::string::npos) << text;
}

}  // namespace
}  // namespace steer
