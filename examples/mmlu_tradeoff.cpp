// What does steering cost? Accuracy, behaviour and coherence of prompting and steering, question by question.
// The study of arXiv 2602.04903 on a model and SAE of one's own. Run it with --help.

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <steer/core/error.hpp>
#include <steer/core/random.hpp>
#include <steer/core/signals.hpp>
#include <steer/core/threads.hpp>
#include <steer/eval/auto_steer_arm.hpp>
#include <steer/eval/experiment.hpp>
#include <steer/eval/http_judge.hpp>
#include <steer/eval/model_judge.hpp>
#include <steer/eval/rules.hpp>
#include <steer/eval/words_judge.hpp>
#include <steer/stats/power.hpp>

namespace {

/// All of a run, as options and as JSON.
struct Settings {
  std::string model, sae, mmlu, questions, search_questions, behaviour_file,
      judge = "words", judge_url = "https://api.openai.com/v1", judge_model, judge_temperature = "0",
      judge_key_variable = "OPENAI_API_KEY", judge_key_header = "Authorization", pairs, calibration, mode = "generate",
      out = "tradeoff", device = "cpu", weights = "stored", compute = "f32", chat_format, adapter;
  std::vector<std::string> behaviours, rules, arms{"control", "prompt", "published", "safe", "safe+prompt", "random"},
      steer, allow_unknown_config;
  std::vector<double> sweep;
  std::int64_t judge_max_tokens = 0, per_subject = 0, limit = 0, search_prompts = 24, search_checks = 64, certify = 0,
               off_target = -1, sweep_every = 1, max_tokens = 1024, batch = 64, draws = 1;
  double temperature = 0.6, top_p = 0.9;
  std::uint64_t seed = 42;
  bool kl = false, force_answers = false;
  NLOHMANN_DEFINE_TYPE_INTRUSIVE_WITH_DEFAULT(Settings, model, sae, mmlu, questions, search_questions, behaviour_file,
                                              judge, judge_url, judge_model, judge_temperature, judge_key_variable,
                                              judge_key_header, judge_max_tokens, pairs, calibration, mode, out,
                                              behaviours, rules, arms, steer, sweep, per_subject, limit, search_prompts,
                                              search_checks, certify, off_target, sweep_every, max_tokens, batch,
                                              temperature, top_p, seed, kl, device, weights, compute, chat_format,
                                              allow_unknown_config, draws, force_answers, adapter)
};

/// Settings from a JSON file. A key that is none of ours would be a setting that is silently not made.
Settings read_settings(const std::string& path) {
  constexpr auto where = "mmlu_tradeoff";
  std::ifstream file(path);
  steer::require(file.is_open(), steer::ErrorCode::io, where,
                 "expected a readable file of settings but got \"{}\"; check the path", path);
  const auto json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  steer::require(json.is_object(), steer::ErrorCode::format, where, "expected one JSON object but got {} ({})",
                 json.is_discarded() ? "a syntax error" : json.type_name(), path);
  const auto known = nlohmann::json(Settings{});
  for (const auto& [key, value] : json.items()) {
    std::string names;
    for (const auto& [name, unused] : known.items()) names += (names.empty() ? "" : ", ") + name;
    steer::require(known.contains(key), steer::ErrorCode::config, where,
                   "expected the keys {} but got \"{}\" ({}); correct or remove it", names, key, path);
    try {
      nlohmann::json{{key, value}}.get<Settings>();
    } catch (const nlohmann::json::exception&) {
      steer::fail(steer::ErrorCode::config, where, "expected for \"{}\" a value like {} but got {} ({})", key,
                  known[key].dump(), value.dump(), path);
    }
  }
  return json.get<Settings>();
}

void add_options(CLI::App& app, Settings& s) {
  app.add_option("--model", s.model, "model: a Hugging Face folder or a GGUF file")->group("Model");
  app.add_option("--adapter", s.adapter, "folder of a LoRA adapter to merge into the model")->group("Model");
  app.add_option("--sae", s.sae, "sparse autoencoder; needed by published, safe and what is made from them")
      ->group("Model");
  app.add_option("--device", s.device, "cpu or cuda:N")->capture_default_str()->group("Model");
  app.add_option("--compute", s.compute, "what activations are rounded to: f32 (not), bf16 or int8")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16", "int8"}))
      ->group("Model");
  app.add_option("--weights", s.weights, "how weights are kept: stored, f32, bf16 or int8")
      ->capture_default_str()
      ->check(CLI::IsMember({"stored", "f32", "bf16", "int8"}))
      ->group("Model");
  app.add_option("--chat-format", s.chat_format, "in place of the model's own chat template: chatml, llama3, ...")
      ->group("Model");
  app.add_option("--allow-unknown-config", s.allow_unknown_config, "a key of config.json to ignore; may be repeated")
      ->group("Model");
  app.add_option("--mmlu", s.mmlu,
                 "MMLU folder in its original layout; asks the study's 171 questions (first 3 dev rows x 57 subjects)")
      ->group("Questions");
  app.add_option("--questions", s.questions, "questions of one's own, JSON lines (id, question, choices, answer)")
      ->group("Questions");
  app.add_option("--search-questions", s.search_questions,
                 "JSON lines that Auto Steer may use; default: MMLU test rows that are not asked")
      ->group("Questions");
  app.add_option("--search-prompts", s.search_prompts, "Auto Steer looks at answers to so many of them")
      ->check(CLI::Range(1, 24))
      ->capture_default_str()
      ->group("Questions");
  app.add_option("--search-checks", s.search_checks, "and holds a safe steering's cost against so many others")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str()
      ->group("Questions");
  app.add_option("--certify", s.certify,
                 "and proves on so many more that a safe steering costs at most 2 points, or gives it up; --plan says "
                 "how many that takes; 0: no proof")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str()
      ->group("Questions");
  app.add_option("--per-subject", s.per_subject,
                 "of --mmlu: this many test questions a subject, drawn by --seed, instead of the study's 171")
      ->group("Questions");
  app.add_option("--limit", s.limit, "ask only N of the questions, evenly spread; 0: all")->group("Questions");
  app.add_option("--behaviours", s.behaviours, "names, comma-separated; default: all")->delimiter(',')->group("Arms");
  app.add_option("--rules", s.rules,
                 "also behaviours that a program checks, as positive controls: short, exclaiming, no_digits, however")
      ->delimiter(',')
      ->group("Arms");
  app.add_option("--behaviour-file", s.behaviour_file, "behaviours of one's own, JSON")->group("Arms");
  app.add_option("--arms", s.arms,
                 "control, prompt, strong, published, safe, published+prompt, safe+prompt, random, noise, flipped; the "
                 "last three are made from safe if it is there, else from published, else from the first --steer; "
                 "NAME+prompt is --steer NAME with the prompt")
      ->delimiter(',')
      ->capture_default_str()
      ->group("Arms");
  app.add_option("--steer", s.steer, "NAME=PATH: a steering file, or a folder of <behaviour>.json, as one more arm")
      ->group("Arms");
  app.add_option("--draws", s.draws,
                 "searches repeated with as many seeds, an arm each; the report says how they differ")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str()
      ->group("Arms");
  app.add_option("--sweep", s.sweep, "strengths, e.g. 0.5,1,2: the steered arm at each")->delimiter(',')->group("Arms");
  app.add_option("--sweep-every", s.sweep_every, "the sweep answers every n-th question only")
      ->capture_default_str()
      ->group("Arms");
  app.add_option("--mode", s.mode, "generate, or letters: the likeliest letter, fast, accuracy only")
      ->capture_default_str()
      ->check(CLI::IsMember({"generate", "letters"}))
      ->group("Answers");
  app.add_option("--max-tokens", s.max_tokens, "longest answer")->capture_default_str()->group("Answers");
  app.add_option("--temperature", s.temperature, "of sampling; 0: the likeliest token")
      ->capture_default_str()
      ->group("Answers");
  app.add_option("--top-p", s.top_p, "sample among the likeliest tokens of this probability")
      ->capture_default_str()
      ->group("Answers");
  app.add_option("--seed", s.seed, "of all draws; a question has one seed a behaviour under every arm")
      ->capture_default_str()
      ->group("Answers");
  app.add_flag("--force-answers", s.force_answers,
               "also read a letter from answers that were cut off before they gave one")
      ->group("Answers");
  app.add_flag("--kl", s.kl, "also measure KL to the unsteered model")->group("Answers");
  app.add_option(
         "--judge", s.judge,
         "words: a classifier over words alone, fitted on the model's answers to --search-questions, asked for and not "
         "(behaviour only); logits: a local model is asked for a digit; http: --judge-url; evidence: how much likelier "
         "the model finds an answer under the request (no score, no verdict); none")
      ->capture_default_str()
      ->check(CLI::IsMember({"words", "evidence", "logits", "http", "none"}))
      ->group("Judge");
  app.add_option("--judge-model", s.judge_model,
                 "logits: another model than the one judged, a folder or a GGUF file; several, comma-separated, are "
                 "averaged. http: the name of the model there")
      ->group("Judge");
  app.add_option("--pairs", s.pairs,
                 "a local model that compares each answer with control's: a folder or a GGUF file, or self")
      ->group("Judge");
  app.add_option("--off-target", s.off_target,
                 "also judge which other behaviours the answers show, on so many questions of each; 0: no; default: 20 "
                 "with --judge words, which costs nothing, else 0")
      ->group("Judge");
  app.add_option("--calibration", s.calibration,
                 "of the judge, written by calibrate_judge: what it does not measure well gets no verdict")
      ->group("Judge");
  app.add_option("--judge-url", s.judge_url,
                 "OpenAI-compatible API, e.g. http://localhost:8080/v1; no key in it: that comes from the environment")
      ->capture_default_str()
      ->group("Judge");
  app.add_option("--judge-key-variable", s.judge_key_variable, "environment variable that holds the key; empty: none")
      ->capture_default_str()
      ->group("Judge");
  app.add_option("--judge-key-header", s.judge_key_header,
                 "header that carries it: Authorization (as Bearer), api-key, ...")
      ->capture_default_str()
      ->group("Judge");
  app.add_option("--judge-temperature", s.judge_temperature, "of http; none: not sent, for models that take no other")
      ->capture_default_str()
      ->group("Judge");
  app.add_option("--judge-max-tokens", s.judge_max_tokens, "of a reply over http, thought included; 0: not sent")
      ->group("Judge");
  app.add_option("--batch", s.batch, "answers computed at once")->capture_default_str()->group("Run");
  app.add_option("--out", s.out, "folder of journal, report and config.json; start again with the same one to resume")
      ->capture_default_str()
      ->group("Run");
}

std::vector<steer::Question> questions_of(const Settings& s) {
  auto questions = !s.questions.empty() ? steer::load_questions(s.questions)
                   : s.per_subject == 0
                       ? steer::load_mmlu(s.mmlu)
                       : steer::stratified_sample(steer::load_mmlu(s.mmlu, steer::Mmlu::test), s.per_subject, s.seed);
  const auto limit = static_cast<std::size_t>(std::max<std::int64_t>(s.limit, 0));
  if (limit == 0 || limit >= questions.size()) return questions;
  std::vector<steer::Question> some;
  for (std::size_t i = 0; i < limit; ++i) some.push_back(questions[i * questions.size() / limit]);
  return some;
}

std::vector<steer::Question> search_questions_of(const Settings& s, const std::vector<steer::Question>& asked) {
  auto questions = s.search_questions.empty() ? steer::load_mmlu(s.mmlu, steer::Mmlu::test)
                                              : steer::load_questions(s.search_questions);
  std::set<std::string> ids, texts;
  for (const auto& question : asked) ids.insert(question.id), texts.insert(question.text);
  std::erase_if(questions, [&](const auto& q) { return ids.contains(q.id) || texts.contains(q.text); });
  return questions;
}

std::vector<steer::Behaviour> behaviours_of(const Settings& s) {
  auto all = s.behaviour_file.empty() ? steer::study_behaviours() : steer::load_behaviours(s.behaviour_file);
  return s.behaviours.empty() ? all : steer::select_behaviours(all, s.behaviours);
}

std::vector<steer::Arm> arms_of(const Settings& s, const std::optional<steer::Model>& model,
                                const std::vector<steer::Question>& asked) {
  const auto wanted = [&](const char* name) { return std::find(s.arms.begin(), s.arms.end(), name) != s.arms.end(); };
  std::map<std::string, steer::Arm> made{
      {"control", steer::Arm::control()}, {"prompt", steer::Arm::prompt()}, {"strong", steer::Arm::strong_prompt()}};
  std::optional<steer::Sae> sae;
  std::vector<steer::Arm> repeated;  // draws after the first
  if (!s.sae.empty()) sae = steer::Sae::load(s.sae);
  if (sae) {
    steer::AutoSteerOptions options;
    if (model) {
      options = steer::search_options(*model, search_questions_of(s, asked), s.max_tokens, s.seed,
                                      {s.search_prompts, s.search_checks, s.certify});
      options.progress = steer::Progress("mmlu_tradeoff", 0).part("searches", 0);
    } else {  // a plan: there is no search, only its size
      options.prompts.resize(s.search_prompts);
      options.capability.prompts.resize(s.search_checks);
      options.certificate.questions.resize(s.certify);
    }
    for (const auto& behaviour : behaviours_of(s)) options.others.push_back(behaviour.name);
    for (std::int64_t draw = 1; draw <= s.draws; ++draw) {
      options.seed = s.seed + static_cast<std::uint64_t>(draw - 1);
      options.journal =
          std::filesystem::path(s.out) / fmt::format("search{}{}.jsonl", steer::Workers::from_environment().rank,
                                                     draw == 1 ? "" : fmt::format(".draw{}", draw));
      const auto [published, safe] = steer::auto_steer_arms(*sae, options);
      for (const auto& arm : {published, safe}) {
        if (draw > 1) {
          if (wanted(arm.name.c_str())) repeated.push_back(arm.draw(draw));
          continue;
        }
        made[arm.name] = s.draws > 1 ? arm.draw(1) : arm;
        made[arm.name + "+prompt"] = arm.with_prompt();
      }
    }
  }
  std::vector<steer::Arm> given;
  for (const auto& text : s.steer) {
    const auto cut = text.find('=');
    steer::require(cut != std::string::npos, steer::ErrorCode::argument, "mmlu_tradeoff",
                   "expected --steer NAME=PATH but got \"{}\"", text);
    given.push_back(steer::Arm::from_files(text.substr(0, cut), text.substr(cut + 1),
                                           {.saes = sae ? std::vector{*sae} : std::vector<steer::Sae>{}}));
    made[given.back().name + "+prompt"] = given.back().with_prompt();
  }
  const bool safe = wanted("safe") || wanted("safe+prompt"),
             published = wanted("published") || wanted("published+prompt");
  if (sae || !given.empty()) {
    const steer::Arm base =
        sae && (safe || published || given.empty()) ? made.at(safe ? "safe" : "published") : given.front();
    made["random"] = base.random_features(s.seed);
    made["noise"] = base.noise(s.seed);
    made["flipped"] = base.flipped();
  }
  std::vector<steer::Arm> arms;
  for (const auto& name : s.arms) {
    const auto found = made.find(name);
    steer::require(found != made.end(), steer::ErrorCode::argument, "mmlu_tradeoff",
                   "expected arms among control, prompt, strong{} but got \"{}\"{}",
                   sae ? ", published, safe, published+prompt, safe+prompt, random, noise, flipped" : "", name,
                   sae ? "" : "; arms that are steered need --sae, or steerings of your own with --steer");
    arms.push_back(found->second);
  }
  for (auto& arm : repeated) arms.push_back(std::move(arm));
  for (auto& arm : given) arms.push_back(std::move(arm));
  const auto swept = std::find_if(arms.rbegin(), arms.rend(), [](const auto& arm) {
    return arm.source && arm.asking == steer::Asking::nothing && arm.variant == steer::ArmVariant::as_given;
  });
  if (!s.sweep.empty() && swept != arms.rend())
    for (auto& arm : swept->strength_sweep(s.sweep, s.sweep_every)) arms.push_back(std::move(arm));
  return arms;
}

steer::HttpJudgeOptions http_options(const Settings& s) {
  constexpr auto where = "mmlu_tradeoff";
  steer::HttpJudgeOptions options;
  options.url = s.judge_url;
  options.model = s.judge_model;
  options.key_variable = s.judge_key_variable;
  options.key_header = s.judge_key_header;
  options.max_tokens = s.judge_max_tokens;
  options.temperature = std::nullopt;
  if (s.judge_temperature == "none") return options;
  char* end = nullptr;
  options.temperature = std::strtod(s.judge_temperature.c_str(), &end);
  steer::require(!s.judge_temperature.empty() && *end == 0, steer::ErrorCode::argument, where,
                 "expected a number or none as --judge-temperature but got \"{}\"", s.judge_temperature);
  return options;
}

/// Fitted on answers to questions that the experiment does not ask.
std::shared_ptr<steer::Judge> words_of(const Settings& s, const steer::Model& model,
                                       const std::vector<steer::Behaviour>& behaviours,
                                       const std::vector<steer::Question>& asked) {
  constexpr std::int64_t kQuestions = 24;
  auto questions = search_questions_of(s, asked);
  std::ranges::stable_sort(
      questions, {}, [&](const auto& question) { return steer::derive_seed(s.seed, "words judge " + question.id); });
  questions.resize(std::min<std::size_t>(questions.size(), kQuestions));
  return steer::words_judge(
      model, questions, behaviours,
      {.sampling = {.temperature = s.temperature, .top_p = s.top_p},
       .max_tokens = s.max_tokens,
       .batch = s.batch,
       .journal = std::filesystem::path(s.out) / fmt::format("words{}.jsonl", steer::Workers::from_environment().rank),
       .seed = s.seed,
       .progress = steer::Progress("mmlu_tradeoff", 0).part("words judge", 0)});
}

/// @param model  none: only what needs no model.
std::shared_ptr<steer::Judge> judge_of(const Settings& s, const std::optional<steer::Model>& model,
                                       const std::vector<steer::Behaviour>& behaviours,
                                       const std::vector<steer::Question>& asked) {
  if (s.mode == "letters") return nullptr;
  if (s.judge == "http") return std::make_shared<steer::HttpJudge>(http_options(s));
  steer::require(s.judge != "words" || !s.search_questions.empty() || !s.mmlu.empty(), steer::ErrorCode::argument,
                 "mmlu_tradeoff",
                 "expected questions to fit --judge words on, other than those asked: give --search-questions or "
                 "--mmlu, or choose another --judge");
  if (!model) return nullptr;
  if (s.judge == "evidence") return steer::request_evidence(*model, behaviours);
  if (s.judge == "words") return words_of(s, *model, behaviours, asked);
  if (s.judge != "logits") return nullptr;
  if (s.judge_model.empty()) return steer::logit_judge(*model);
  std::vector<std::shared_ptr<steer::Judge>> judges;
  std::istringstream paths(s.judge_model);
  for (std::string path; std::getline(paths, path, ',');)
    judges.push_back(steer::logit_judge(steer::Model::load(path, {.device = steer::parse_device(s.device)})));
  return judges.size() == 1 ? judges[0] : steer::ensemble_judge(judges);
}

/// Numbers that mean nothing would be taken for others.
void check(const Settings& s) {
  constexpr auto where = "mmlu_tradeoff";
  const auto least = [&](const char* name, double value, double smallest) {
    steer::require(value >= smallest, steer::ErrorCode::argument, where, "expected --{} of at least {:g} but got {:g}",
                   name, smallest, value);
  };
  least("limit", static_cast<double>(s.limit), 0);
  least("per-subject", static_cast<double>(s.per_subject), 0);
  least("search-prompts", static_cast<double>(s.search_prompts), 1);
  least("search-checks", static_cast<double>(s.search_checks), 1);
  least("certify", static_cast<double>(s.certify), 0);
  least("draws", static_cast<double>(s.draws), 1);
  least("sweep-every", static_cast<double>(s.sweep_every), 1);
  least("max-tokens", static_cast<double>(s.max_tokens), 1);
  least("batch", static_cast<double>(s.batch), 1);
  least("judge-max-tokens", static_cast<double>(s.judge_max_tokens), 0);
  least("temperature", s.temperature, 0);
  steer::require(s.top_p > 0 && s.top_p <= 1, steer::ErrorCode::argument, where,
                 "expected --top-p in (0, 1] but got {:g}", s.top_p);
  steer::require(s.judge != "likelihood", steer::ErrorCode::config, where,
                 "expected a judge but \"likelihood\" is none; it is \"evidence\" now, and no score");
}

steer::Experiment experiment_of(const Settings& s, const std::optional<steer::Model>& model) {
  steer::Experiment study;
  study.questions = questions_of(s);
  study.behaviours = behaviours_of(s);
  if (!s.rules.empty())
    for (const auto& rule : steer::select_behaviours(steer::rule_behaviours(), s.rules))
      study.behaviours.push_back(rule);
  study.arms = arms_of(s, model, study.questions);
  study.mode = steer::parse_enum<steer::AnswerMode>(s.mode, "mmlu_tradeoff");
  study.sampling = {.temperature = s.temperature, .top_p = s.top_p};
  study.max_tokens = s.max_tokens;
  study.seed = s.seed;
  study.kl = s.kl;
  study.force_answers = s.force_answers;
  return study;
}

/// The settings in one step: a full disk leaves what was there, not half a file.
void write_config(const std::filesystem::path& out, const Settings& s) {
  std::error_code error;
  std::filesystem::create_directories(out, error);
  const auto whole = out / "config.json", part = out / "config.json.part";
  std::ofstream file(part);
  file << nlohmann::json(s).dump(2) << '\n';
  const bool written = !error && file.flush().good();
  file.close();
  if (written)
    std::filesystem::rename(part, whole, error);
  else
    std::filesystem::remove(part, error);
  steer::require(written && !error, steer::ErrorCode::io, "mmlu_tradeoff",
                 "expected a folder that can be written but got \"{}\"; free some space or choose another --out",
                 out.string());
}

/// What so many questions can find, before any is asked.
std::string power_text(std::int64_t questions) {
  const double effect = steer::detectable_effect(questions);
  return fmt::format(
      "found with 80 % power  under one behaviour, two-sided at 5 %: a difference of {:.2f} standard deviations: "
      "{:.1f} "
      "points of\n                       accuracy where 10 % of the answers change from right to wrong or back, {:.1f} "
      "where 30 % do\n",
      effect, 100 * effect * std::sqrt(0.1), 100 * effect * std::sqrt(0.3));
}

int run(const Settings& settings, bool plan_only, int threads, const steer::StopSignals& signals) {
  check(settings);
  steer::require(!settings.model.empty() && (!settings.mmlu.empty() || !settings.questions.empty()),
                 steer::ErrorCode::argument, "mmlu_tradeoff", "expected --model and --mmlu or --questions; see --help");
  steer::set_threads(threads);
  const std::filesystem::path out = settings.out;
  steer::ExperimentOptions options{.judge = nullptr, .journal = out / "journal.jsonl", .batch = settings.batch};
  steer::LoadOptions load{.weights = steer::parse_enum<steer::WeightFormat>(settings.weights, "mmlu_tradeoff"),
                          .compute = steer::parse_enum<steer::ComputeFormat>(settings.compute, "mmlu_tradeoff"),
                          .device = steer::parse_device(settings.device),
                          .allow_unknown_config = settings.allow_unknown_config,
                          .adapter = settings.adapter};
  if (!settings.chat_format.empty())
    load.chat_format = steer::parse_enum<steer::ChatFormat>(settings.chat_format, "mmlu_tradeoff");
  const steer::Experiment planned = experiment_of(settings, std::nullopt);
  auto plan = steer::plan_experiment(settings.model, planned, options, load);
  if (plan_only) {
    steer::estimate_time(plan, settings.model, options, load);
    fmt::print("{}", plan.describe());
    if (std::ssize(planned.questions) > 1) fmt::print("{}", power_text(std::ssize(planned.questions)));
    if (settings.certify > 0)
      fmt::print("certificate            {}\n",
                 steer::certificate_plan(settings.certify, steer::CertificateSet().accuracy_loss));
    return plan.problems.empty() ? 0 : 1;
  }
  plan.require_fits();
  judge_of(settings, std::nullopt, {}, {});  // what is wrong with its settings shows before the model is loaded
  options.workers = steer::Workers::from_environment();
  // Now, before hours of work; the settings of an earlier run stay, half a file of them does not.
  if (options.workers.rank == 0 && !nlohmann::json::accept(std::ifstream(out / "config.json")))
    write_config(out, settings);
  const steer::Model model = steer::Model::load(settings.model, load);
  for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
  const steer::Experiment study = experiment_of(settings, model);
  options.judge = judge_of(settings, model, study.behaviours, study.questions);
  options.off_target = settings.off_target >= 0 ? settings.off_target : settings.judge == "words" ? 20 : 0;
  if (!settings.pairs.empty() && settings.mode != "letters")
    options.pairs = steer::pair_judge(settings.pairs == "self" ? model : steer::Model::load(settings.pairs, load));
  if (!settings.calibration.empty()) options.calibration = steer::JudgeCalibration::load(settings.calibration);
  options.stop = [&] { return signals.received() != 0; };
  options.progress = steer::Progress("mmlu_tradeoff", 0);
  const steer::Report report = steer::run_experiment(model, study, options);
  if (options.workers.rank != 0) return 0;
  write_config(out, settings);
  report.write(out / "report.html");
  for (const auto& warning : report.warnings) fmt::print(stderr, "mind: {}\n", warning);
  fmt::print("{}\n\n{}\n", report.verdict(), (out / "report.html").string());
  for (const auto& journal : report.journals) fmt::print("from {}\n", journal.string());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app(
      "What does steering cost? Every arm answers every question under every behaviour; the report shows what "
      "behaviour each gains and\n"
      "what accuracy and coherence it loses, question by question. A run that stops (or is killed) goes on where it "
      "was.\n\n"
      "  mmlu_tradeoff --model llama-8b --sae sae-l19 --mmlu data/mmlu --judge http --judge-model gpt-4o-mini --out "
      "study\n"
      "  mmlu_tradeoff --model llama-8b --mmlu data/mmlu --judge logits --judge-model qwen-32b.gguf --pairs "
      "qwen-32b.gguf\n"
      "  mmlu_tradeoff --model model.gguf --mmlu data/mmlu --arms control,prompt --mode letters --judge none\n"
      "  torchrun --nproc-per-node 2 --no-python mmlu_tradeoff --config study/config.json");
  const steer::StopSignals signals;  // Ctrl-C: stop after this step; a second one ends at once
  std::string config;
  bool plan_only = false;
  int threads = 0;
  app.add_option("--config", config, "JSON settings, e.g. config.json of an earlier run; other options override it")
      ->group("Run");
  app.add_flag("--plan", plan_only, "print what the run needs, from file headers alone, and stop")->group("Run");
  app.add_option("--threads", threads, "0: one a core")->check(CLI::NonNegativeNumber)->group("Run");
  try {
    CLI::App first;  // the file comes before the options, which override it
    first.allow_extras();
    first.set_help_flag();
    first.add_option("--config", config);
    CLI11_PARSE(first, argc, argv);
    if (!config.empty()) settings = read_settings(config);
    add_options(app, settings);
    CLI11_PARSE(app, argc, argv);
    return run(settings, plan_only, threads, signals);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return signals.received() != 0 ? signals.exit_code() : 1;
  }
}
