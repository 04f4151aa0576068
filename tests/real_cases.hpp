#pragma once
// Files as people really bring them: reads `case.json` of the folder that STEER_REAL_DIR names (default
// ../shared/fixtures/real) and judges what the library made of each case.
//
//   test::check_real_cases("rope",
//       [](const test::RealCase& c) { return logits_of(c.input()); },           // does what a user would do
//       [](const Logits& got, const nlohmann::json& right) { return std::string(); });  // "" or what differs
//
// A case is right when the first function throws a steer::Error whose message holds the words the case asks for, or
// when the second finds no difference; either outcome may stand under `expected` or under `or`.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "support.hpp"

namespace steer::test {

/// One `case.json`, or one `NAME.case.json`.
struct RealCase {
  std::filesystem::path folder;  ///< paths in the case start here
  std::string name;              ///< "rope/two-thetas"
  nlohmann::json json;

  const nlohmann::json& expected() const { return json.at("expected"); }
  /// The path given to the library; of a case with several, the one of this name.
  std::filesystem::path input(const char* part = nullptr) const {
    const auto& in = json.at("input");
    return (folder / (part ? in.at(part) : in).get<std::string>()).lexically_normal();
  }
  /// The rows of a table beside the case (JSON lines).
  std::vector<nlohmann::json> rows(const std::string& file) const {
    std::ifstream in(folder / file);
    std::vector<nlohmann::json> out;
    for (std::string line; std::getline(in, line);)
      if (!line.empty()) out.push_back(nlohmann::json::parse(line));
    return out;
  }
};

inline OutsideData real_data() { return outside_data("STEER_REAL_DIR", "../shared/fixtures/real"); }

/// All cases of a kind, by name: KIND/NAME/case.json, KIND/case.json and KIND/NAME.case.json.
inline std::vector<RealCase> real_cases(const std::string& kind) {
  namespace fs = std::filesystem;
  std::vector<RealCase> out;
  const fs::path root = real_data().path / kind;
  if (!fs::is_directory(root)) return out;
  const auto add = [&](const fs::path& file, const std::string& name) {
    out.push_back({file.parent_path(), name, nlohmann::json::parse(read_file(file))});
  };
  if (fs::exists(root / "case.json")) add(root / "case.json", kind);
  for (const auto& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    constexpr std::string_view kEnd = ".case.json";
    if (fs::exists(entry.path() / "case.json"))
      add(entry.path() / "case.json", kind + "/" + name);
    else if (name.ends_with(kEnd))
      add(entry.path(), kind + "/" + name.substr(0, name.size() - kEnd.size()));
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

/// Whether a text holds all words of a list, case not counting; "a|b" is either.
inline bool holds_words(std::string text, const nlohmann::json& words) {
  const auto lower = [](std::string s) {
    std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return s;
  };
  text = lower(std::move(text));
  return std::all_of(words.begin(), words.end(), [&](const auto& word) {
    std::istringstream either(lower(word.template get<std::string>()));
    for (std::string one; std::getline(either, one, '|');)
      if (text.find(one) != std::string::npos) return true;
    return false;
  });
}

/// What is wrong with the outcome of one case, or "".
/// @param refusal  the message of the steer::Error it ended in, if it did.
template <class Value, class Differs>
std::string wrong_with(const RealCase& c, const std::optional<Value>& value, const std::string& refusal,
                       const Differs& differs) {
  std::string wrong;
  for (const char* key : {"expected", "or"}) {
    if (!c.json.contains(key)) continue;
    const auto& right = c.json.at(key);
    const bool refuse = right.is_object() && right.contains("refused");
    std::string why;
    if (value && refuse)
      why = "expected a refusal with " + right.at("refused").dump() + " but it was let through";
    else if (value)
      why = differs(*value, right);
    else if (!refuse)
      why = "refused: " + refusal;
    else if (!holds_words(refusal, right.at("refused")))
      why = "expected a refusal with " + right.at("refused").dump() + " but got: " + refusal;
    if (why.empty()) return {};
    wrong += (wrong.empty() ? "" : "; or ") + why;
  }
  return wrong;
}

/// Runs all cases of a kind and prints "real (KIND): N cases passed, M failed"; with STEER_REAL_TABLE set, a line a
/// case. Skips when there is no such folder; a folder named by STEER_REAL_DIR must hold some kind of case.
/// @param produce  (const RealCase&) -> value; may throw steer::Error. @param differs  (value, outcome) -> "" or why.
template <class Produce, class Differs>
void check_real_cases(const std::string& kind, const Produce& produce, const Differs& differs) {
  using Value = std::invoke_result_t<Produce, const RealCase&>;
  const auto data = real_data();
  const auto cases = real_cases(kind);
  if (cases.empty()) {
    namespace fs = std::filesystem;
    bool any = false;
    if (data.present)
      for (const auto& entry : fs::directory_iterator(data.path))
        if (entry.is_directory()) any = any || !real_cases(entry.path().filename().string()).empty();
    ASSERT_TRUE(any || !data.named) << "STEER_REAL_DIR names " << data.path << ", which holds no case.json";
    GTEST_SKIP() << "no cases of " << kind << " in " << data.path << " (STEER_REAL_DIR names the folder)";
  }
  CaseCounter counter("real (" + kind + ")");
  for (const RealCase& c : cases) {
    std::optional<Value> value;
    std::string refusal, wrong;
    try {
      try {
        value.emplace(produce(c));
      } catch (const Error& error) {
        refusal = error.what();
      }
      wrong = wrong_with(c, value, refusal, differs);
    } catch (const std::exception& error) {
      wrong = std::string("not a steer::Error: ") + error.what();
    }
    counter.count(wrong.empty());
    EXPECT_TRUE(wrong.empty()) << c.name << " (" << c.json.value("what", "") << "): " << wrong;
    if (std::getenv("STEER_REAL_TABLE"))
      std::printf("%-6s %-44s %s\n", wrong.empty() ? "ok" : "WRONG", c.name.c_str(),
                  (refusal.empty() ? std::string("loads") : "refused: " + refusal).substr(0, 200).c_str());
  }
}

}  // namespace steer::test
