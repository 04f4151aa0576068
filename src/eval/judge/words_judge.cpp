#include <steer/eval/words_judge.hpp>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/core/random.hpp>
#include <steer/io/journal.hpp>

#include "core/format_text.hpp"
#include "eval/run/prompts.hpp"

namespace steer {
namespace {

constexpr double kFit = 0.8;  // mean AUROC of held-out answers

/// The model's answers to questions, asked to be `behaviour` (none: not asked). What a journal has is not made again.
class Answers {
 public:
  Answers(const Model& model, const WordsJudgeOptions& options) : model_(model), options_(options) {
    if (options.journal.empty()) return;
    const auto& s = options.sampling;
    journal_.emplace(
        options.journal,
        nlohmann::json{
            {"model", model.hash()},
            {"chat_template", content_hash(model.chat().source())},
            {"sampling", {s.temperature, s.top_p, static_cast<double>(s.top_k), s.min_p, s.repetition_penalty}},
            {"max_tokens", options.max_tokens},
            {"seed", options.seed}}
            .dump());
  }

  void add(std::vector<LabelledText>& texts, std::span<const Question> questions, const Behaviour* behaviour) {
    const std::string label = behaviour ? behaviour->name : "", system = behaviour ? system_prompt(*behaviour) : "";
    std::vector<GenerateRequest> requests;
    std::vector<std::string> keys;
    const auto known = journal_ ? journal_->records() : decltype(journal_->records()){};
    std::vector<std::string> answers(questions.size());
    std::vector<std::size_t> missing;
    for (std::size_t q = 0; q < questions.size(); ++q) {
      keys.push_back(content_hash(system + '\0' + user_prompt(questions[q])));
      if (const auto found = known.find(keys[q]); found != known.end()) {
        answers[q] = nlohmann::json::parse(found->second).get<std::string>();
        continue;
      }
      requests.push_back({.ids = eval::detail::chat_ids(model_, system, user_prompt(questions[q])),
                          .seed = derive_seed(derive_seed(options_.seed, "words judge"), keys[q])});
      missing.push_back(q);
    }
    const std::string doing = "words judge: answers asked " + (label.empty() ? "nothing" : "to be " + label);
    const auto made = generate(model_, requests,
                               {.sampling = options_.sampling,
                                .max_tokens = options_.max_tokens,
                                .batch = options_.batch,
                                .progress = options_.progress.part(doing, std::ssize(requests))});
    std::vector<JournalEntry> entries;
    for (std::size_t i = 0; i < missing.size(); ++i) {
      answers[missing[i]] = made[i].text;
      entries.push_back({keys[missing[i]],
                         nlohmann::json(made[i].text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)});
    }
    if (journal_ && !entries.empty()) journal_->append(entries);
    for (std::size_t q = 0; q < questions.size(); ++q) texts.push_back({answers[q], label, questions[q].id});
  }

 private:
  const Model& model_;
  const WordsJudgeOptions& options_;
  std::optional<Journal> journal_;
};

class WordsJudge : public Judge {
 public:
  explicit WordsJudge(std::span<const LabelledText> texts) : classifier_(texts), texts_(std::ssize(texts)) {
    ContentHasher hasher;
    for (const auto& text : texts) hasher.update(text.label + '\0' + text.text + '\0');
    hash_ = hasher.hex().substr(0, 12);
  }

  std::string identity() const override {
    return format_text("words alone, fitted on {} answers that were and were not asked for ({})", texts_, hash_);
  }

  std::string caveat() const override {
    std::string weak;
    for (const auto& [label, area] : classifier_.held_out().auroc)
      if (!label.empty() && area < kFit) weak += format_text("{}{} ({:.2f})", weak.empty() ? "" : ", ", label, area);
    return format_text(
        "A behaviour's score is 1 + 4 x the probability, by words alone, that the answer was asked to be so and not to "
        "be "
        "something else: it knows the manner that asking brings about, and no other way of showing a behaviour. Of "
        "answers it had not seen it told {:.0f} % right (chance {:.0f} %); mean AUROC {:.2f}{}. Coherence is not "
        "judged",
        100 * classifier_.held_out().accuracy, 100.0 / static_cast<double>(classifier_.labels().size()), mean_auroc(),
        weak.empty() ? "" : "; it hardly tells " + weak);
  }

  std::string unfit(Rubric rubric) const override {
    if (rubric != Rubric::behaviour || mean_auroc() >= kFit) return {};
    return format_text(
        "words alone hardly tell this model's answers that were asked for a behaviour from others (mean AUROC {:.2f} "
        "on answers held out, {:g} is needed)",
        mean_auroc(), kFit);
  }

  std::string measure(Rubric rubric) const override { return rubric == Rubric::behaviour ? "behaviour" : ""; }

  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override {
    std::vector<Judgement> judgements;
    const auto& labels = classifier_.labels();
    for (const auto& request : requests) {
      if (rubric != Rubric::behaviour) {
        judgements.push_back({.failure = "words alone do not measure this"});
        continue;
      }
      require(request.behaviour, ErrorCode::argument, "words_judge", "expected a behaviour in a request");
      const auto place = std::ranges::find(labels, request.behaviour->name);
      require(place != labels.end(), ErrorCode::argument, "words_judge",
              "expected a behaviour that the judge was fitted on but got \"{}\"; give it to words_judge",
              request.behaviour->name);
      const double p = classifier_.probabilities(request.response)[static_cast<std::size_t>(place - labels.begin())];
      judgements.push_back({.score = 1 + 4 * p});
    }
    return judgements;
  }

 private:
  double mean_auroc() const {
    double sum = 0, count = 0;
    for (const auto& [label, area] : classifier_.held_out().auroc)
      if (!label.empty()) sum += area, count += 1;
    return sum / count;
  }

  WordClassifier classifier_;
  std::int64_t texts_;
  std::string hash_;
};

}  // namespace

std::shared_ptr<Judge> words_judge(const Model& model, std::span<const Question> questions,
                                   const std::vector<Behaviour>& behaviours, const WordsJudgeOptions& options) {
  require(questions.size() >= 4, ErrorCode::argument, "words_judge",
          "expected at least 4 questions that the experiment does not ask but got {}", questions.size());
  Answers answers(model, options);
  std::vector<LabelledText> texts;
  answers.add(texts, questions, nullptr);
  const std::size_t plain = texts.size();
  for (const auto& behaviour : behaviours)
    if (!behaviour.rule) answers.add(texts, questions, &behaviour);
  require(texts.size() > plain, ErrorCode::argument, "words_judge",
          "expected a behaviour to judge but got only such as a program checks");
  return std::make_shared<WordsJudge>(texts);
}

}  // namespace steer
