#include <steer/io/journal.hpp>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>

#include "support.hpp"

namespace steer {
namespace {

TEST(Journal, KeepsWhatWasAppended) {
  test::TempDir dir;
  const auto path = dir / "run.jsonl";
  {
    Journal journal(path, R"({"seed": 1})");
    journal.append({"a", R"({"x":1})"});
    journal.append({"b", R"({"x":"ü\n"})"});
    journal.append({"a", R"({"x":2})"});
    EXPECT_EQ(journal.size(), 2);
  }
  Journal journal(path, R"({"seed": 1})");
  EXPECT_EQ(journal.records().at("a"), R"({"x":1})") << "the first record of a key stays";
  EXPECT_TRUE(journal.contains("b"));
  EXPECT_EQ(Journal::read(path), journal.records());
}

TEST(Journal, SurvivesACutAtEveryByte) {
  test::TempDir dir;
  const auto path = dir / "run.jsonl";
  {
    Journal journal(path, "{}");
    for (int i = 0; i < 4; ++i) journal.append({std::to_string(i), R"({"value":"text"})"});
  }
  const std::string whole = test::read_file(path);
  for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << whole.substr(0, cut);
    Journal journal(path, "{}");
    const auto lines = std::count(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(cut), '\n');
    EXPECT_EQ(journal.size(), std::max<std::int64_t>(0, lines - 1)) << "cut at " << cut;
    for (int i = 0; i < 4; ++i) journal.append({std::to_string(i), R"({"value":"text"})"});
    EXPECT_EQ(test::read_file(path), whole);
  }
}

TEST(Journal, RefusesOtherSettingsOtherProcessesAndDamage) {
  test::TempDir dir;
  const auto path = dir / "run.jsonl";
  {
    Journal journal(path, R"({"seed": 1, "model": "m"})");
    journal.append({"a", "1"});
    journal.append({"b", "2"});
    EXPECT_STEER_ERROR(Journal(path, R"({"seed": 1, "model": "m"})"), ErrorCode::io, "another process");
    EXPECT_STEER_ERROR(journal.append({"c", "1\n2"}), ErrorCode::argument, "one line");
  }
  EXPECT_STEER_ERROR(Journal(path, R"({"seed": 2, "model": "m"})"), ErrorCode::config, "seed was 1, is 2");
  std::string text = test::read_file(path);
  text[text.find("\"record\":1") + 9] = '7';
  std::ofstream(path, std::ios::binary) << text;
  EXPECT_STEER_ERROR(Journal(path, R"({"seed": 1, "model": "m"})"), ErrorCode::format, "line 2");
  EXPECT_STEER_ERROR(Journal(dir / "no" / "such.jsonl", "{}"), ErrorCode::io, "such.jsonl");
}

TEST(Journal, LeavesFilesAloneThatAreNone) {
  test::TempDir dir;
  const auto path = dir / "run.jsonl";
  { Journal(path, "{}").append({"a", "1"}); }
  std::string edited;
  for (const char c : test::read_file(path)) edited += c == '\n' ? "\r\n" : std::string(1, c);
  for (const std::string& text : {edited, std::string("my notes\n"), std::string("notes"),
                                  std::string("{\"check\":\"0\"}\n"), std::string(300, '\0')}) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
    EXPECT_STEER_ERROR(Journal(path, "{}"), ErrorCode::format, "not touched");
    EXPECT_EQ(test::read_file(path), text);
  }
}

TEST(Journal, LeavesFilesThatAreNotItsOwn) {
  test::TempDir dir;
  const auto path = dir / "run.jsonl";
  std::string ours;
  {
    Journal journal(path, "{}");
    journal.append({"a", "1"});
    journal.append({"b", "2"});
    ours = test::read_file(path);
  }
  std::string crlf, damaged_end = ours;
  for (const char c : ours) crlf += c == '\n' ? std::string("\r\n") : std::string(1, c);
  damaged_end[ours.size() - 3] = '7';
  std::string noise;
  for (int i = 0; i < 300; ++i) noise += static_cast<char>(i * 37 % 256);
  const std::pair<std::string, const char*> files[] = {{"Dear diary,\nnothing.\n", "begins \"Dear diary,\""},
                                                       {"{\"a\": 1}\n", "begins \"{\"a\": 1}\""},
                                                       {"no line end", "begins"},
                                                       {noise, "binary"},
                                                       {std::string(100, '\0'), "binary"},
                                                       {"\xff\xfe\xff", "binary"},
                                                       {crlf, "CRLF"},
                                                       {damaged_end, "line 3 is damaged"}};
  for (const auto& [text, word] : files) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
    EXPECT_STEER_ERROR(Journal(path, "{}"), ErrorCode::format, word);
    EXPECT_STEER_ERROR(Journal::read(path), ErrorCode::format, word);
    EXPECT_EQ(test::read_file(path), text) << "it is left as it was";
  }
}

TEST(Journal, IsReadOnlyForItsOwnSettings) {
  test::TempDir dir;
  Journal journal(dir / "run.jsonl", R"({"seed": 1})");
  journal.append({"a", "1"});
  EXPECT_EQ(Journal::read(dir / "run.jsonl", R"({"seed": 1})").size(), 1u);
  EXPECT_STEER_ERROR(Journal::read(dir / "run.jsonl", R"({"seed": 2})"), ErrorCode::config, "seed was 1, is 2");
  EXPECT_TRUE(Journal::read(dir / "none.jsonl", "{}").empty());
}

TEST(Journal, FullDiskLosesNothing) {
  test::TempDir dir;
  const auto path = dir / "run.jsonl";
  Journal journal(path, "{}");
  journal.append({"a", "1"});
  const std::string before = test::read_file(path);
  // A file size limit stands in for a full disk: write() fails in the middle of the record.
  signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  getrlimit(RLIMIT_FSIZE, &old);
  const rlimit small{before.size() + 20, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  EXPECT_STEER_ERROR(journal.append({"b", "\"" + std::string(100, 'x') + "\""}), ErrorCode::io, "free some space");
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_EQ(test::read_file(path), before);
  journal.append({"b", "2"});
  EXPECT_EQ(Journal::read(path).size(), 2u);
}

}  // namespace
}  // namespace steer
