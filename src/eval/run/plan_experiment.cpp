#include <ATen/DeviceAccelerator.h>
#include <fmt/ranges.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include <steer/core/error.hpp>
#include <steer/eval/experiment.hpp>
#include <steer/io/tensor_reader.hpp>
#include <steer/text/chat_template.hpp>
#include <steer/text/tokenizer.hpp>

#include "core/format_text.hpp"
#include "eval/run/calibrate.hpp"
#include "eval/run/prompts.hpp"
#include "model/assemble.hpp"
#include "model/model_files.hpp"

namespace steer {
namespace {

constexpr std::int64_t kTemplateTokens = 6;  // that a chat format adds to a message, about
constexpr std::int64_t kCacheBytes = 4;      // of one key or value: f32

/// Bytes for use without swapping, as Linux or the accelerator reports them; 0 where neither does.
std::int64_t available_memory(const at::Device& device) {
  if (!device.is_cpu()) {
    try {
      return static_cast<std::int64_t>(at::accelerator::getMemoryInfo(device.index()).first);
    } catch (const std::exception&) {
      return 0;
    }
  }
  std::ifstream file("/proc/meminfo");
  std::string name, unit;
  for (std::int64_t kib = 0; file >> name >> kib >> unit;)
    if (name == "MemAvailable:") return kib * 1024;
  return 0;
}

std::string bytes_text(std::int64_t bytes) {
  const auto mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 1000 ? format_text("{:.1f} MiB", mib) : format_text("{:.2f} GiB", mib / 1024);
}

std::string count_text(double count) {
  return count < 1e9 ? format_text("{:.1f} million", count / 1e6) : format_text("{:.2f} billion", count / 1e9);
}

std::string time_text(double seconds) {
  if (seconds < 100) return format_text("{:.0f} s", std::max(seconds, 1.0));
  if (seconds < 100 * 60) return format_text("{:.0f} minutes", seconds / 60);
  if (seconds < 48 * 3600) return format_text("{:.1f} hours", seconds / 3600);
  return format_text("{:.1f} days", seconds / 86400);
}

std::string describe_model(const model::detail::ModelFiles& files, const LoadOptions& load) {
  std::int64_t elements = 0;
  std::set<std::string> storage;
  for (const auto& tensor : files.tensors->tensors()) {
    std::int64_t n = 1;
    for (auto size : tensor.shape) n *= size;
    elements += n;
    if (tensor.shape.size() > 1) storage.insert(tensor.storage);
  }
  const auto& c = files.config;
  return format_text("{}, {} parameters, {} layers of width {}, vocabulary {}, context {}; {} in {}{}", c.family,
                     count_text(static_cast<double>(elements)), c.n_layers, c.d_model, c.vocab_size, c.context,
                     fmt::join(storage, " and "), files.tensors->format(),
                     load.weights == WeightFormat::stored ? "" : format_text(", kept as {}", to_string(load.weights)));
}

void add_saes(const Experiment& experiment, const ModelConfig& config, ExperimentPlan& plan) {
  std::set<std::string> seen;
  for (const auto& arm : experiment.arms) {
    if (!arm.source) continue;
    for (const auto& sae : arm.source->saes) {
      if (!seen.insert(sae.hash()).second) continue;
      const auto& point = sae.config().hook_in;
      plan.saes.push_back(format_text("{} features of width {} at {} ({})", sae.d_sae(), sae.d_in(),
                                      point ? point->name() : "a point its files do not name", sae.config().format));
      plan.sae_bytes += (sae.d_in() + sae.d_out()) * sae.d_sae() * static_cast<std::int64_t>(sizeof(float));
      const bool residual = point && (point->site == Site::resid_post || point->site == Site::resid_pre);
      if (residual && sae.d_in() != config.d_model)
        plan.problems.push_back(
            format_text("the SAE reads {} values of the residual stream but the model's is {} wide: it was made for "
                        "another model, give this one's",
                        sae.d_in(), config.d_model));
      if (point && point->layer >= config.n_layers)
        plan.problems.push_back(
            format_text("the SAE reads {} but the model has {} layers: it was made for another model, give this one's",
                        point->name(), config.n_layers));
    }
  }
}

/// Renders a prompt with each system message of the run: a template that refuses one would do so in the middle of it.
void try_prompts(const Experiment& experiment, const Tokenizer& tokenizer, const LoadOptions& load,
                 ExperimentPlan& plan) {
  std::string asking = "the chat template";
  try {
    const ChatTemplate chat = load.chat_format ? ChatTemplate(*load.chat_format, tokenizer) : ChatTemplate(tokenizer);
    std::set<std::string> tried;
    for (const auto& arm : experiment.arms)
      for (const auto& behaviour : experiment.behaviours) {
        const std::string system = eval::detail::system_of(arm, behaviour);
        if (!tried.insert(system).second) continue;
        asking = format_text("arm {}", arm.name);
        const auto& question = experiment.questions.front();
        const bool letters = experiment.mode == AnswerMode::letters;
        std::vector<Message> messages{{Role::user, letters ? letter_prompt(question) : user_prompt(question)}};
        if (!system.empty()) messages.insert(messages.begin(), {Role::system, system});
        (void)chat.render(messages);
      }
  } catch (const Error& error) {
    plan.problems.push_back(format_text(
        "{}: {}; choose a format by hand: LoadOptions::chat_format (--chat-format NAME)", asking, error.what()));
  }
}

}  // namespace

std::string ExperimentPlan::describe() const {
  std::string text = format_text("model                  {}\n", model);
  for (const auto& sae : saes) text += format_text("SAE                    {}\n", sae);
  text += format_text(
      "rows of the results    {}\nanswers to take        {}\nprompt tokens          {} (longest prompt about {})\n"
      "new tokens, at most    {}\nread again, at most    {} tokens\nanswers of searches    {}, at most about\n\n"
      "weights                {}\nSAEs                   {}\ncache of one batch     {}\nmemory for use now     {}\n",
      rows, answers, prompt_tokens, longest_prompt, new_tokens, scored_tokens, search_answers, bytes_text(weight_bytes),
      bytes_text(sae_bytes), bytes_text(cache_bytes), memory_bytes ? bytes_text(memory_bytes) : "unknown");
  if (seconds > 0)
    text += format_text("time, roughly          {}, if every answer is as long as it may be; judges not counted\n",
                        time_text(seconds));
  for (const auto& warning : warnings) text += format_text("\nnote: {}\n", warning);
  for (const auto& problem : problems) text += format_text("\ncannot run here: {}\n", problem);
  return text;
}

void ExperimentPlan::require_fits() const {
  require(problems.empty(), ErrorCode::config, "ExperimentPlan", "expected a run that can be done here but {}",
          fmt::join(problems, "; "));
}

ExperimentPlan plan_experiment(const std::filesystem::path& model_path, const Experiment& experiment,
                               const ExperimentOptions& options, const LoadOptions& load) {
  experiment.validate();
  require(options.batch >= 1, ErrorCode::argument, "plan_experiment", "expected batches of at least 1 but got {}",
          options.batch);
  const model::detail::ModelFiles files = model::detail::open_model_files(model_path, load);
  const ModelConfig& config = files.config;
  require(files.tokenizer.has_value(), ErrorCode::config, "plan_experiment",
          "expected a model with a tokenizer but its files hold none; put tokenizer.json beside the weights");
  const Tokenizer& tokenizer = *files.tokenizer;
  ExperimentPlan plan;
  try_prompts(experiment, tokenizer, load, plan);
  plan.model = describe_model(files, load);
  auto weights = model::detail::check_weights(config, *files.tensors, load);
  plan.weight_bytes = weights.bytes;
  plan.warnings = std::move(weights.warnings);
  add_saes(experiment, config, plan);
  const bool letters = experiment.mode == AnswerMode::letters;
  const std::int64_t answer = letters ? 0 : experiment.max_tokens;
  std::vector<std::int64_t> question_tokens;
  for (const auto& question : experiment.questions)
    question_tokens.push_back(
        kTemplateTokens * 2 +
        static_cast<std::int64_t>(
            tokenizer.encode(letters ? letter_prompt(question) : user_prompt(question), {.add_special = false})
                .size()));
  for (const auto& arm : experiment.arms)
    for (const auto& behaviour : experiment.behaviours) {
      const std::string system = eval::detail::system_of(arm, behaviour);
      const std::int64_t asked =
          system.empty()
              ? 0
              : kTemplateTokens + static_cast<std::int64_t>(tokenizer.encode(system, {.add_special = false}).size());
      for (std::size_t q = 0; q < question_tokens.size(); q += static_cast<std::size_t>(arm.every)) {
        ++plan.rows;
        if (!experiment.answers_each_behaviour(arm) && &behaviour != &experiment.behaviours.front()) continue;
        ++plan.answers;
        plan.prompt_tokens += question_tokens[q] + asked;
        plan.longest_prompt = std::max(plan.longest_prompt, question_tokens[q] + asked);
        if (!letters)
          plan.scored_tokens +=
              (experiment.nll + (experiment.kl && arm.source ? 2 : 0)) * (question_tokens[q] + answer);
      }
    }
  std::map<std::string, std::int64_t> searches;  // by source: arms made from one share its searches
  for (const auto& arm : experiment.arms)
    if (arm.source && arm.source->costly) searches[arm.source->name] = arm.source->answers;
  for (const auto& [name, count] : searches)
    plan.search_answers += count * static_cast<std::int64_t>(experiment.behaviours.size());
  plan.new_tokens = plan.answers * answer;
  plan.cache_bytes = 2 * kCacheBytes * config.n_layers * config.n_kv_heads * config.d_head * options.batch *
                     (plan.longest_prompt + answer);
  plan.memory_bytes = available_memory(load.device);
  const std::int64_t context = config.context;
  if (context > 0 && plan.longest_prompt + answer > context)
    plan.problems.push_back(format_text(
        "the model's context is {} tokens but the longest prompt and answer need about {} + {}; lower max_tokens",
        context, plan.longest_prompt, answer));
  const std::int64_t needed = plan.weight_bytes + plan.sae_bytes + plan.cache_bytes;
  if (plan.memory_bytes > 0 && needed > plan.memory_bytes)
    plan.problems.push_back(
        format_text("weights, SAEs and cache need {} + {} + {} but {} are free: {} too much; use quantised weights, a "
                    "smaller batch "
                    "or a larger machine",
                    bytes_text(plan.weight_bytes), bytes_text(plan.sae_bytes), bytes_text(plan.cache_bytes),
                    bytes_text(plan.memory_bytes), bytes_text(needed - plan.memory_bytes)));
  return plan;
}

void estimate_time(ExperimentPlan& plan, const std::filesystem::path& model_path, const ExperimentOptions& options,
                   const LoadOptions& load) {
  const model::detail::ModelFiles files = model::detail::open_model_files(model_path, load);
  const auto cost = eval::detail::calibrate(files.config, *files.tensors, load, options.batch);
  const auto count = static_cast<double>(std::max<std::int64_t>(plan.answers, 1));
  const double prompt = static_cast<double>(plan.prompt_tokens) / count,
               answer = static_cast<double>(plan.new_tokens) / count;
  const double answers = count + static_cast<double>(plan.search_answers);
  plan.seconds = answers * (prompt * cost.prompt_token + answer * cost.new_token + cost.logits) +
                 static_cast<double>(plan.scored_tokens) * (cost.prompt_token + cost.logits);
}

}  // namespace steer
