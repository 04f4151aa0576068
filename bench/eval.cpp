// Answers multiple-choice questions by letters under several arms, a repetition a line, so that bench/peers/run_eval.py
// can alternate it with the same work in Hugging Face transformers.
//
//   bench/eval MODEL_FOLDER TOKENIZER_FOLDER MMLU_FOLDER WORK_FOLDER [THREADS [LAYER]]
//
// Six arms: control, a system prompt, and four edits of an SAE's features after a layer, the middle one. Writes the SAE
// (random, 16 features a unit of width) and every prompt's ids to WORK_FOLDER for the peer, then reads lines and
// answers each with one JSON line:
//   letters BEGIN COUNT   the questions [BEGIN, BEGIN + COUNT) under all arms: seconds, rows, tokens, p_gold of every
//                         row
//   engine BEGIN COUNT REPEATS   the same letters as rows of an engine and as above, in turn: how many times as long
//                         the engine takes, median and quartiles
//   limits                GEMM speed of this machine now
// Uses the engine of `run_experiment` in letters mode, below its journal.

#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <steer/core/threads.hpp>
#include <steer/eval/experiment.hpp>
#include <steer/generate/score.hpp>
#include <steer/io/tensor_reader.hpp>
#include <string>
#include <vector>

#include "eval/run/answers.hpp"
#include "limits.hpp"

namespace {

using namespace steer;

Model load(const std::filesystem::path& folder, const std::filesystem::path& tokenizer) {
  std::ifstream file(folder / "config.json");
  return Model::from_tensors(ModelConfig::from_hugging_face(nlohmann::json::parse(file)), *open_tensors(folder), {},
                             Tokenizer::load(tokenizer));
}

/// Random unit rows, tied: what matters here is the arithmetic.
Sae random_sae(std::int64_t width, std::int64_t layer) {
  at::manual_seed(7);
  at::Tensor rows = at::randn({16 * width, width});
  rows = rows / rows.norm(2, {1}, true);
  SaeConfig config;
  config.hook_in = config.hook_out = HookPoint{Site::resid_post, layer};
  config.hook_name = config.hook_in->name();
  return Sae::from_weights(config, {.W_enc = rows.t().contiguous(),
                                    .b_enc = at::full({16 * width}, -0.1),
                                    .W_dec = rows,
                                    .b_dec = at::zeros({width})});
}

struct Edited {
  const char* kind;  ///< as the peer names it
  std::vector<std::int64_t> features;
  double value;
};

const std::vector<Edited>& edited() {
  static const std::vector<Edited> all{
      {"nudge", {0, 7, 14}, 0.8}, {"nudge", {21, 28, 35}, -0.8}, {"pin", {42, 49, 56}, 1.2}, {"pin", {63, 70, 77}, 0}};
  return all;
}

std::vector<Arm> arms(const Sae& sae) {
  std::vector<Arm> out{Arm::control(), Arm::prompt()};
  for (std::size_t i = 0; i < edited().size(); ++i) {
    Steering steering;
    const Scope everywhere{.include_bos = true};  // as the peer's hooks
    for (auto feature : edited()[i].features)
      if (edited()[i].kind == std::string("nudge"))
        steering.nudge(sae, feature, edited()[i].value, {.scope = everywhere});
      else
        steering.pin(sae, feature, edited()[i].value, {.scope = everywhere});
    out.push_back(Arm::steered(fmt::format("edit {}", i), {{"", steering}}));
  }
  return out;
}

/// The same probabilities on the engine: of each row the log-probability of one letter behind its prompt.
std::vector<ScoreRequest> engine_rows(std::span<const eval::detail::Task> tasks, const nlohmann::json& rows,
                                      std::size_t begin, std::int64_t letter) {
  std::vector<ScoreRequest> requests;
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    ScoreRequest request;
    request.ids = rows[begin + i]["ids"].get<std::vector<std::int64_t>>();
    request.begin = static_cast<std::int64_t>(request.ids.size());
    request.ids.push_back(letter);
    if (!tasks[i].steering.empty()) request.steering = tasks[i].steering;
    requests.push_back(std::move(request));
  }
  return requests;
}

nlohmann::json quartiles(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {{"low", values[values.size() / 4]},
          {"median", values[values.size() / 2]},
          {"high", values[values.size() * 3 / 4]}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    fmt::print(stderr, "usage: bench/eval MODEL_FOLDER TOKENIZER_FOLDER MMLU_FOLDER WORK_FOLDER [THREADS [LAYER]]\n");
    return 2;
  }
  set_threads(argc > 5 ? std::atoi(argv[5]) : 0);
  const Model model = load(argv[1], argv[2]);
  const std::filesystem::path work = argv[4];
  std::filesystem::create_directories(work);
  const std::int64_t layer = argc > 6 ? std::atoi(argv[6]) : model.config().n_layers / 2 - 1;
  const Sae sae = random_sae(model.config().d_model, layer);
  sae.save(work / "sae");
  const auto questions = load_mmlu(argv[3]);
  const auto conditions = arms(sae);
  const Behaviour behaviour = study_behaviours().front();
  std::vector<eval::detail::Task> tasks;
  nlohmann::json rows = nlohmann::json::array(), edits = nlohmann::json::array();
  for (const auto& question : questions)
    for (const auto& arm : conditions) {
      eval::detail::Task task{&arm, &behaviour, &question};
      if (arm.source) task.steering = arm.apply(arm.source->find(model, behaviour).steering, behaviour);
      rows.push_back({{"ids", eval::detail::prompt_of(model, task, AnswerMode::letters)}, {"gold", question.answer}});
      tasks.push_back(std::move(task));
    }
  for (const auto& e : edited()) edits.push_back({{"kind", e.kind}, {"features", e.features}, {"value", e.value}});
  std::vector<std::vector<std::int64_t>> letters;
  for (char c = 'A'; c <= 'D'; ++c) {
    letters.emplace_back();
    for (const std::string& text : {std::string(1, c), std::string(" ") + c})
      if (const auto ids = model.tokenizer().encode(text, {.add_special = false}); ids.size() == 1)
        letters.back().push_back(ids[0]);
  }
  std::ofstream(work / "work.json") << nlohmann::json{
      {"arms", conditions.size()}, {"layer", layer}, {"edits", edits}, {"letters", letters}, {"rows", rows}};
  fmt::print(
      "{}\n",
      nlohmann::json{{"questions", questions.size()}, {"arms", conditions.size()}, {"features", sae.d_sae()}}.dump());
  std::fflush(stdout);

  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string what;
    std::size_t begin = 0, count = 0;
    words >> what >> begin >> count;
    nlohmann::json answer;
    if (what == "letters") {
      const auto per = conditions.size();
      const auto some = std::span(tasks).subspan(begin * per, count * per);
      std::vector<ResultRow> results;
      answer["seconds"] = bench::seconds([&] { results = eval::detail::take_letters(model, some); });
      std::size_t tokens = 0;
      for (std::size_t i = begin * per; i < (begin + count) * per; ++i) tokens += rows[i]["ids"].size();
      answer["tokens"] = tokens;
      for (const auto& result : results) answer["p_gold"].push_back(result.scores.at("p_gold"));
    } else if (what == "engine") {
      std::size_t repeats = 7;
      words >> repeats;
      const auto some = std::span(tasks).subspan(begin * conditions.size(), count * conditions.size());
      const auto requests = engine_rows(some, rows, begin * conditions.size(), letters[0].at(0));
      std::vector<double> ratios;
      for (std::size_t i = 0; i <= repeats; ++i) {
        const double shared = bench::seconds([&] { eval::detail::take_letters(model, some); });
        const double engine = bench::seconds([&] { score_texts(model, requests); });
        if (i > 0) ratios.push_back(engine / shared);  // the first warms
      }
      answer["engine over shared layers"] = quartiles(std::move(ratios));
    } else if (what == "limits") {
      answer["gemm_flops"] = bench::measure_gemm_limit();
    } else {
      break;
    }
    fmt::print("{}\n", answer.dump());
    std::fflush(stdout);
  }
}
