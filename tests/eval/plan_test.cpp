#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include <steer/eval/auto_steer_arm.hpp>
#include <steer/eval/experiment.hpp>

#include "support.hpp"

namespace steer {
namespace {

/// What a published model and SAE look like from outside: true names, shapes and sizes, as holes in files.
struct Published {
  const char* name;
  const char* sae;
  std::int64_t width, layers, kv_heads, sae_layer;
  double parameters;  ///< as the model cards give them, in billions
};

constexpr Published kPublished[] = {
    {"llama-3.1-8b", "Llama-3.1-8B-Instruct-SAE-l19.pth", 4096, 32, 8, 19, 8.03},
    {"llama-3.3-70b", "Llama-3.3-70B-Instruct-SAE-l50.pt", 8192, 80, 8, 50, 70.6},
};

std::int64_t bytes_on_disk(const std::filesystem::path& folder) {
  std::int64_t sum = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    struct stat info {};
    stat(entry.path().c_str(), &info);
    sum += 512 * info.st_blocks;
  }
  return sum;
}

void make_shapes(const std::filesystem::path& folder, const std::string& model) {
  const std::string source = STEER_SOURCE_DIR;
  const std::string command = "python3 " + source + "/scripts/make_shapes.py " + folder.string() + " " + model +
                              " --tokenizer " + source + "/examples/data/demo > /dev/null";
  ASSERT_EQ(std::system(command.c_str()), 0);
}

Experiment study_of(const Sae& sae) {
  Experiment study;
  for (int i = 0; i < 171; ++i)
    study.questions.push_back({.id = "q" + std::to_string(i),
                               .subject = "s",
                               .text = "What is " + std::to_string(i) + " + 1?",
                               .choices = {"1", "2", "3", "4"},
                               .answer = 0});
  const Arm published = auto_steer_arm(sae, AutoSteerMode::published, {}),
            safe = auto_steer_arm(sae, AutoSteerMode::safe, {});
  study.arms = {Arm::control(), Arm::prompt(), published, safe, safe.with_prompt()};
  return study;
}

class Plans : public testing::TestWithParam<Published> {};

TEST_P(Plans, KnowPublishedModelsFromTheirHeaders) {
  const Published& p = GetParam();
  test::TempDir dir;
  make_shapes(dir / "model", p.name);
  ASSERT_LT(bytes_on_disk(dir / "model"), 4e6);
  const Sae sae = Sae::load(dir / "model" / p.sae);
  EXPECT_EQ(sae.config().hook_in, (HookPoint{Site::resid_post, p.sae_layer}));
  const Experiment study = study_of(sae);
  ExperimentPlan plan = plan_experiment(dir / "model", study, {.batch = 8});

  EXPECT_EQ(plan.rows, 5 * 14 * 171);
  EXPECT_EQ(plan.answers, 5 * 14 * 171);
  EXPECT_EQ(plan.new_tokens, plan.answers * 1024);
  EXPECT_NEAR(static_cast<double>(plan.weight_bytes), 2e9 * p.parameters, 0.01 * 2e9 * p.parameters)
      << "bf16, used as stored";
  EXPECT_EQ(plan.sae_bytes, 2 * 65536 * p.width * 4);
  const std::int64_t head = 128, length = plan.longest_prompt + 1024;
  EXPECT_EQ(plan.cache_bytes, 2 * 4 * p.layers * p.kv_heads * head * 8 * length);
  EXPECT_EQ(plan.search_answers, 14 * ((3 + 2 * 7) * 24 + (3 + 8) * 24 + 8 * 8 + (1 + 8) * 64))
      << "published: 7 sets of 3 features; safe: 16 finalists, half of them on all prompts; safe + prompt shares "
         "safe's";
  const bool fits = plan.weight_bytes + plan.sae_bytes + plan.cache_bytes <= plan.memory_bytes;
  EXPECT_EQ(plan.problems.empty(), fits);
  if (!fits) EXPECT_STEER_ERROR(plan.require_fits(), ErrorCode::config, "too much; use quantised weights");
  for (const char* part : {"llama", "65536 features", "BF16"})
    EXPECT_NE(plan.describe().find(part), std::string::npos) << plan.describe();
  EXPECT_LT(bytes_on_disk(dir / "model"), 4e6) << "nothing was written into the holes";

  // One token's products are two operations a weight: no machine does better than a petaflop, nor this one worse than
  // 50 megaflops.
  estimate_time(plan, dir / "model", {.batch = 8});
  const double operations = 2e9 * p.parameters * static_cast<double>(plan.new_tokens + plan.prompt_tokens);
  EXPECT_GT(plan.seconds, operations / 1e15);
  EXPECT_LT(plan.seconds, 3 * operations / 5e7);
  EXPECT_NE(plan.describe().find("time, roughly"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Models, Plans, testing::ValuesIn(kPublished), [](const auto& info) {
  std::string name = info.param.name;
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});

TEST(PlanProblems, SayWhatIsWrongAndByHowMuch) {
  test::TempDir dir;
  make_shapes(dir / "small", "llama-3.1-8b");
  make_shapes(dir / "large", "llama-3.3-70b");
  Experiment study = study_of(Sae::load(dir / "large" / "Llama-3.3-70B-Instruct-SAE-l50.pt"));
  const ExperimentPlan other = plan_experiment(dir / "small", study);
  ASSERT_GE(other.problems.size(), 2u);
  EXPECT_NE(other.problems[0].find("8192"), std::string::npos) << other.problems[0];
  EXPECT_NE(other.problems[1].find("32 layers"), std::string::npos) << other.problems[1];
  study.arms = {Arm::control()};
  study.max_tokens = 200'000;
  EXPECT_NE(plan_experiment(dir / "small", study, {.batch = 1}).problems.at(0).find("context is 131072"),
            std::string::npos);

  // One byte of a shard is missing, one shard is missing, one tensor is of another model: all before anything is read.
  study.max_tokens = 10;
  const auto shard = dir / "small" / "model-00002-of-00004.safetensors";
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 1);
  EXPECT_STEER_ERROR(plan_experiment(dir / "small", study), ErrorCode::format, "model-00002-of-00004");
  std::filesystem::remove(shard);
  EXPECT_ANY_THROW(plan_experiment(dir / "small", study));
  std::ofstream(dir / "large" / "config.json") << test::read_file(dir / "small" / "config.json");
  EXPECT_STEER_ERROR(plan_experiment(dir / "large", study), ErrorCode::shape, "[128256, 8192]");
  EXPECT_STEER_ERROR(plan_experiment(dir / "nowhere", study), ErrorCode::io, "check the path");
}

/// What a plan says of the demo model with this in place of its tokenizer_config.json, in letters and in answers alike.
std::vector<std::string> template_problems(const nlohmann::json& tokenizer_config, const std::vector<Arm>& arms,
                                           const LoadOptions& load = {}) {
  const auto demo = std::filesystem::path(STEER_SOURCE_DIR) / "examples/data/demo";
  test::TempDir dir;
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.model"})
    std::filesystem::copy_file(demo / name, dir / name);
  std::ofstream(dir / "tokenizer_config.json") << tokenizer_config.dump();
  Experiment study;
  study.questions = {{.id = "q", .text = "What is 1 + 1?", .choices = {"1", "2"}, .answer = 1}};
  study.max_tokens = 8;
  study.arms = arms;
  std::vector<std::string> found[2];
  for (const auto mode : {AnswerMode::generate, AnswerMode::letters}) {
    study.mode = mode;
    const auto plan = plan_experiment(dir.path(), study, {.batch = 1}, load);
    found[mode == AnswerMode::letters] = plan.problems;
    // What the plan says, loading and running say: nothing is found out in the middle of a run.
    const auto model = Model::load(dir.path(), load);
    if (plan.problems.empty())
      EXPECT_NO_THROW(run_experiment(model, study, {.batch = 1}));
    else
      EXPECT_ANY_THROW(run_experiment(model, study, {.batch = 1}));
  }
  EXPECT_EQ(found[0], found[1]) << "letters and answers must be told the same";
  return found[0];
}

TEST(PlanTemplates, AreTriedAsTheRunWillUseThem) {
  const std::vector<Arm> alone = {Arm::control()}, with_prompt = {Arm::control(), Arm::prompt()};
  const auto config = [](const char* text) { return nlohmann::json{{"chat_template", text}}; };
  EXPECT_TRUE(template_problems(nlohmann::json::object(), with_prompt).empty()) << "no template: contents as they are";
  EXPECT_TRUE(template_problems(config("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"), with_prompt)
                  .empty())
      << "a template that nobody knows";
  const auto no_system = config(
      "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system, please') }}{% endif %}"
      "{{ m.content }}{% endfor %}");
  EXPECT_TRUE(template_problems(no_system, alone).empty());
  const auto refused = template_problems(no_system, with_prompt);
  ASSERT_EQ(refused.size(), 1u);
  for (const char* part : {"arm prompt", "no system, please", "--chat-format"})
    EXPECT_NE(refused[0].find(part), std::string::npos) << refused[0];
  const auto imports = config("{% import 'x' as y %}");
  const auto unreadable = template_problems(imports, alone);
  ASSERT_EQ(unreadable.size(), 1u);
  for (const char* part : {"import", "--chat-format"})
    EXPECT_NE(unreadable[0].find(part), std::string::npos) << unreadable[0];
  EXPECT_TRUE(template_problems(imports, with_prompt, {.chat_format = ChatFormat::chatml}).empty());
}

}  // namespace
}  // namespace steer
