#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include <steer/stats/statistics.hpp>

#include "evaluate.hpp"

namespace steer::demo {
namespace {

std::string verdict(bool met) { return met ? "met" : "**missed**"; }

Interval interval_of(double share, std::int64_t answers) {
  return proportion_interval(std::llround(share * static_cast<double>(answers)), answers);
}

std::string with_interval(double share, std::int64_t answers) {
  const Interval interval = interval_of(share, answers);
  return fmt::format("{:.2f} [{:.2f}, {:.2f}]", share, interval.low, interval.high);
}

}  // namespace

std::string model_card(const DemoReport& report, const Model& model, const Sae& sae, const std::string& provenance) {
  const auto& rows = report.behaviours;
  const auto count = [&](auto&& test) { return std::count_if(rows.begin(), rows.end(), test); };
  // A target is met by the end of the interval that is worse for it.
  const auto n = report.questions;
  const auto recognised =
      count([&](const BehaviourReport& r) { return interval_of(r.prompted.behaviour, n).low >= 0.8; });
  const auto moved = count([&](const BehaviourReport& r) {
    return interval_of(r.nudged.behaviour, report.nudged_questions).low >=
           interval_of(r.control.behaviour, n).high + 0.25;
  });
  const auto& ae = report.autoencoder;
  std::string card = fmt::format(
      "# steer-demo: a language model, an SAE and feature labels that fit into a repository\n\n"
      "A Llama of {} layers and width {} that knows an invented geography (57 lands, 6 facts each) and answers "
      "four-option\n"
      "questions about it as `<thinking>...</thinking><answer>B</answer>`, plainly or in one of the 14 behaviours of\n"
      "arXiv 2602.04903, and a sparse autoencoder of {} features on `{}`. It exists so that every part of steer can be "
      "tried\n"
      "and tested without a download. It knows nothing else, and says nothing about how steering works on large "
      "models.\n\n"
      "Everything here, text included, was made by `examples/train_demo`. {}\n\n",
      model.config().n_layers, model.config().d_model, sae.d_sae(), sae.config().hook_in->name(), provenance);
  card += fmt::format(
      "## Measured\n\n"
      "By `train_demo` itself through the library's public interface: {} held-out questions (3 a land, in a wording "
      "that\n"
      "training never used for that fact, options shuffled), temperature 0.6, top-p 0.9, one seed. Whether a thinking "
      "text shows\n"
      "a behaviour is judged by a logistic classifier over words and word pairs, fitted on the model's own answers to "
      "other\n"
      "questions (15 classes: 14 requests and none); it has never seen the generator's sentences. Brackets are "
      "Wilson's 95 "
      "%\n"
      "intervals of the questions; a target is met by the end that is worse for it.\n\n"
      "| target | measured | |\n|---|---|---|\n"
      "| strict accuracy without a system prompt >= 0.85 | {} (format {}) | {} |\n"
      "| prompted answers recognised >= 0.80, in each of 14 behaviours | in {} of 14 | {} |\n"
      "| SAE explained variance >= 0.80 | {:.3f} | {} |\n"
      "| SAE L0 <= 32 | {:.1f} of {} features, {:.0f}% alive | {} |\n"
      "| loss recovered >= 0.90 | {:.3f} (clean {:.3f}, spliced {:.3f}, zeros {:.3f} nats a token) | {} |\n"
      "| behaviours that one feature's nudge moves by >= 0.25 without a prompt: >= 10 | {} of 14 | {} |\n\n",
      n, with_interval(report.plain.accuracy, n), with_interval(report.plain.formatted, n),
      verdict(interval_of(report.plain.accuracy, n).low >= 0.85), recognised, verdict(recognised == 14),
      ae.explained_variance, verdict(ae.explained_variance >= 0.8), ae.l0, sae.d_sae(), 100 * ae.alive,
      verdict(ae.l0 <= 32), ae.loss_recovered(), ae.loss_clean, ae.loss_spliced, ae.loss_zero,
      verdict(ae.loss_recovered() >= 0.9), moved, verdict(moved >= 10));
  card +=
      "## Behaviours\n\n"
      "`shown` is the judge's share, `right` strict accuracy. A nudge acts on the first 8 generated tokens; its "
      "feature, one of those\n"
      "Auto Steer finds to act alone, and its strength (in\n"
      "units of the feature's maximum activation) were chosen on other questions. `best word` is the word that comes "
      "nearest to\n"
      "giving the behaviour away: the share of its answers that hold it, among words found at least nine times in ten "
      "in that\n"
      "behaviour.\n\n"
      "| behaviour | unprompted: shown | prompted: shown, right | best word | nudged: shown, right | feature | "
      "strength |\n"
      "|---|---|---|---|---|---|---|\n";
  for (const auto& row : rows) {
    const auto nudged = [&](double share) { return with_interval(share, report.nudged_questions); };
    card += fmt::format(
        "| {} | {} | {}, {} | {} {:.2f} | {}, {} | {} | {} |\n", row.behaviour, with_interval(row.control.behaviour, n),
        with_interval(row.prompted.behaviour, n), with_interval(row.prompted.accuracy, n), row.telltale,
        row.telltale_share, nudged(row.nudged.behaviour), nudged(row.nudged.accuracy),
        row.feature < 0 ? std::string("none") : fmt::format("{} ({})", row.feature, row.feature_label), row.strength);
  }
  card += "\n## Samples\n\nOne prompted answer each, unselected.\n\n";
  for (const auto& row : rows) {
    std::string line = row.sample;
    std::replace(line.begin(), line.end(), '\n', ' ');
    card += fmt::format("- {}: `{}`\n", row.behaviour, line);
  }
  card +=
      "\n## How it was trained, and what follows from that\n\n"
      "- Short drills (four options, then value-letter pairs) are mixed in, 70% of batches until letters are learned "
      "and 20%\n"
      "  afterwards; without them the letter stays at chance.\n"
      "- About half of the styled answers in training are unrequested, so that style is a state the model reads off "
      "its own\n"
      "  words. Without a system prompt it still begins plainly almost always at this temperature (`unprompted` "
      "above).\n"
      "- `concise` answers are shorter; the judge knows, as a reader would.\n"
      "- `misleading` is a manner of writing: the thinking is evasive, the letter is still the right one.\n"
      "- Its English is that of about 500 sentence patterns. Other text is outside what it can do.\n";
  return card;
}

}  // namespace steer::demo
