// Every conversation of the golden folder: text and ids equal those of the model's own template.

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include <steer/text/chat_template.hpp>

#include "support.hpp"

namespace steer {
namespace {

using nlohmann::json;

// Whether a message spells a special token of this vocabulary: only then may untrusted content encode differently.
bool spells_special(const Tokenizer& tokenizer, const std::vector<Message>& messages) {
  for (const Message& message : messages)
    for (const std::int64_t id : tokenizer.encode(message.content, {.add_special = false}))
      if (tokenizer.is_special(id)) return true;
  return false;
}

void run_file(const std::filesystem::path& cases, const std::string& name, const Tokenizer& tokenizer,
              test::CaseCounter& counter) {
  ASSERT_TRUE(tokenizer.chat_template().has_value()) << name;
  // The model's own template, and steer's stock format of the same name where there is one.
  std::vector<ChatTemplate> chats{ChatTemplate(tokenizer)};
  static const std::map<std::string, ChatFormat> stock = {
      {"llama3_1", ChatFormat::llama3}, {"gemma3", ChatFormat::gemma}, {"qwen2_5", ChatFormat::qwen2_5}};
  if (const auto found = stock.find(name); found != stock.end()) chats.emplace_back(found->second, tokenizer);
  std::ifstream file(cases);
  for (std::string line; std::getline(file, line);) {
    const json item = json::parse(line);
    SCOPED_TRACE(name + ": " + item.at("messages").dump(-1, ' ', true));
    std::vector<Message> messages;
    for (const json& message : item.at("messages"))
      messages.push_back({parse_enum<Role>(message.at("role").get<std::string>(), "test"), message.at("content")});
    ChatOptions options{.generation_prompt = item.at("kwargs").value("add_generation_prompt", false),
                        .parse_special_in_content = true,
                        .date = item.at("kwargs").value("date_string", "")};
    const int parts_before = testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count();
    for (const ChatTemplate& chat : chats) {
      options.parse_special_in_content = true;
      if (item.contains("error")) {
        EXPECT_STEER_ERROR(chat.render(messages, options), ErrorCode::argument, item.at("error").get<std::string>());
      } else {
        const RenderedChat parsed = chat.render(messages, options);
        EXPECT_EQ(parsed.text, item.at("text").get<std::string>());
        EXPECT_EQ(parsed.ids, item.at("ids").get<std::vector<std::int64_t>>());
        options.parse_special_in_content = false;
        const RenderedChat safe = chat.render(messages, options);
        EXPECT_EQ(safe.text, parsed.text);
        if (spells_special(tokenizer, messages))
          EXPECT_NE(safe.ids, parsed.ids);
        else
          EXPECT_EQ(safe.ids, parsed.ids);
      }
    }
    counter.count(testing::UnitTest::GetInstance()->current_test_info()->result()->total_part_count() == parts_before);
  }
}

TEST(GoldenChat, EveryCase) {
  const auto golden = test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden");
  const auto tokenizers = test::outside_data("STEER_TOKENIZERS", "../shared/data/tokenizers");
  if (!golden.named && (!golden.present || !tokenizers.present))
    GTEST_SKIP() << "no golden data: set STEER_GOLDEN_DIR and STEER_TOKENIZERS to run this suite";
  test::CaseCounter counter("golden.chat");
  const auto folder = golden.path / "tokenizers";
  ASSERT_TRUE(std::filesystem::is_directory(folder)) << folder;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string file = entry.path().filename().string();
    if (!file.starts_with("chat.") || entry.path().extension() != ".jsonl") continue;
    const std::string name = entry.path().stem().string().substr(5);
    run_file(entry.path(), name, Tokenizer::load(tokenizers.path / name), counter);
  }
  EXPECT_GT(counter.passed() + counter.failed(), 0) << "no case in " << folder;
}

}  // namespace
}  // namespace steer
