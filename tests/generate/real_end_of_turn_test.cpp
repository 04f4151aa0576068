// GGUF files whose end of sequence is not what ends a turn: generation must stop at the template's end of turn.

#include <gtest/gtest.h>

#include <steer/generate/generate.hpp>

#include "core/format_text.hpp"
#include "real_cases.hpp"

namespace steer {
namespace {

using nlohmann::json;

GenerateResult answer(const test::RealCase& c) {
  const Model model = Model::load(c.input());
  const json& expected = c.expected();
  const GenerateOptions options{.max_tokens = expected.at("max_tokens")};
  if (expected.contains("message"))
    return generate(model, {{Role::user, expected["message"].get<std::string>()}}, options);
  const GenerateRequest request{.ids = expected.at("ids").get<std::vector<std::int64_t>>(), .steering = {}, .seed = {}};
  return generate(model, {&request, 1}, options).front();
}

std::string differs(const GenerateResult& got, const json& right) {
  if (right.contains("generated")) {
    const auto count = static_cast<std::int64_t>(got.ids.size());
    return count == right["generated"] || count == right.value("or_generated", -1) ? "" : format_text("{} ids", count);
  }
  if (right.at("text") != got.text) return "text " + got.text;
  const bool stopped = got.finish == FinishReason::stop_token;
  return stopped == (right.at("finish") == "stop") ? "" : "finish " + std::string(to_string(got.finish));
}

TEST(RealEndOfTurn, StopsWithoutText) { test::check_real_cases("gguf_end_of_turn", answer, differs); }

}  // namespace
}  // namespace steer
