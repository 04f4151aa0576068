#include "eval/run/answers.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <map>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/eval/answer.hpp>
#include <steer/eval/text_metrics.hpp>
#include <steer/generate/score.hpp>
#include <steer/model/session.hpp>

#include "core/format_text.hpp"
#include "eval/run/prompts.hpp"
#include "model/reproducible.hpp"

namespace steer::eval::detail {
namespace {

ResultRow result_of(const Task& task) {
  return {.arm = task.arm->name,
          .behaviour = task.behaviour ? task.behaviour->name : "",
          .question = task.question->id,
          .gold = task.question->gold()};
}

void add_audit(ResultRow& result, const SteeringAudit& audit) {
  if (audit.edits.empty()) return;
  double seen = 0, edited = 0, change = 0, largest = 0;
  for (const auto& edit : audit.edits) {
    seen += static_cast<double>(edit.seen);
    edited += static_cast<double>(edit.edited);
    change += edit.mean_change * static_cast<double>(edit.edited);
    largest = std::max(largest, edit.max_change);
  }
  result.edits = {
      {"seen", seen}, {"edited", edited}, {"mean_change", edited > 0 ? change / edited : 0}, {"max_change", largest}};
}

std::string letter(std::optional<char> c) { return c ? std::string(1, *c) : std::string(); }

void read_answer(ResultRow& result, const Question& question) {
  if (question.answer < 0) return;
  const ParsedAnswer answer = parse_answer(result.response, static_cast<int>(question.choices.size()));
  result.answer = letter(answer.strict);
  result.answer_lenient = letter(answer.lenient);
}

/// NLL under the unsteered model given the plain prompt, whatever the arm's own prompt was.
void add_model_metrics(const Experiment& experiment, const Model& model, std::span<const Task> tasks,
                       const std::vector<std::vector<std::int64_t>>& prompts,
                       const std::vector<GenerateResult>& generated, std::vector<ResultRow>& results) {
  std::vector<ScoreRequest> plain, steered;
  std::vector<std::size_t> plain_row, steered_row;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (generated[i].ids.empty()) continue;
    const auto request = [&](std::vector<std::int64_t> ids) {
      const auto begin = static_cast<std::int64_t>(ids.size());
      ids.insert(ids.end(), generated[i].ids.begin(), generated[i].ids.end());
      return ScoreRequest{.ids = std::move(ids), .begin = begin, .steering = {}};
    };
    if (experiment.nll) {
      plain.push_back(request(chat_ids(model, "", user_prompt(*tasks[i].question))));
      plain_row.push_back(i);
    }
    if (experiment.kl && !tasks[i].steering.empty()) {
      steered.push_back(request(prompts[i]));
      steered.back().steering = tasks[i].steering;
      steered_row.push_back(i);
    }
  }
  if (!plain.empty()) {
    const auto scores = score_texts(model, plain);
    for (std::size_t i = 0; i < scores.size(); ++i) results[plain_row[i]].scores["nll"] = scores[i].nll();
  }
  if (!steered.empty()) {
    const auto kl = divergence_from_unsteered(model, steered);
    for (std::size_t i = 0; i < kl.size(); ++i) results[steered_row[i]].scores["kl"] = kl[i].mean;
  }
}

/// The ids a letter can be: "A" and " A", whichever the model was taught to say.
std::vector<std::vector<std::int64_t>> letter_ids(const Tokenizer& tokenizer, std::size_t choices) {
  std::vector<std::vector<std::int64_t>> ids(choices);
  for (std::size_t i = 0; i < choices; ++i) {
    const char letter = static_cast<char>('A' + i);
    for (const std::string& text : {std::string(1, letter), std::string(" ") + letter}) {
      const auto pieces = tokenizer.encode(text, {.add_special = false});
      if (pieces.size() == 1 && std::find(ids[i].begin(), ids[i].end(), pieces[0]) == ids[i].end())
        ids[i].push_back(pieces[0]);
    }
    require(!ids[i].empty(), ErrorCode::config, "run_experiment",
            "expected a tokenizer with a single token for the letter {} but it has none; "
            "use generation instead of letters",
            letter);
  }
  return ids;
}

/// What has to follow an answer that was cut off, so that the next token is its letter.
std::string closing_of(const std::string& response) {
  const auto open = [&](std::string_view tag) {
    const auto at = response.rfind(format_text("<{}>", tag));
    return at != std::string::npos && response.find(format_text("</{}>", tag), at) == std::string::npos;
  };
  if (open("answer")) return "";
  return open("thinking") ? "</thinking>\n<answer>" : "\n<answer>";
}

/// Adds "forced_correct": of answers that were cut off before their letter, whether the likeliest letter after the
/// closing tags is right, under the steering that wrote them; of all others, whether they are right.
void force_answers(const Model& model, std::span<const Task> tasks,
                   const std::vector<std::vector<std::int64_t>>& prompts, const std::vector<GenerateResult>& generated,
                   std::vector<ResultRow>& results) {
  std::vector<ScoreRequest> requests;
  std::vector<std::pair<std::size_t, std::size_t>> asked;  // row, choice
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    if (tasks[i].question->answer < 0) continue;
    results[i].scores["forced_correct"] = results[i].correct();
    if (!results[i].truncated || !results[i].answer.empty()) continue;
    auto ids = prompts[i];
    ids.insert(ids.end(), generated[i].ids.begin(), generated[i].ids.end());
    const auto closing = model.tokenizer().encode(closing_of(results[i].response), {.add_special = false});
    ids.insert(ids.end(), closing.begin(), closing.end());
    const auto letters = letter_ids(model.tokenizer(), tasks[i].question->choices.size());
    for (std::size_t c = 0; c < letters.size(); ++c)
      for (auto id : letters[c]) {
        // The text before it is scored too, alike for all letters: it counts as generated, as it was for the steering.
        ScoreRequest request{.ids = ids, .begin = static_cast<std::int64_t>(prompts[i].size()), .steering = {}};
        request.ids.push_back(id);
        if (!tasks[i].steering.empty()) request.steering = tasks[i].steering;
        requests.push_back(std::move(request));
        asked.emplace_back(i, c);
      }
  }
  if (requests.empty()) return;
  const auto scores = score_texts(model, requests);
  std::map<std::size_t, double> best;  // log-probability of each row's likeliest letter
  for (std::size_t r = 0; r < scores.size(); ++r) {
    const auto [row, is_new] = best.try_emplace(asked[r].first, scores[r].log_probability);
    row->second = std::max(row->second, scores[r].log_probability);
  }
  std::map<std::size_t, std::map<std::size_t, double>> mass;  // by row and choice, relative
  for (std::size_t r = 0; r < scores.size(); ++r)
    mass[asked[r].first][asked[r].second] += std::exp(scores[r].log_probability - best.at(asked[r].first));
  for (const auto& [row, choices] : mass) {
    const auto likeliest = std::ranges::max_element(choices, {}, [](const auto& choice) { return choice.second; });
    results[row].scores["forced_correct"] = static_cast<int>(likeliest->first) == tasks[row].question->answer;
  }
}

void add_text_metrics(ResultRow& result, bool expects_tags) {
  const TextMetrics metrics = text_metrics(result.response);
  CollapseHints hints{.expects_tags = expects_tags, .truncated = result.truncated};
  if (const auto nll = result.scores.find("nll"); nll != result.scores.end()) hints.nll = nll->second;
  result.scores["words"] = static_cast<double>(metrics.words);
  result.scores["distinct_2"] = metrics.distinct_2;
  result.scores["repetition"] = metrics.repetition;
  result.scores["compression"] = metrics.compression_ratio;
  result.scores["collapse"] = collapse_screen(result.response, metrics, hints).score;
}

}  // namespace

std::vector<std::int64_t> prompt_of(const Model& model, const Task& task, AnswerMode mode) {
  const std::string system = task.behaviour ? system_of(*task.arm, *task.behaviour) : "";
  return chat_ids(model, system,
                  mode == AnswerMode::letters ? letter_prompt(*task.question) : user_prompt(*task.question));
}

std::vector<ResultRow> take_answers(const Experiment& experiment, const Model& model, std::span<const Task> tasks,
                                    std::int64_t batch, const std::function<bool()>& stop) {
  std::vector<GenerateRequest> requests;
  std::vector<std::vector<std::int64_t>> prompts;
  for (const auto& task : tasks) {
    prompts.push_back(prompt_of(model, task, AnswerMode::generate));
    const std::string drawn_for = (task.behaviour ? task.behaviour->name : "") + "|" + task.question->id;
    GenerateRequest request{.ids = prompts.back(), .steering = {}, .seed = derive_seed(experiment.seed, drawn_for)};
    if (!task.steering.empty()) request.steering = task.steering;
    requests.push_back(std::move(request));
  }
  GenerateOptions options;
  options.sampling = experiment.sampling;
  options.max_tokens = experiment.max_tokens;
  options.batch = batch;
  if (stop)
    options.on_token = [&](const TokenEvent&) {
      require(
          !stop(), ErrorCode::cancelled, "run_experiment",
          "expected to finish but was told to stop; earlier answers are kept, start again with the same settings to "
          "go on");
      return true;
    };
  const auto generated = generate(model, requests, options);
  std::vector<ResultRow> results;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    ResultRow result = result_of(tasks[i]);
    result.response = generated[i].text;
    result.tokens = static_cast<std::int64_t>(generated[i].ids.size());
    result.truncated = generated[i].finish == FinishReason::length || generated[i].finish == FinishReason::context;
    read_answer(result, *tasks[i].question);
    add_audit(result, generated[i].audit);
    results.push_back(std::move(result));
  }
  if (experiment.force_answers) force_answers(model, tasks, prompts, generated, results);
  if (experiment.nll || experiment.kl) add_model_metrics(experiment, model, tasks, prompts, generated, results);
  for (std::size_t i = 0; i < tasks.size(); ++i) add_text_metrics(results[i], tasks[i].question->answer >= 0);
  return results;
}

std::vector<ResultRow> take_letters(const Model& model, std::span<const Task> tasks) {
  // Arms that share a prompt differ from the lowest steered layer on: below it each prompt is computed once.
  std::map<std::vector<std::int64_t>, std::size_t> group_of;
  std::vector<std::vector<std::int64_t>> prompts;
  std::vector<std::size_t> group;
  std::int64_t first = model.config().n_layers - 1;
  bool steered = false;
  for (const auto& task : tasks) {
    auto ids = prompt_of(model, task, AnswerMode::letters);
    const auto [entry, is_new] = group_of.try_emplace(ids, prompts.size());
    if (is_new) prompts.push_back(std::move(ids));
    group.push_back(entry->second);
    if (const auto layer = task.steering.first_layer()) {
      first = std::min(first, *layer);
      steered = true;
    }
  }
  Session session(model, model::detail::reproducible(model));
  std::vector<StepInput> inputs;
  at::Tensor logits;
  if (!steered) {
    for (const auto& ids : prompts) inputs.push_back({session.open(), ids, Phase::prompt});
    logits = session.step(inputs).index_select(
        0, at::tensor(std::vector<std::int64_t>(group.begin(), group.end())).to(model.device()));
  } else if (first == 0) {
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      inputs.push_back({session.open({.steering = tasks[i].steering}), prompts[group[i]], Phase::prompt});
    }
    logits = session.step(inputs);
  } else {
    std::vector<StepInput> shared;
    for (const auto& ids : prompts) shared.push_back({session.open(), ids, Phase::prompt});
    std::vector<at::Tensor> chunks;
    {
      const auto record = session.hook(HookPoint{Site::resid_post, first - 1},
                                       [&](HookContext& at) { chunks.push_back(at.value.to(at::kFloat, false, true)); },
                                       {.read_only = true});
      session.step(shared, Logits::none, {.first = 0, .last = first, .residual = {}});
    }
    std::vector<std::int64_t> sizes;
    for (const auto& ids : prompts) sizes.push_back(static_cast<std::int64_t>(ids.size()));
    const auto residuals = at::cat(chunks).split_with_sizes(sizes);
    std::vector<at::Tensor> above;
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      const SequenceId sequence =
          session.fork(shared[group[i]].sequence, {.below_layer = first, .steering = tasks[i].steering});
      inputs.push_back({sequence, prompts[group[i]], Phase::prompt});
      above.push_back(residuals[group[i]]);
    }
    logits = session.step(inputs, Logits::last, {.first = first, .last = -1, .residual = at::cat(above)});
  }
  const at::Tensor probabilities = logits.softmax(-1).cpu().contiguous();
  const float* p = probabilities.data_ptr<float>();
  std::vector<ResultRow> results;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    ResultRow result = result_of(tasks[i]);
    require(tasks[i].question->answer >= 0, ErrorCode::argument, "run_experiment",
            "expected questions with choices for letters but \"{}\" has none", tasks[i].question->id);
    const auto ids = letter_ids(model.tokenizer(), tasks[i].question->choices.size());
    std::vector<double> mass(ids.size(), 0.0);
    double total = 0;
    for (std::size_t c = 0; c < ids.size(); ++c)
      for (auto id : ids[c]) mass[c] += p[static_cast<std::int64_t>(i) * probabilities.size(1) + id];
    for (double m : mass) total += m;
    const auto best = static_cast<std::size_t>(std::max_element(mass.begin(), mass.end()) - mass.begin());
    result.answer = result.answer_lenient = std::string(1, static_cast<char>('A' + best));
    result.scores["p_letters"] = total;
    result.scores["p_gold"] = total > 0 ? mass[static_cast<std::size_t>(tasks[i].question->answer)] / total : 0;
    add_audit(result, steered ? session.audit(inputs[i].sequence) : SteeringAudit{});
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace steer::eval::detail
