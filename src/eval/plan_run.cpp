#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include <steer/core/error.hpp>
#include <steer/eval/experiment.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/model/config.hpp>
#include <steer/text/tokenizer.hpp>

#include "eval/csv.hpp"
#include "eval/prompts.hpp"

namespace steer {
namespace {

constexpr std::int64_t kTemplateTokens = 6;  // that a chat format adds to a message, about
constexpr std::int64_t kCacheBytes = 4;      // of one key or value: f32

/// Bytes for use without swapping, as Linux reports them; 0 where it does not.
std::int64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (std::int64_t kib = 0; file >> name >> kib >> unit;)
    if (name == "MemAvailable:") return kib * 1024;
  return 0;
}

std::string bytes_text(std::int64_t bytes) { return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1 << 30)); }

}  // namespace

std::string RunPlan::describe() const {
  return fmt::format(
      "rows of the results    {}\nanswers to take        {}\nprompt tokens          {} (longest prompt about {})\n"
      "new tokens, at most    {}\nweights                {}\ncache of one batch     {}\nmemory for use now     {}\n",
      rows, answers, prompt_tokens, longest_prompt, new_tokens, bytes_text(weight_bytes), bytes_text(cache_bytes),
      memory_bytes ? bytes_text(memory_bytes) : "unknown");
}

RunPlan plan_run(const Experiment& experiment, const std::filesystem::path& model_path, const RunOptions& options) {
  experiment.validate();
  const auto reader = open_tensors(model_path);
  const bool folder = std::filesystem::is_directory(model_path);
  const ModelConfig config = folder ? ModelConfig::from_hugging_face(nlohmann::json::parse(
                                          detail::read_text(model_path / "config.json", "plan_run")))
                                    : ModelConfig::from_gguf(*reader);
  const Tokenizer tokenizer = folder ? Tokenizer::load(model_path) : Tokenizer::from_gguf(*reader);
  RunPlan plan;
  for (const auto& tensor : reader->tensors()) plan.weight_bytes += tensor.bytes;
  const bool letters = experiment.mode == AnswerMode::letters;
  std::vector<std::int64_t> question_tokens;
  for (const auto& question : experiment.questions)
    question_tokens.push_back(
        kTemplateTokens * 2 +
        static_cast<std::int64_t>(
            tokenizer.encode(letters ? letter_prompt(question) : user_prompt(question), {.add_special = false})
                .size()));
  for (const auto& arm : experiment.arms)
    for (const auto& behaviour : experiment.behaviours) {
      const std::string system = detail::system_of(arm, behaviour);
      const std::int64_t asked =
          system.empty()
              ? 0
              : kTemplateTokens + static_cast<std::int64_t>(tokenizer.encode(system, {.add_special = false}).size());
      for (std::size_t q = 0; q < question_tokens.size(); q += static_cast<std::size_t>(arm.every)) {
        ++plan.rows;
        if (!arm.depends_on_behaviour() && &behaviour != &experiment.behaviours.front()) continue;
        ++plan.answers;
        plan.prompt_tokens += question_tokens[q] + asked;
        plan.longest_prompt = std::max(plan.longest_prompt, question_tokens[q] + asked);
      }
    }
  const std::int64_t answer = letters ? 0 : experiment.max_tokens;
  plan.new_tokens = plan.answers * answer;
  plan.cache_bytes = 2 * kCacheBytes * config.n_layers * config.n_kv_heads * config.d_head * options.batch *
                     (plan.longest_prompt + answer);
  plan.memory_bytes = available_memory();
  require(config.context == 0 || plan.longest_prompt + answer <= config.context, ErrorCode::config, "plan_run",
          "expected prompts and answers within the model's context of {} tokens but the longest need about {} + {}; "
          "lower max_tokens",
          config.context, plan.longest_prompt, answer);
  const std::int64_t needed = plan.weight_bytes + plan.cache_bytes;
  require(plan.memory_bytes == 0 || needed <= plan.memory_bytes, ErrorCode::config, "plan_run",
          "expected weights and cache within the {} this machine has but they need {} + {}; use a smaller batch, "
          "quantised weights or a larger machine",
          bytes_text(plan.memory_bytes), bytes_text(plan.weight_bytes), bytes_text(plan.cache_bytes));
  return plan;
}

}  // namespace steer
