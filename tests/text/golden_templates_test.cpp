// Every case of the golden folder's templates: the text equals that of transformers' own renderer.

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "support.hpp"
#include "text/jinja/template.hpp"

namespace steer::text::detail::jinja {
namespace {

using Json = nlohmann::ordered_json;

// A message's reasoning_content is seen under "thinking" as well, listed first.
Json with_aliases(const Json& message) {
  if (!message.contains("reasoning_content")) return message;
  Json out = {{"thinking", message["reasoning_content"]}};
  for (const auto& [key, value] : message.items()) out[key] = value;
  return out;
}

struct Outcome {
  std::string text, error;
};

Outcome render(const Template& program, const Json& item) {
  // The clock of the folder's README.
  const auto now = std::chrono::sys_days(std::chrono::year(2026) / 7 / 1) + std::chrono::hours(12) +
                   std::chrono::minutes(34) + std::chrono::seconds(56);
  Json messages = Json::array();
  for (const Json& message : item.at("messages")) messages.push_back(with_aliases(message));
  Variables variables{{"messages", from_json(messages)}};
  for (const auto& [name, value] : item.at("kwargs").get_ref<const Json::object_t&>())
    variables.emplace_back(name, from_json(value));
  try {
    return {std::string(program.render(variables, now).bytes()), ""};
  } catch (const Error& error) {
    return {"", error.what()};
  }
}

TEST(GoldenTemplates, EveryCase) {
  const auto golden = test::outside_data("STEER_GOLDEN_DIR", "../shared/fixtures/golden");
  const auto folder = golden.path / "templates";
  if (!golden.named && !std::filesystem::is_directory(folder))
    GTEST_SKIP() << "no golden data: set STEER_GOLDEN_DIR to run this suite";
  test::CaseCounter counter("golden.templates");
  ASSERT_TRUE(std::filesystem::is_directory(folder)) << folder;
  std::map<std::string, Template> programs;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".jsonl") continue;
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      const Json item = Json::parse(line);
      const auto name = item.at("template").get<std::string>();
      SCOPED_TRACE(line);
      auto found = programs.find(name);
      if (found == programs.end()) found = programs.emplace(name, Template(test::read_file(folder / name))).first;
      const Outcome got = render(found->second, item);
      bool ok = item.contains("error") ? !got.error.empty() : got.error.empty() && item.at("text") == got.text;
      if (!ok && item.contains("python_repr")) ok = !got.error.empty();  // refusing is right as well
      EXPECT_TRUE(ok) << (got.error.empty() ? got.text : got.error);
      counter.count(ok);
    }
  }
  EXPECT_GT(counter.passed() + counter.failed(), 0) << "no case in " << folder;
}

}  // namespace
}  // namespace steer::text::detail::jinja
