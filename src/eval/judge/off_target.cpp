#include <steer/eval/off_target.hpp>

#include <algorithm>
#include <cmath>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "core/format_text.hpp"
#include "eval/report/report_parts.hpp"

namespace steer {
namespace {

/// Scores of answers under behaviours, each judged once.
class Scores {
 public:
  Scores(const std::map<std::string, std::string>& prompts, Judge& judge) : prompts_(prompts), judge_(judge) {}

  void want(const ResultRow& row, const Behaviour& behaviour) {
    const auto prompt = prompts_.find(row.question);
    require(prompt != prompts_.end(), ErrorCode::argument, "off_target", "expected the text of the question \"{}\"",
            row.question);
    const auto [entry, is_new] = place_.try_emplace({&row, &behaviour}, requests_.size());
    if (is_new) requests_.push_back({prompt->second, row.response, &behaviour});
  }
  void judge() { judgements_ = judge_.judge(Rubric::behaviour, requests_); }
  std::optional<double> of(const ResultRow& row, const Behaviour& behaviour) const {
    return judgements_.at(place_.at({&row, &behaviour})).score;
  }

 private:
  const std::map<std::string, std::string>& prompts_;
  Judge& judge_;
  std::map<std::pair<const ResultRow*, const Behaviour*>, std::size_t> place_;
  std::vector<JudgeRequest> requests_;
  std::vector<Judgement> judgements_;
};

struct Pair {
  const ResultRow *row, *base;
  std::int64_t cluster;
};

}  // namespace

std::string OffTarget::markdown() const {
  const double tests = static_cast<double>(behaviours.size() * behaviours.size());
  std::string text = format_text("| {}: asked for |", arm), rule = "|---|";
  for (const auto& name : behaviours) text += " " + name + " |", rule += "---|";
  text += "\n" + rule + "\n";
  for (std::size_t asked = 0; asked < behaviours.size(); ++asked) {
    text += "| " + behaviours[asked] + " |";
    for (std::size_t shown = 0; shown < behaviours.size(); ++shown) {
      const ClusteredMean& cell = rise[asked][shown];
      const std::string mean =
          cell.n == 0 ? "-" : eval::detail::signed_number(cell.mean, 2) + (cell.p * tests < 0.05 ? "*" : "");
      text += asked == shown ? " **" + mean + "** |" : " " + mean + " |";
    }
    text += "\n";
  }
  return text;
}

std::vector<OffTarget> off_target(std::span<const ResultRow> results, const std::map<std::string, std::string>& prompts,
                                  const std::vector<Behaviour>& behaviours, Judge& judge,
                                  const OffTargetOptions& options) {
  std::vector<const Behaviour*> judged;
  for (const auto& behaviour : behaviours)
    if (!behaviour.rule) judged.push_back(&behaviour);
  std::map<std::pair<std::string, std::string>, const ResultRow*> base;
  std::vector<std::string> arms;
  std::map<std::string, std::int64_t> questions;
  for (const auto& row : results) {
    questions.try_emplace(row.question, static_cast<std::int64_t>(questions.size()));
    if (row.arm == options.baseline)
      base[{row.behaviour, row.question}] = &row;
    else if (std::find(arms.begin(), arms.end(), row.arm) == arms.end())
      arms.push_back(row.arm);
  }
  std::map<std::pair<std::string, std::string>, std::vector<Pair>> pairs;  // by arm and behaviour asked for
  for (const auto& row : results)
    if (const auto found = base.find({row.behaviour, row.question}); row.arm != options.baseline && found != base.end())
      pairs[{row.arm, row.behaviour}].push_back({&row, found->second, questions.at(row.question)});
  Scores scores(prompts, judge);
  for (auto& [cell, some] : pairs) {
    Rng rng(derive_seed(options.seed, "off-target " + cell.second));  // the same questions for all arms
    std::sort(some.begin(), some.end(), [](const Pair& a, const Pair& b) { return a.row->question < b.row->question; });
    rng.shuffle(some);
    some.resize(
        std::min<std::size_t>(some.size(), static_cast<std::size_t>(std::max<std::int64_t>(options.questions, 0))));
    for (const auto& pair : some)
      for (const auto* behaviour : judged) scores.want(*pair.row, *behaviour), scores.want(*pair.base, *behaviour);
  }
  scores.judge();
  std::vector<OffTarget> tables;
  for (const auto& arm : arms) {
    OffTarget table{.arm = arm, .behaviours = {}, .rise = {}};
    for (const auto* asked : judged) {
      table.behaviours.push_back(asked->name);
      auto& line = table.rise.emplace_back();
      for (const auto* shown : judged) {
        std::vector<double> differences;
        std::vector<std::int64_t> clusters;
        for (const auto& pair : pairs[{arm, asked->name}]) {
          const auto ours = scores.of(*pair.row, *shown), theirs = scores.of(*pair.base, *shown);
          if (!ours || !theirs) continue;
          differences.push_back(*ours - *theirs);
          clusters.push_back(pair.cluster);
        }
        line.push_back(clustered_mean(differences, clusters));
      }
    }
    tables.push_back(std::move(table));
  }
  return tables;
}

}  // namespace steer
