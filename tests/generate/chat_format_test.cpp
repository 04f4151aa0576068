// Which chat format a model has, and that ids need none.

#include <gtest/gtest.h>

#include <steer/generate/generate.hpp>
#include <steer/text/chat_template.hpp>

#include "support.hpp"
#include "tiny_model.hpp"

namespace steer {
namespace {

// A model whose files bring this template.
Model model_with(const std::string& chat_template) {
  const test::TempDir folder;
  std::filesystem::copy_file(std::filesystem::path(STEER_SOURCE_DIR) / "tests/data/text/byte_level.json",
                             folder / "tokenizer.json");
  std::ofstream(folder / "chat_template.jinja") << chat_template;
  return test::tiny_model({.vocabulary = 384, .tokenizer = Tokenizer::load(folder.path())});
}

TEST(ChatFormatOfModel, IdsNeedNone) {
  const Model model = model_with("{% include 'elsewhere' %}");
  const GenerateRequest request{.ids = {1, 40, 41}, .steering = {}, .seed = {}};
  const auto ids = generate(model, {&request, 1}, {.max_tokens = 4}).front().ids;
  EXPECT_EQ(ids, generate(test::tiny_model({.vocabulary = 384}), {&request, 1}, {.max_tokens = 4}).front().ids);
  EXPECT_STEER_ERROR(model.chat(), ErrorCode::unsupported, "include");
  EXPECT_STEER_ERROR(generate(model, "hello"), ErrorCode::unsupported, "with_chat");
  EXPECT_EQ(model.stop_ids(), (std::vector<std::int64_t>{2}));
}

TEST(ChatFormatOfModel, CanBeSet) {
  const Model broken = model_with("{% include 'elsewhere' %}");
  const Model model = broken.with_chat(ChatTemplate(ChatFormat::chatml, broken.tokenizer()));
  const auto ids = model.chat().render({{Role::user, "hi"}}).ids;
  const GenerateRequest request{.ids = ids, .steering = {}, .seed = {}};
  EXPECT_EQ(generate(model, {{Role::user, "hi"}}, {.max_tokens = 4}).ids,
            generate(broken, {&request, 1}, {.max_tokens = 4}).front().ids);
  EXPECT_EQ(model.hash(), broken.hash()) << "the weights are shared";
  EXPECT_STEER_ERROR(broken.chat(), ErrorCode::unsupported, "include");
}

// The template says where a turn ends: generation stops there though the configuration does not know of it.
TEST(ChatFormatOfModel, EndsATurn) {
  const std::string turns = "{% for m in messages %}{{ m.content }}<mask>{% endfor %}";
  const Model model = model_with(turns);
  const std::int64_t mask = *model.tokenizer().id_of("<mask>");
  EXPECT_EQ(model.stop_ids(), (std::vector<std::int64_t>{2, mask}));
}

}  // namespace
}  // namespace steer
