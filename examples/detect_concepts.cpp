// Which direction tells texts with a concept from texts without? AUROC on held-out texts, no judge needed: the concept
// detection of AxBench (arXiv 2501.17148). Reads JSON lines with "output", "output_concept" and "category" ("positive"
// or "negative"), one file to fit and one to test; AxBench's concept10 is Parquet, from which
//
//   python -c "import pandas as p, sys; p.read_parquet(sys.argv[1]).to_json(sys.argv[2], orient='records', lines=True)"
//
// makes them. A text's score is the largest over its tokens.
//
//   detect_concepts --model gemma-2-2b-it --sae sae --fit train.jsonl --test test.jsonl

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mv.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <steer/core/error.hpp>
#include <steer/features/activations.hpp>
#include <steer/stats/statistics.hpp>

namespace {

struct Settings {
  std::string model = "examples/data/demo", sae, point, fit, test;
  std::int64_t tokens = 128;
};

/// Texts of one concept.
struct Texts {
  std::vector<steer::TokenizedText> texts;
  std::vector<std::uint8_t> positive;
};

std::map<std::string, Texts> read(const std::string& path, const steer::Model& model, std::int64_t tokens) {
  std::ifstream file(path);
  std::map<std::string, Texts> concepts;
  std::string line;
  for (std::int64_t number = 1; std::getline(file, line); ++number) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    const bool whole = json.is_object() && json.contains("output") && json["output"].is_string() &&
                       json.contains("output_concept") && json["output_concept"].is_string() &&
                       json.contains("category") && json["category"].is_string();
    steer::require(whole, steer::ErrorCode::format, "detect_concepts",
                   "expected \"output\", \"output_concept\" and \"category\" in line {} of {}", number, path);
    auto ids = model.tokenizer().encode(json["output"].get<std::string>());
    if (ids.size() < 2) continue;
    ids.resize(std::min(ids.size(), static_cast<std::size_t>(tokens)));
    auto& found = concepts[json["output_concept"]];
    found.texts.push_back({.ids = std::move(ids)});
    found.positive.push_back(json["category"] == "positive");
  }
  return concepts;
}

/// Residuals [tokens, width] of each text at a place.
std::vector<at::Tensor> residuals(steer::Session& session, const steer::HookPoint& point, const Texts& of) {
  std::vector<at::Tensor> rows(of.texts.size());
  steer::visit_activations(session, point, of.texts,
                           [&](std::size_t i, const at::Tensor& x) { rows[i] = x.cpu().clone(); });
  return rows;
}

/// Mean over all tokens of texts with the concept less that of texts without (DiffMean).
at::Tensor difference(const std::vector<at::Tensor>& rows, const std::vector<std::uint8_t>& positive) {
  std::vector<at::Tensor> with, without;
  for (std::size_t i = 0; i < rows.size(); ++i) (positive[i] ? with : without).push_back(rows[i]);
  steer::require(!with.empty() && !without.empty(), steer::ErrorCode::argument, "detect_concepts",
                 "expected texts with and without each concept");
  return at::cat(with).mean(0) - at::cat(without).mean(0);
}

double area(const std::vector<at::Tensor>& rows, const std::vector<std::uint8_t>& positive, const at::Tensor& v) {
  std::vector<double> scores;
  for (const auto& x : rows) scores.push_back(at::mv(x, v).max().item<double>());
  return steer::auroc(scores, positive);
}

/// The feature that tells the texts best. @param features  [texts, d_sae], the largest over tokens.
std::int64_t best_feature(const at::Tensor& features, const std::vector<std::uint8_t>& positive) {
  const at::Tensor columns = features.t().contiguous();
  const auto texts = static_cast<std::size_t>(columns.size(1));
  std::int64_t best = 0;
  double most = -1;
  for (std::int64_t f = 0; f < columns.size(0); ++f) {
    const float* values = columns.const_data_ptr<float>() + f * columns.size(1);
    const double found = steer::auroc(std::vector<double>(values, values + texts), positive);
    if (found > most) most = found, best = f;
  }
  return best;
}

void run(const Settings& s) {
  const auto model = steer::Model::load(s.model);
  std::optional<steer::Sae> sae;
  if (!s.sae.empty()) sae = steer::Sae::load(s.sae);
  steer::require(sae || !s.point.empty(), steer::ErrorCode::argument, "detect_concepts", "expected --sae or --point");
  const auto point = s.point.empty() ? steer::sae_point(model, *sae) : steer::HookPoint::parse(s.point);
  steer::Session session(model);
  const auto fit = read(s.fit, model, s.tokens), test = read(s.test, model, s.tokens);
  fmt::print("{:<40} {:>6} {:>10} {:>10}  feature\n", "concept", "texts", "DiffMean", "SAE");
  std::vector<double> by_difference, by_feature;
  for (const auto& [name, texts] : test) {
    const auto learnt = fit.find(name);
    if (learnt == fit.end()) continue;
    const auto v = difference(residuals(session, point, learnt->second), learnt->second.positive);
    by_difference.push_back(area(residuals(session, point, texts), texts.positive, v));
    std::string shown = "-", which;
    if (sae) {
      using enum steer::Pooling;
      const auto feature =
          best_feature(steer::pooled_features(session, *sae, learnt->second.texts, max), learnt->second.positive);
      const at::Tensor column = steer::pooled_features(session, *sae, texts.texts, max).select(1, feature).contiguous();
      const float* values = column.const_data_ptr<float>();
      by_feature.push_back(steer::auroc(std::vector<double>(values, values + texts.texts.size()), texts.positive));
      shown = fmt::format("{:.3f}", by_feature.back());
      which = std::to_string(feature);
    }
    fmt::print("{:<40} {:>6} {:>10.3f} {:>10}  {}\n", name.substr(0, 40), texts.texts.size(), by_difference.back(),
               shown, which);
  }
  steer::require(!by_difference.empty(), steer::ErrorCode::argument, "detect_concepts",
                 "expected a concept that is in both files");
  const auto mean = [](const std::vector<double>& areas) {
    if (areas.empty()) return std::string("-");
    const auto all = steer::summarize(areas);
    const auto within = steer::mean_interval(all);
    return areas.size() < 2 ? fmt::format("{:.3f}", all.mean)
                            : fmt::format("{:.3f} [{:.3f}, {:.3f}]", all.mean, within.low, within.high);
  };
  fmt::print("mean AUROC over {} concepts at {}: DiffMean {}, SAE {}\n", by_difference.size(), point.name(),
             mean(by_difference), mean(by_feature));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Which direction tells texts with a concept from texts without?");
  Settings s;
  app.add_option("--model", s.model, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("--sae", s.sae, "its best feature competes too");
  app.add_option("--point", s.point, "where to read, e.g. blocks.12.hook_resid_post; default: where the SAE reads");
  app.add_option("--fit", s.fit, "JSON lines that directions are made from")->required()->check(CLI::ExistingFile);
  app.add_option("--test", s.test, "JSON lines they are measured on")->required()->check(CLI::ExistingFile);
  app.add_option("--tokens", s.tokens, "of each text, at most")->check(CLI::Range(2, 100000))->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    run(s);
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
