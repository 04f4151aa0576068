// Ways to steer, brought to the same change of the model's distributions and to the same amount of behaviour.
//
//   compare_methods --behaviours funny,technical --questions examples/data/demo/questions_dev.jsonl
//
// Directions are made from the model's own answers to some questions and measured on others. Whether an answer shows a
// behaviour is told by a classifier over words alone (WordClassifier), fitted on answers that were asked for.

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>

#include <fmt/ranges.h>
#include <CLI/CLI.hpp>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/core/random.hpp>
#include <steer/eval/answer.hpp>
#include <steer/eval/behaviours.hpp>
#include <steer/eval/questions.hpp>
#include <steer/eval/words_judge.hpp>
#include <steer/features/attribution.hpp>
#include <steer/features/contrast.hpp>
#include <steer/features/directions.hpp>
#include <steer/features/strength.hpp>
#include <steer/features/trained_vector.hpp>
#include <steer/generate/generate.hpp>
#include <steer/stats/statistics.hpp>

namespace {

using steer::Steering;

struct Settings {
  std::string model = "examples/data/demo", sae = "examples/data/demo/sae.safetensors",
              questions = "examples/data/demo/questions_dev.jsonl", mmlu, point, compute = "f32", out;
  std::vector<std::string> behaviours = {"funny", "technical", "emotional"}, others, methods;
  std::vector<double> effects = {0.1, 0.3, 1, 3};
  double shown = 0.5;
  std::int64_t fit = 32, test = 48, max_tokens = 96, train_steps = 120;
  std::uint64_t seed = 42;
};

/// What a way of steering did at one strength.
struct Row {
  double effect = 0, target = 0, other = 0, right = 0, formed = 0;  ///< KL; shares of the answers
};

/// A share of n answers in %, with its 95 % interval.
std::string percent(double share, std::size_t n) {
  const auto all = static_cast<std::int64_t>(n);
  const auto interval = steer::proportion_interval(std::llround(share * static_cast<double>(n)), all);
  return fmt::format("{:.0f} [{:.0f}, {:.0f}]", 100 * share, 100 * interval.low, 100 * interval.high);
}

class Comparison {
 public:
  explicit Comparison(const Settings& s)
      : s_(s),
        model_(steer::Model::load(s.model,
                                  {.compute = steer::parse_enum<steer::ComputeFormat>(s.compute, "compare_methods")})),
        session_(model_),
        sae_(s.sae.empty() ? std::nullopt : std::optional(steer::Sae::load(s.sae))) {
    steer::require(sae_ || !s.point.empty(), steer::ErrorCode::argument, "compare_methods",
                   "expected --sae or --point, the place to steer at");
    point_ = s.point.empty() ? steer::sae_point(model_, *sae_) : steer::HookPoint::parse(s.point);
    auto questions = s.mmlu.empty() ? steer::load_questions(s.questions) : steer::load_mmlu(s.mmlu, steer::Mmlu::dev);
    std::erase_if(questions, [](const auto& q) { return q.answer < 0; });
    // By a hash of its name: a question stays on its side whatever else is in the file.
    std::ranges::sort(questions, {}, [](const auto& q) { return steer::ContentHasher().update(q.id).hex(); });
    const auto fit = static_cast<std::size_t>(s.fit), test = static_cast<std::size_t>(s.test);
    steer::require(questions.size() >= fit + test, steer::ErrorCode::argument, "compare_methods",
                   "expected {} questions with choices but got {}; lower --fit or --test", fit + test,
                   questions.size());
    fit_.assign(questions.begin(), questions.begin() + static_cast<std::ptrdiff_t>(fit));
    test_.assign(questions.begin() + static_cast<std::ptrdiff_t>(fit),
                 questions.begin() + static_cast<std::ptrdiff_t>(fit + test));
    others_ = s.others;
    if (others_.empty())
      for (const auto& behaviour : steer::study_behaviours()) others_.push_back(behaviour.name);
    for (const auto& name : s.behaviours)
      if (std::ranges::find(others_, name) == others_.end()) others_.push_back(name);
    methods_ = chosen_methods();
  }

  void run() {
    learn();
    for (const auto& behaviour : s_.behaviours) compare(behaviour);
  }

 private:
  std::vector<std::int64_t> prompt_of(const steer::Question& question, const std::string& behaviour) const {
    std::vector<steer::Message> chat;
    if (!behaviour.empty()) chat.push_back({steer::Role::system, "When answering, please be more " + behaviour + "."});
    chat.push_back({steer::Role::user, steer::user_prompt(question)});
    return model_.chat().render(chat).ids;
  }

  std::vector<steer::GenerateResult> answer(std::span<const steer::Question> questions, const std::string& behaviour,
                                            const Steering& steering, std::string_view purpose) const {
    std::vector<steer::GenerateRequest> requests;
    for (std::size_t q = 0; q < questions.size(); ++q)
      requests.push_back({prompt_of(questions[q], behaviour), steering,
                          steer::derive_seed(steer::derive_seed(s_.seed, purpose), behaviour, q)});
    auto answers = steer::generate(
        model_, requests, {.sampling = {.temperature = 0.6, .top_p = 0.9}, .max_tokens = s_.max_tokens, .batch = 64});
    for (const auto& answer : answers)
      for (const auto& warning : answer.warnings)
        if (told_.insert(warning).second) fmt::print(stderr, "mind: {}\n", warning);
    return answers;
  }

  /// Answers after their questions, asked as `behaviour` says.
  std::vector<steer::TokenizedText> texts(const std::vector<steer::GenerateResult>& answers,
                                          const std::string& behaviour) const {
    std::vector<steer::TokenizedText> result;
    for (std::size_t i = 0; i < answers.size(); ++i) {
      if (answers[i].ids.size() < 4) continue;
      steer::TokenizedText text{.ids = prompt_of(fit_[i], behaviour)};
      text.begin = std::ssize(text.ids);
      text.ids.insert(text.ids.end(), answers[i].ids.begin(), answers[i].ids.end());
      result.push_back(std::move(text));
    }
    return result;
  }

  /// Residuals [tokens, width] of the texts' tokens that count.
  at::Tensor tokens(const std::vector<steer::TokenizedText>& texts) {
    std::vector<at::Tensor> rows;
    for (const auto& text : texts) {
      const std::string name = point_.name();
      const auto cache = session_.run_with_cache(text.ids, std::span(&name, 1),
                                                 {.logits = steer::Logits::none, .stop_after_layer = point_.layer});
      rows.push_back(cache[name].slice(0, text.begin).to(at::kFloat).cpu());
    }
    return at::cat(rows);
  }

  void learn() {
    plain_ = answer(fit_, "", {}, "plain");
    const auto plain_texts = texts(plain_, "");
    neutral_.assign(plain_texts.begin(), plain_texts.begin() + std::min<std::ptrdiff_t>(8, std::ssize(plain_texts)));
    plain_rows_ = steer::pooled_residuals(session_, point_, plain_texts);
    std::vector<steer::LabelledText> learnt;
    const auto learn_from = [&](const std::vector<steer::GenerateResult>& answers, const std::string& label) {
      for (std::size_t q = 0; q < answers.size(); ++q) learnt.push_back({answers[q].text, label, fit_[q].id});
    };
    learn_from(plain_, "");
    for (const auto& behaviour : others_) {
      asked_[behaviour] = answer(fit_, behaviour, {}, "asked");
      learn_from(asked_[behaviour], behaviour);
      rows_[behaviour] = steer::pooled_residuals(session_, point_, texts(asked_[behaviour], ""));
    }
    classifier_.emplace(learnt);
    metric_ = steer::estimate_metric(tokens(plain_texts));
    // How far the classifier can be trusted: answers it has not seen, asked for and not.
    std::int64_t right = 0, all = 0;
    for (const auto& behaviour : s_.behaviours)
      for (const auto& result : answer(test_, behaviour, {}, "check"))
        right += classifier_->classify(result.text) == behaviour, ++all;
    std::int64_t plain_right = 0;
    for (const auto& result : answer(test_, "", {}, "check")) plain_right += classifier_->classify(result.text).empty();
    fmt::print("steering at {}; words alone tell {:.0f} % of new asked-for answers and {:.0f} % of plain ones\n",
               point_.name(), 100.0 * static_cast<double>(right) / static_cast<double>(all),
               100.0 * static_cast<double>(plain_right) / static_cast<double>(test_.size()));
  }

  Row measure(const std::string& behaviour, const std::string& asking, const Steering& steering) const {
    Row row;
    const auto answers = answer(test_, asking, steering, "test");
    for (std::size_t i = 0; i < answers.size(); ++i) {
      const std::string style = classifier_->classify(answers[i].text);
      const auto letter = steer::parse_answer(answers[i].text, static_cast<int>(test_[i].choices.size())).strict;
      const double share = 1 / static_cast<double>(answers.size());
      row.target += share * (style == behaviour);
      row.other += share * (!style.empty() && style != behaviour);
      row.right += share * (letter && *letter - 'A' == test_[i].answer);
      row.formed += share * letter.has_value();
    }
    return row;
  }

  /// A way of steering towards a behaviour. Made when its turn comes, since a trained vector takes long; without edits
  /// where nothing was found.
  struct Method {
    std::string name;
    std::function<Steering(const std::string& behaviour)> make;
  };

  std::vector<Method> methods() {
    const steer::EditOptions generated{.scope = {.where = steer::Where::generated}},
        onset{.scope = {.where = steer::Where::onset, .count = 8}};
    const auto difference = [this](const std::string& b) { return rows_.at(b).mean(0) - plain_rows_.mean(0); };
    const auto after_plain = [this](const std::string& b) { return texts(asked_.at(b), ""); };
    const auto add = [=, this](const at::Tensor& v) { return Steering().add(v, point_, 1, generated); };
    std::vector<Method> all = {
        {"random direction",
         [=, this](const auto& b) {
           at::manual_seed(s_.seed);
           return add(at::randn({difference(b).size(0)}));
         }},
        {"mean difference", [=](const auto& b) { return add(difference(b)); }},
        {"mean difference, onset",
         [=, this](const auto& b) { return Steering().add(difference(b), point_, 1, onset); }},
        {"centred",
         [=, this](const auto& b) {
           std::vector<at::Tensor> others;
           for (const auto& [name, rows] : rows_)
             if (name != b) others.push_back(rows);
           return others.empty() ? Steering() : add(steer::centred_difference(rows_.at(b), others));
         }},
        {"least collateral", [=, this](const auto& b) { return add(steer::least_collateral(difference(b), metric_)); }},
        {"prompt replacement",
         [=, this](const auto& b) {
           const auto fit = steer::fit_prompt_replacement(tokens(after_plain(b)), tokens(texts(asked_.at(b), b)));
           return Steering().gated_add(fit.w, fit.b, fit.z, point_, 1, generated);
         }},
        {"trained",
         [=, this](const auto& b) {
           return add(steer::train_vector(session_, point_, after_plain(b), neutral_,
                                          {.max_kl = 0.5, .steps = s_.train_steps, .seed = s_.seed})
                          .vector);
         }},
    };
    if (!sae_) return all;
    const auto nudge = [this](std::span<const steer::FeatureValue> features, const steer::EditOptions& where) {
      Steering steering;
      for (const auto& [feature, value] : features.first(std::min<std::size_t>(3, features.size())))
        steering.nudge(*sae_, feature, value, where);
      return steering;
    };
    const auto by_contrast = [=, this](const std::string& b) -> const std::vector<steer::FeatureValue>& {
      const auto [found, is_new] = candidates_.try_emplace(b);
      auto& candidates = found->second;
      if (!is_new) return candidates;
      const auto contrasts = steer::contrast_features(steer::pooled_features(session_, *sae_, after_plain(b)),
                                                      steer::pooled_features(session_, *sae_, texts(plain_, "")),
                                                      {.limit = 24, .bootstrap = 0});
      for (const auto& c : contrasts)
        if (c.standardised > 0 && !c.always_on) candidates.push_back({c.feature, 10 * c.mean_positive});
      return candidates;
    };
    // On every token, as the hosted service did.
    all.push_back({"SAE, by contrast", [=](const auto& b) { return nudge(by_contrast(b), {}); }});
    all.push_back({"SAE, by contrast, onset", [=](const auto& b) { return nudge(by_contrast(b), onset); }});
    all.push_back({"SAE, random features", [=, this](const auto& b) { return nudge(random_features(b), {}); }});
    all.push_back({"SAE, by output score", [=, this](const auto& b) {
                     std::vector<std::vector<std::int64_t>> prompts;
                     for (std::size_t i = 0; i < 4; ++i) prompts.push_back(prompt_of(fit_[i], ""));
                     return nudge(steer::filter_by_output_score(session_, *sae_, by_contrast(b), prompts, 3),
                                  generated);
                   }});
    return all;
  }

  /// Those asked for, in the order of `methods`.
  std::vector<Method> chosen_methods() {
    auto all = methods();
    std::vector<std::string> known;
    for (const auto& method : all) known.push_back(method.name);
    for (const auto& name : s_.methods)
      steer::require(std::ranges::find(known, name) != known.end(), steer::ErrorCode::argument, "compare_methods",
                     "expected --methods among \"{}\" but got \"{}\"{}", fmt::join(known, "\", \""), name,
                     sae_ ? "" : "; those of an SAE need --sae");
    if (!s_.methods.empty())
      std::erase_if(all, [&](const auto& m) { return std::ranges::find(s_.methods, m.name) == s_.methods.end(); });
    return all;
  }

  /// Placebos of features that were chosen: three others whose decoder rows are not zero, in equal measure.
  std::vector<steer::FeatureValue> random_features(const std::string& behaviour) const {
    steer::Rng rng(steer::derive_seed(s_.seed, "random features " + behaviour));
    std::vector<steer::FeatureValue> drawn;
    for (int tries = 0; tries < 1000 && drawn.size() < 3; ++tries) {
      const auto feature = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(sae_->d_sae())));
      if (sae_->decoder_rows(std::span(&feature, 1)).norm().item<double>() > 0) drawn.push_back({feature, 1});
    }
    return drawn;
  }

  void compare(const std::string& behaviour) {
    fmt::print("\n{}: {} questions; shares in % with 95 % intervals\n{:<24} {:>6}  {:>13} {:>13} {:>13} {:>7}\n",
               behaviour, test_.size(), "method", "KL", "shown", "other", "right", "format");
    const auto print = [&](const std::string& name, const std::string& effect, const Row& row) {
      const auto n = test_.size();
      fmt::print("{:<24} {:>6}  {:>13} {:>13} {:>13} {:>7.0f}\n", name, effect, percent(row.target, n),
                 percent(row.other, n), percent(row.right, n), 100 * row.formed);
    };
    print("unsteered", "0", measure(behaviour, "", {}));
    print("prompt", "-", measure(behaviour, behaviour, {}));
    std::string matched;
    for (const auto& [name, make] : methods_) {
      const Steering steering = make(behaviour);
      if (steering.empty()) {
        fmt::print("{:<24} found nothing\n", name);
        continue;
      }
      std::vector<Row> rows;
      const auto ladder = steer::calibrate_strengths(model_, steering, s_.effects, {.texts = neutral_});
      for (const auto& step : ladder) {
        if (!step.reached) {
          fmt::print("{:<24} {}\n", name, step.reason);
          continue;
        }
        rows.push_back(measure(behaviour, "", step.steering));
        keep(name, rows.size() - 1, behaviour, step.steering);
        rows.back().effect = step.kl;
        print(name, fmt::format("{:.2g}", step.kl), rows.back());
      }
      matched += fmt::format("{:<24} {}\n", name, at_behaviour(rows));
    }
    fmt::print("at {:.0f} % shown, between the strengths measured:\n{}", 100 * s_.shown, matched);
  }

  /// As OUT/METHOD.STEP/BEHAVIOUR.json, for mmlu_tradeoff --steer.
  void keep(std::string method, std::size_t step, const std::string& behaviour, const Steering& steering) const {
    if (s_.out.empty()) return;
    for (char& c : method)
      if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
    const auto folder = std::filesystem::path(s_.out) / fmt::format("{}.{}", method, step);
    std::filesystem::create_directories(folder);
    steering.save(folder / (behaviour + ".json"));
  }

  /// What it takes to show the behaviour in the wanted share of answers.
  std::string at_behaviour(const std::vector<Row>& rows) const {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (rows[i].target < s_.shown) continue;
      if (i == 0) return fmt::format("KL below {:.2g}, right {:.0f} %", rows[0].effect, 100 * rows[0].right);
      const Row &a = rows[i - 1], &b = rows[i];
      const double share = (s_.shown - a.target) / (b.target - a.target);
      return fmt::format("KL {:.2g}, right {:.0f} %, other {:.0f} %",
                         std::exp(std::log(a.effect) + share * std::log(b.effect / a.effect)),
                         100 * (a.right + share * (b.right - a.right)), 100 * (a.other + share * (b.other - a.other)));
    }
    return "not reached";
  }

  Settings s_;
  steer::Model model_;
  steer::Session session_;
  std::optional<steer::Sae> sae_;
  mutable std::set<std::string> told_;  ///< warnings, each once
  steer::HookPoint point_;
  std::vector<steer::Question> fit_, test_;
  std::vector<std::string> others_;
  std::vector<Method> methods_;
  std::vector<steer::GenerateResult> plain_;
  std::map<std::string, std::vector<steer::GenerateResult>> asked_;
  std::map<std::string, at::Tensor> rows_;
  std::map<std::string, std::vector<steer::FeatureValue>> candidates_;  ///< of the SAE, by behaviour, once asked for
  std::vector<steer::TokenizedText> neutral_;
  at::Tensor plain_rows_;
  steer::EstimatedMetric metric_;
  std::optional<steer::WordClassifier> classifier_;
};

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  CLI::App app("Ways to steer, at equal KL and at equal behaviour");
  app.add_option("--model", s.model, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("--compute", s.compute, "what activations are rounded to: f32 (not), bf16 or int8")
      ->capture_default_str()
      ->check(CLI::IsMember({"f32", "bf16", "int8"}));
  app.add_option("--sae", s.sae, "for the methods that use one; empty: none")->capture_default_str();
  app.add_option("--point", s.point, "where to steer, e.g. blocks.12.hook_resid_post; default: where the SAE reads");
  app.add_option("--questions", s.questions, "JSON lines with choices and answers")->capture_default_str();
  app.add_option("--mmlu", s.mmlu, "MMLU folder in its original layout, in place of --questions: its dev rows");
  app.add_option("--behaviours", s.behaviours, "to compare on")->delimiter(',')->capture_default_str();
  app.add_option("--others", s.others, "to centre by and to tell apart; default: the study's 14")->delimiter(',');
  app.add_option("--methods", s.methods, "names as the table prints them, each an argument; default: all");
  app.add_option("--effects", s.effects, "95th percentiles of next-token KL to bring methods to, rising")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--shown", s.shown, "share of answers at which methods are compared")->capture_default_str();
  app.add_option("--fit", s.fit, "questions that directions are made from")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--test", s.test, "other questions, to measure on")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--max-tokens", s.max_tokens, "longest answer")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--train-steps", s.train_steps, "of the trained vector")
      ->capture_default_str()
      ->check(CLI::Range(1, 1'000'000));
  app.add_option("--out", s.out, "folder for the steerings, OUT/METHOD.STEP/BEHAVIOUR.json, steps of --effects from 0");
  app.add_option("--seed", s.seed, "of all draws")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // each method is minutes of work: shown when it is done, in pipes too
  try {
    Comparison(s).run();
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
