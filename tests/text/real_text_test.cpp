// What people bring: templates that are nearly a known one, and added tokens with every mix of flags.

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include <steer/text/chat_template.hpp>

#include "core/format_text.hpp"
#include "real_cases.hpp"

namespace steer {
namespace {

using nlohmann::json;
using Ids = std::vector<std::int64_t>;

struct Row {
  std::string text, refusal;
  Ids ids;
};

std::vector<Row> render_rows(const test::RealCase& c) {
  const ChatTemplate chat(Tokenizer::load(c.input()));
  std::vector<Row> out;
  for (const json& row : c.expected()) {
    std::vector<Message> messages;
    for (const json& message : row.at("messages"))
      messages.push_back({parse_enum<Role>(message.at("role").get<std::string>(), "test"), message.at("content")});
    Row& result = out.emplace_back();
    try {
      RenderedChat rendered = chat.render(messages, {.generation_prompt = row.at("add_generation_prompt")});
      result.text = std::move(rendered.text);
      result.ids = std::move(rendered.ids);
    } catch (const Error& error) {
      result.refusal = error.what();
    }
  }
  return out;
}

std::string differs(const std::vector<Row>& rows, const json& right) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const json& expected = right.at(i);
    if (expected.contains("refused")) {
      if (!test::holds_words(rows[i].refusal, expected["refused"])) return format_text("row {} is not refused so", i);
    } else if (!rows[i].refusal.empty()) {
      return format_text("row {}: {}", i, rows[i].refusal);
    } else if (expected.at("text") != rows[i].text) {
      return format_text("row {}: text {}", i, json(rows[i].text).dump());
    } else if (expected.contains("ids") && rows[i].ids != expected["ids"].get<Ids>()) {
      return format_text("row {}: ids {}", i, json(rows[i].ids).dump());
    }
  }
  return rows.size() == right.size() && !rows.empty() ? "" : "rows are missing";
}

TEST(RealTemplates, RenderAsTransformersDoes) { test::check_real_cases("templates", render_rows, differs); }

// Each line gives a tokenizer other added tokens; its ids are those of Hugging Face's library.
struct Compared {
  int equal = 0;
  std::string first_difference;
};

Compared compare_tokens(const test::RealCase& c) {
  const test::TempDir folder;
  const auto texts = json::parse(test::read_file(c.folder / "texts.json")).get<std::vector<std::string>>();
  Compared out;
  for (const json& line : c.rows(c.json.at("input"))) {
    json file = json::parse(test::read_file(c.folder / line.at("tokenizer").get<std::string>()));
    file["added_tokens"] = line.at("added_tokens");
    std::ofstream(folder / "tokenizer.json") << file.dump();
    const Tokenizer tokenizer = Tokenizer::load(folder / "tokenizer.json");
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const Ids ids = tokenizer.encode(texts[i], {.add_special = false});
      if (ids == line.at("ids").at(i).get<Ids>())
        ++out.equal;
      else if (out.first_difference.empty())
        out.first_difference = format_text("{} with {}: {} instead of {}", json(texts[i]).dump(),
                                           line["added_tokens"].dump(), json(ids).dump(), line["ids"][i].dump());
    }
  }
  return out;
}

TEST(RealTokens, EncodeAsTokenizersDoes) {
  test::check_real_cases("tokens", compare_tokens, [](const Compared& got, const json& right) {
    std::printf("  %d texts equal\n", got.equal);
    if (!got.first_difference.empty()) return format_text("{} texts equal; {}", got.equal, got.first_difference);
    return got.equal == right.at("texts_compared") ? std::string() : format_text("only {} texts", got.equal);
  });
}

}  // namespace
}  // namespace steer
