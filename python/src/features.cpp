// Finding features and directions: contrast, inspection, strength, Auto Steer, vectors from data.
#include <steer/core/error.hpp>
#include <steer/eval/auto_steer_arm.hpp>
#include <steer/features/activations.hpp>
#include <steer/features/attribution.hpp>
#include <steer/features/auto_steer.hpp>
#include <steer/features/contrast.hpp>
#include <steer/features/inspect.hpp>
#include <steer/features/search.hpp>
#include <steer/features/strength.hpp>
#include <steer/steering/vectors.hpp>

#include <nlohmann/json.hpp>

#include "bind.hpp"
#include "hooks.hpp"
#include "messages.hpp"

namespace steer::python {
namespace {

std::vector<TokenizedText> texts_of(const std::vector<Ids>& texts) {
  std::vector<TokenizedText> out;
  for (const Ids& ids : texts) out.push_back({.ids = ids});
  return out;
}

nb::list values_of(const std::vector<TokenEffect>& effects) {
  nb::list out;
  for (const auto& e : effects) out.append(nb::make_tuple(e.token, e.effect));
  return out;
}

}  // namespace

void bind_features(nb::module_& m) {
  m.def(
      "sae_point", [](const Model& model, const Sae& sae) { return sae_point(model, sae).name(); }, "model"_a, "sae"_a,
      "The hook point an SAE reads on a model, after checking that the two fit.");
  m.def(
      "pooled_features",
      [](Session& session, const Sae& sae, const std::vector<Ids>& texts, const std::string& pooling) {
        const Pooling how = parse_enum<Pooling>(pooling, "pooled_features");
        return without_gil([&] { return pooled_features(session, sae, texts_of(texts), how); });
      },
      "session"_a, "sae"_a, "texts"_a, "pooling"_a = "mean",
      "Feature activations pooled over each text's tokens, [texts, d_sae].");
  m.def(
      "contrast",
      [](const at::Tensor& positive, const at::Tensor& negative, std::int64_t limit, std::int64_t bootstrap,
         std::uint64_t seed) {
        const auto found = without_gil([&] {
          return contrast_features(positive, negative, {.limit = limit, .bootstrap = bootstrap, .seed = seed});
        });
        nb::list out;
        for (const FeatureContrast& c : found) {
          nb::dict row;
          row["feature"] = c.feature;
          row["mean_positive"] = c.mean_positive;
          row["mean_negative"] = c.mean_negative;
          row["standardised"] = c.standardised;
          row["auroc"] = c.auroc;
          row["auroc_low"] = c.auroc_low;
          row["auroc_high"] = c.auroc_high;
          row["active_positive"] = c.active_positive;
          row["active_negative"] = c.active_negative;
          row["always_on"] = c.always_on;
          out.append(row);
        }
        return out;
      },
      "positive"_a, "negative"_a, nb::kw_only(), "limit"_a = 100, "bootstrap"_a = 500, "seed"_a = 0,
      nb::sig("def contrast(positive: torch.Tensor, negative: torch.Tensor, *, limit: int = 100, bootstrap: int = 500, "
              "seed: int = 0) -> list[dict[str, object]]"),
      "Features that tell two sets of texts apart, of pooled activations [texts, d_sae], the strongest first.");
  m.def(
      "logit_effects",
      [](const Model& model, const Sae& sae, std::int64_t feature, std::int64_t top) {
        const LogitEffects e = without_gil([&] { return logit_effects(model, sae, feature, top); });
        return nb::make_tuple(values_of(e.promoted), values_of(e.suppressed));
      },
      "model"_a, "sae"_a, "feature"_a, "top"_a = 10,
      nb::sig("def logit_effects(model: Model, sae: SAE, feature: int, top: int = 10) -> tuple[list[tuple[int, "
              "float]], list[tuple[int, float]]]"),
      "(promoted, suppressed): tokens a feature's direction writes for, as (id, logits a unit of activation).");
  m.def(
      "search_labels",
      [](const FeatureLabels& labels, const std::string& query, std::int64_t limit) {
        nb::list out;
        for (const LabelHit& hit : without_gil([&] { return search_labels(labels, query, limit); }))
          out.append(nb::make_tuple(hit.feature, hit.label, hit.score));
        return out;
      },
      "labels"_a, "query"_a, "limit"_a = 20,
      nb::sig("def search_labels(labels: FeatureLabels, query: str, limit: int = 20) -> list[tuple[int, str, float]]"),
      "Features whose label has words of the query, best first, as (feature, label, BM25 score). A number finds the "
      "feature "
      "of that index.");
  nb::class_<Inspection>(m, "Inspection", "Which features a text activates, and where.")
      .def_ro("hook_point", &Inspection::hook_point, "Where the SAE read.")
      .def(
          "to_dict", [](const Inspection& i) { return to_python(i.to_json()); },
          nb::sig("def to_dict(self) -> dict[str, object]"),
          "The numbers: tokens, and features by token and over the text.")
      .def("_repr_html_", in_python("steer.display", "inspection_html"), nb::sig("def _repr_html_(self) -> str"))
      .def("to_html", &Inspection::to_html, "title"_a = "Feature activations", "A page of its own.")
      .def("write", &Inspection::write, "file"_a, "Writes the page or, for a name ending in .json, the numbers.");
  m.def(
      "inspect",
      [](Session& session, const Sae& sae, const Ids& ids, std::int64_t top_features, std::int64_t top_per_token,
         const std::optional<FeatureLabels>& labels) {
        InspectOptions options{.top_features = top_features, .top_per_token = top_per_token};
        if (labels) options.label = [labels](std::int64_t f) { return std::string(labels->label(f)); };
        return without_gil([&] { return inspect_features(session, sae, ids, options); });
      },
      "session"_a, "sae"_a, "ids"_a, nb::kw_only(), "top_features"_a = 30, "top_per_token"_a = 5,
      "labels"_a = nb::none(), "Which features ids activate, and where. Position 0, an attention sink, is left out.");

  nb::class_<CalibratedStrength>(m, "CalibratedStrength", "A steering brought to a wanted effect.")
      .def_ro("steering", &CalibratedStrength::steering, "At that strength.")
      .def_ro("factor", &CalibratedStrength::factor, "What every strength was multiplied by.")
      .def_ro("kl", &CalibratedStrength::kl, "The quantile of its tokens' KL, nats.")
      .def_ro("reached", &CalibratedStrength::reached, "Whether the effect came within reach of the target.")
      .def_ro("reason", &CalibratedStrength::reason, "What was found, in words.")
      .def("__repr__", [](const CalibratedStrength& c) { return "CalibratedStrength(" + c.reason + ")"; });
  m.def(
      "calibrate_strength",
      [](const Model& model, const Steering& steering, double target, const std::vector<Ids>& texts) {
        StrengthOptions options{.texts = texts_of(texts)};
        return without_gil([&] { return calibrate_strength(model, steering, target, options); });
      },
      "model"_a, "steering"_a, "target"_a, nb::kw_only(), "texts"_a = std::vector<Ids>(),
      "Multiplies a steering's strengths until the 95th percentile of next-token KL reaches `target` nats.");

  m.def("difference_of_means", &difference_of_means, "positive"_a, "negative"_a,
        "mean(positive) - mean(negative), of [examples, width], not normalised (arXiv:2312.06681).");
  m.def("principal_direction", &principal_direction, "positive"_a, "negative"_a,
        "The first principal component of the examples' differences, unit length, from negative to positive "
        "(arXiv:2310.01405): of pairs for equally many examples, else about the midpoint of the two means.");
  m.def(
      "logistic_probe",
      [](const at::Tensor& positive, const at::Tensor& negative, double l2) {
        const LinearProbe probe = without_gil([&] { return logistic_probe(positive, negative, {.l2 = l2}); });
        return nb::make_tuple(probe.w, probe.b);
      },
      "positive"_a, "negative"_a, nb::kw_only(), "l2"_a = 1e-3,
      nb::sig("def logistic_probe(positive: torch.Tensor, negative: torch.Tensor, *, l2: float = 0.001) -> "
              "tuple[torch.Tensor, float]"),
      "A linear classifier (w [width], b): positive where w.h + b > 0. Logistic regression with a penalty l2 |w|^2 / 2 "
      "on standardised inputs; each "
      "class weighs one half.");

  nb::class_<AutoSteerTrial>(m, "AutoSteerTrial", "One steering that was tried.")
      .def_ro("form", &AutoSteerTrial::form, "\"nudge the first 8 tokens\" and so on.")
      .def_ro("strength", &AutoSteerTrial::strength, "In the form's own unit.")
      .def_ro("effect", &AutoSteerTrial::effect, "95th percentile of next-token KL, nats.")
      .def_ro("features", &AutoSteerTrial::features, "Those that are edited.")
      .def_ro("steering", &AutoSteerTrial::steering, "What was tried.")
      .def_ro("behaviour", &AutoSteerTrial::behaviour, "0: as unsteered, 1: as when asked for.")
      .def_ro("accuracy", &AutoSteerTrial::accuracy, "On the capability questions; NaN where not measured.")
      .def_ro("within_bounds", &AutoSteerTrial::within_bounds, "Whether what it costs is allowed.")
      .def_ro("dropped", &AutoSteerTrial::dropped, "Why it was not chosen; empty if it was.");
  nb::class_<AutoSteerResult>(m, "AutoSteerResult", "What a search found, and why.")
      .def_ro("behaviour", &AutoSteerResult::behaviour, "As it was asked for.")
      .def_prop_ro(
          "mode", [](const AutoSteerResult& r) { return std::string(to_string(r.mode)); }, "safe or published.")
      .def_prop_ro(
          "verdict", [](const AutoSteerResult& r) { return std::string(to_string(r.verdict)); },
          "\"steered\", or why there is no steering.")
      .def_ro("reason", &AutoSteerResult::reason, "A sentence.")
      .def_ro("steering", &AutoSteerResult::steering, "Empty unless the verdict is \"steered\".")
      .def_ro("trials", &AutoSteerResult::trials, "Everything that was tried.")
      .def_ro("chosen", &AutoSteerResult::chosen, "Place in `trials`; -1: none.")
      .def_ro("warnings", &AutoSteerResult::warnings, "What a person should know of the search.")
      .def("explain", &AutoSteerResult::explain, "A page of text: the verdict, the features and the strength curve.")
      .def("_repr_html_", in_python("steer.display", "result_html"), nb::sig("def _repr_html_(self) -> str"))
      .def("plot", in_python("steer.display", "plot_strength"),
           nb::sig("def plot(self, ax: typing.Any = None) -> typing.Any"),
           "Behaviour and accuracy of every trial over its effect (KL, nats), one line a form. Returns matplotlib's "
           "axes.")
      .def("to_svg", &AutoSteerResult::to_svg, "The strength curve as a picture.")
      .def(
          "to_dict", [](const AutoSteerResult& r) { return to_python(r.to_json()); },
          nb::sig("def to_dict(self) -> dict[str, object]"), "Everything but the tensors, the certificate included.")
      .def("__repr__", [](const AutoSteerResult& r) {
        return fmt::format("AutoSteerResult('{}', verdict='{}': {})", r.behaviour, to_string(r.verdict), r.reason);
      });
  nb::class_<AutoSteerOptions>(m, "AutoSteerOptions", "How a search goes; made by search_options.")
      .def_rw("seed", &AutoSteerOptions::seed, "Of everything that is drawn.")
      .def_rw("max_tokens", &AutoSteerOptions::max_tokens, "Of an answer.")
      .def_rw("batch", &AutoSteerOptions::batch, "Rows generated at once.")
      .def_rw("candidates", &AutoSteerOptions::candidates, "Features kept by contrast.")
      .def_rw("features", &AutoSteerOptions::features, "At most this many are edited.")
      .def_rw("effects", &AutoSteerOptions::effects,
              "safe: the effects, see AutoSteerTrial.effect, whose strengths are tried.")
      .def_rw("others", &AutoSteerOptions::others, "Other behaviours that the wanted one is told from.")
      .def_rw("ask", &AutoSteerOptions::ask, "System prompt that asks; {} is the behaviour.")
      .def_rw("ask_opposite", &AutoSteerOptions::ask_opposite, "That asks for the opposite; empty: never asked.")
      .def_rw("labels", &AutoSteerOptions::labels, "FeatureLabels of the SAE, for names; or None.")
      .def_rw("journal", &AutoSteerOptions::journal,
              "A file that keeps every answer: a search that was stopped goes on there. Empty: none.")
      .def_rw("prompts", &AutoSteerOptions::prompts, "Neutral user messages, at least 4.");
  nb::class_<AutoSteer>(m, "AutoSteer",
                        "From a behaviour in words to a steering; remembers answers between behaviours.")
      .def(
          "__init__",
          [](AutoSteer* self, const Model& model, const Sae& sae, AutoSteerOptions options) {
            options.cancelled = [signals = std::make_shared<Signals>()] {
              signals->check();
              return false;
            };
            new (self) AutoSteer(model, sae, std::move(options));
          },
          "model"_a, "sae"_a, "options"_a)
      .def(
          "find",
          [](AutoSteer& a, const std::string& behaviour, const std::string& mode) {
            const AutoSteerMode how = parse_enum<AutoSteerMode>(mode, "AutoSteer.find");
            return without_gil([&] { return a.find(behaviour, how); });
          },
          "behaviour"_a, "mode"_a = "safe",
          "What `steer.auto_steer` returns. Ctrl-C ends it; with a journal the next goes on there.");
}

}  // namespace steer::python
