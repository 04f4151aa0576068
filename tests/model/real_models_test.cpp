// Models as people bring them (STEER_REAL_DIR): odd configurations, ropes, heads, tokenizers, tensors. Right is what
// transformers computes on the same folder, or a refusal that names the thing; planning says what loading says.
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <cmath>

#include <steer/model/session.hpp>

#include "core/format_text.hpp"
#include "model/assemble.hpp"
#include "model/model_files.hpp"
#include "real_cases.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int64_t>;

struct Loaded {
  Model model;
  std::string warnings;
  at::Tensor last;  ///< logits of the last token
};

Ids ids_of(const test::RealCase& c) {
  for (const char* key : {"expected", "or"})
    if (c.json.contains(key) && c.json.at(key).contains("ids")) return c.json.at(key).at("ids").get<Ids>();
  return {1, 2, 3};
}

/// What a plan would say: nothing, or the message of its refusal.
std::string planned(const fs::path& path) {
  try {
    const auto files = model::detail::open_model_files(path, {});
    model::detail::check_weights(files.config, *files.tensors, {});
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

Loaded load(const test::RealCase& c) {
  const fs::path path = c.input();
  const std::string plan = planned(path);
  const auto load_or_compare = [&] {
    try {
      return Model::load(path);
    } catch (const Error& error) {
      EXPECT_EQ(plan, error.what()) << c.name << ": planning and loading must refuse alike";
      throw;
    }
  };
  Model model = load_or_compare();
  EXPECT_EQ(plan, "") << c.name << ": planning refuses what loads";
  std::string warnings;
  for (const auto& warning : model.warnings()) warnings += warning + "\n";
  Session session(model);
  const auto ids = ids_of(c);
  return {model, warnings, session.forward(ids)[-1]};
}

std::string differs(const Loaded& got, const nlohmann::json& right) {
  const auto logits = right.at("logits_last").get<std::vector<double>>();
  const double tolerance = right.at("tolerance");
  const at::Tensor ours = got.last.contiguous();
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double value = ours.const_data_ptr<float>()[i];
    if (!(std::abs(value - logits[i]) <= tolerance))
      return format_text("logit {} is {} but {} is right", i, value, logits[i]);
  }
  if (right.contains("argmax") && ours.argmax().item<std::int64_t>() != right.at("argmax")) return "another argmax";
  if (right.contains("warns") && !test::holds_words(got.warnings, right.at("warns")))
    return "no warning with " + right.at("warns").dump() + " but: " + got.warnings;
  if (right.contains("vocab_size") && got.model.config().vocab_size != right.at("vocab_size"))
    return "another number of rows";
  if (right.contains("tokenizer_size") && got.model.tokenizer().vocab_size() != right.at("tokenizer_size"))
    return "another number of tokens";
  return {};
}

TEST(RealModels, Configurations) { test::check_real_cases("configs", load, differs); }
TEST(RealModels, Ropes) { test::check_real_cases("rope", load, differs); }
TEST(RealModels, Heads) { test::check_real_cases("lm_head", load, differs); }
TEST(RealModels, TokenizersLargerThanTheEmbedding) { test::check_real_cases("tokenizer_larger", load, differs); }
TEST(RealModels, Weights) { test::check_real_cases("weights", load, differs); }
TEST(RealModels, TextTowers) { test::check_real_cases("gemma3_wrapper", load, differs); }

}  // namespace
}  // namespace steer
