#pragma once
// What all tests share: expecting a steer::Error, a folder that cleans up after itself, outside data.

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <steer/core/error.hpp>

#include "source_dir.hpp"

/// The statement throws steer::Error with this code and with this text in its message.
#define EXPECT_STEER_ERROR(statement, expected_code, text)                                          \
  try {                                                                                             \
    statement;                                                                                      \
    ADD_FAILURE() << "expected a steer::Error from " #statement;                                    \
  } catch (const ::steer::Error& error) {                                                           \
    EXPECT_EQ(::steer::to_string(error.code()), ::steer::to_string(expected_code)) << error.what(); \
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();             \
    EXPECT_EQ(std::string(error.what()).rfind("[steer::", 0), 0u) << error.what();                  \
  }

namespace steer::test {

/// A new folder under the system's temporary folder, removed with all it holds.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "steer-test-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("mkdtemp failed for " + name);
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A folder of outside data: where the environment variable says, else the default relative to the source tree.
struct OutsideData {
  std::filesystem::path path;
  bool named = false;  ///< by the variable: then it must exist and hold cases
  bool present = false;
};

inline OutsideData outside_data(const char* variable, const char* default_path) {
  OutsideData data;
  if (const char* value = std::getenv(variable); value && *value) {
    data.path = value;
    data.named = true;
  } else {
    data.path = std::filesystem::path(STEER_SOURCE_DIR) / default_path;
  }
  data.present = std::filesystem::exists(data.path);
  return data;
}

/// Counts the cases of a labelled suite and prints its line. A named folder without a case is a failure, no folder at
/// all a skip.
class CaseCounter {
 public:
  explicit CaseCounter(std::string label) : label_(std::move(label)) {}
  void count(bool ok) { ++(ok ? passed_ : failed_); }
  int passed() const { return passed_; }
  int failed() const { return failed_; }
  ~CaseCounter() { std::printf("%s: %d cases passed, %d failed\n", label_.c_str(), passed_, failed_); }

 private:
  std::string label_;
  int passed_ = 0, failed_ = 0;
};

}  // namespace steer::test
