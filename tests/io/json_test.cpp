#include "io/strict_json.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <limits>

#include "io/text_file.hpp"
#include "support.hpp"

namespace steer {
namespace {

using io::detail::brief;
using io::detail::find_json;
using io::detail::JsonLimits;
using io::detail::parse_json;
using nlohmann::json;

std::string nested(std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(StrictJson, BoundsDepthAndLength) {
  EXPECT_NO_THROW(parse_json(nested(128), "f", "x"));
  EXPECT_STEER_ERROR(parse_json(nested(129), "f", "x"), ErrorCode::format, "128 levels deep but got more at byte 128");
  EXPECT_STEER_ERROR(parse_json(nested(3'000'000), "f", "x"), ErrorCode::format, "nested");
  std::string objects;
  for (int i = 0; i < 200'000; ++i) objects += "{\"a\":";
  EXPECT_STEER_ERROR(parse_json(objects, "f", "x"), ErrorCode::format, "nested");
  EXPECT_FALSE(find_json(nested(129)).has_value());
  // Brackets in texts are no levels, whatever is escaped there.
  EXPECT_NO_THROW(parse_json("{\"k\": \"" + std::string(500, '[') + "\\\"" + std::string(500, '{') + "\"}", "f", "x"));
  EXPECT_STEER_ERROR(parse_json("[1,2,3]", "f", "x", {.depth = 4, .bytes = 6}), ErrorCode::format,
                     "at most 6 bytes but got 7");
}

TEST(StrictJson, SaysWhereItEndsBadly) {
  EXPECT_STEER_ERROR(parse_json("{\"a\": 1,\n \"b\": ?}", "f", "the file"), ErrorCode::format,
                     "byte 15, line 2: \"?}\" (the file)");
  EXPECT_STEER_ERROR(parse_json("{\"a\": [1, 2", "f", "the file"), ErrorCode::format, "cut off");
  EXPECT_STEER_ERROR(parse_json("", "f", "the file"), ErrorCode::format, "the end of the text");
  for (const auto* bad : {"[1e999]", "[1] 2", "{'a': 1}", "[NaN]", "[\"\xff\"]", "{\"a\":1,}"})
    EXPECT_STEER_ERROR(parse_json(bad, "f", "the file"), ErrorCode::format, "the file");
  EXPECT_FALSE(find_json("no JSON").has_value());
  EXPECT_EQ(parse_json("\xef\xbb\xbf{\"a\": 1, \"a\": 2}", "f", "x"), (json{{"a", 2}}));
}

TEST(StrictJson, MessagesStayShort) {
  const auto endless = std::string(5'000'000, 'x');
  try {
    parse_json("[\"" + endless + "\", ?]", "f", "x");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_LT(std::string_view(error.what()).size(), 300u);
  }
  EXPECT_EQ(brief(json{{"a", {1, 2.5, "b\n", nullptr, true}}}), R"({"a": [1, 2.5, "b\x0a", null, true]})");
  EXPECT_LE(brief(json(std::vector<int>(1'000'000, 7))).size(), 83u);
  EXPECT_LE(brief(json{{endless, endless}}).size(), 83u);
  EXPECT_EQ(brief(json("four"), 3), "\"fo...");
  // Deeper than a stack could take, made by hand: the innermost values are never reached.
  json deep = 1;
  for (int i = 0; i < 300'000; ++i) {
    json outer = json::array();
    outer.push_back(std::move(deep));
    deep = std::move(outer);
  }
  EXPECT_LE(brief(deep).size(), 83u);
}

TEST(TextFile, ReadsRegularFilesOnly) {
  test::TempDir dir;
  const std::string text = std::string(70'000, 'a') + '\0' + "\r\n";
  io::detail::write_text_file(dir / "a", text, "f");
  EXPECT_EQ(io::detail::read_text_file(dir / "a", "f"), text);
  EXPECT_STEER_ERROR(io::detail::read_text_file(dir / "a", "f", 70'002), ErrorCode::format, "at most 70002 bytes");
  EXPECT_EQ(io::detail::read_text_file(dir / "a", "f", 70'003), text);
  io::detail::write_text_file(dir / "a", "", "f");
  EXPECT_EQ(io::detail::read_text_file(dir / "a", "f"), "");
  EXPECT_NE(io::detail::read_text_file("/proc/self/status", "f").find("VmRSS"), std::string::npos)
      << "says it has 0 bytes";
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_STEER_ERROR(io::detail::read_text_file(dir / "pipe", "f"), ErrorCode::io, "pipe");
  EXPECT_STEER_ERROR(io::detail::read_text_file(dir.path(), "f"), ErrorCode::io, "folder");
  EXPECT_STEER_ERROR(io::detail::read_text_file(dir / "none", "f"), ErrorCode::io, "none");
}

TEST(TextFile, ReplacesInOneStep) {
  test::TempDir dir;
  io::detail::write_text_file(dir / "a", "old", "f");
  std::filesystem::create_symlink(dir / "a", dir / "link");
  io::detail::write_text_file(dir / "link", "new", "f");
  EXPECT_TRUE(std::filesystem::is_symlink(dir / "link"));
  EXPECT_EQ(test::read_file(dir / "a"), "new");
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_STEER_ERROR(io::detail::write_text_file(dir / "pipe", "x", "f"), ErrorCode::io, "device");
  EXPECT_STEER_ERROR(io::detail::write_text_file(dir / "no" / "a", "x", "f"), ErrorCode::io, "no");
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(dir.path())) ++files;
  EXPECT_EQ(files, 3u) << "no temporary file is left";
}

}  // namespace
}  // namespace steer
