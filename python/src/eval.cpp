// Experiments: questions, behaviours, arms, judges, runs and reports.
#include <steer/core/error.hpp>
#include <steer/eval/auto_steer_arm.hpp>
#include <steer/eval/experiment.hpp>
#include <steer/eval/http_judge.hpp>
#include <steer/eval/model_judge.hpp>
#include <steer/eval/report.hpp>

#include <fmt/format.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/shared_ptr.h>

#include <nlohmann/json.hpp>

#include "bind.hpp"
#include "hooks.hpp"

namespace steer::python {
namespace {

/// A judge that is a Python function: function(rubric, prompt, response, behaviour or None) -> score, or None.
class PythonJudge : public Judge {
 public:
  PythonJudge(nb::callable function, std::string identity)
      : function_(Held(function)), identity_(std::move(identity)) {}
  std::string identity() const override { return identity_; }
  std::vector<Judgement> judge(Rubric rubric, std::span<const JudgeRequest> requests) override {
    const nb::gil_scoped_acquire gil;
    std::vector<Judgement> out;
    for (const JudgeRequest& r : requests) {
      const nb::object score = function_.get()(std::string(to_string(rubric)), r.prompt, r.response,
                                               r.behaviour ? nb::cast(r.behaviour->name) : nb::none());
      if (score.is_none())
        out.push_back({.failure = "the judge gave no score"});
      else
        out.push_back({.score = nb::cast<double>(score)});
    }
    return out;
  }

 private:
  Held function_;
  std::string identity_;
};

nb::object row_of(const ResultRow& row) {
  nlohmann::ordered_json json;
  to_json(json, row);
  return to_python(nlohmann::json(json));
}

nb::dict estimate(double mean, double low, double high) {
  nb::dict out;
  out["mean"] = mean;
  out["low"] = low;
  out["high"] = high;
  return out;
}

}  // namespace

void bind_eval(nb::module_& m) {
  nb::class_<Question>(m, "Question", "A multiple-choice question, or an open prompt when it has no choices.")
      .def(
          "__init__",
          [](Question* self, const std::string& id, const std::string& text, const std::vector<std::string>& choices,
             int answer, const std::string& subject) {
            new (self) Question{.id = id, .subject = subject, .text = text, .choices = choices, .answer = answer};
          },
          "id"_a, "text"_a, "choices"_a = std::vector<std::string>(), "answer"_a = -1, "subject"_a = "")
      .def_ro("id", &Question::id, "Names it in results.")
      .def_ro("subject", &Question::subject, "May be empty.")
      .def_ro("text", &Question::text, "The question alone.")
      .def_ro("choices", &Question::choices, "A, B, C, ...; none of an open prompt.")
      .def_ro("answer", &Question::answer, "Index of the right choice; -1 when there are none.")
      .def_prop_ro("gold", &Question::gold, "The right letter.")
      .def(
          "prompt", [](const Question& q) { return user_prompt(q); }, "As a user message.")
      .def("__repr__", [](const Question& q) { return "Question('" + q.id + "')"; });
  m.def("load_questions", &load_questions, "path"_a,
        "Questions from JSON or JSON lines, in any of the published shapes.");
  m.def(
      "load_mmlu",
      [](const std::filesystem::path& folder, const std::string& selection) {
        return load_mmlu(folder, parse_enum<Mmlu>(selection, "load_mmlu"));
      },
      "folder"_a, "selection"_a = "first_three_dev",
      "Questions of MMLU in its original layout, CSV files without a header. selection: first_three_dev (the study's "
      "171), "
      "dev, val or test.");

  nb::class_<Behaviour>(m, "Behaviour", "Something a model can be steered to be.")
      .def(
          "__init__",
          [](Behaviour* self, const std::string& name, const std::string& instruction) {
            new (self) Behaviour{.name = name, .instruction = instruction};
          },
          "name"_a, "instruction"_a, "instruction completes \"When answering, please ...\": \"be funny\".")
      .def_ro("name", &Behaviour::name, "\"funny\".")
      .def_ro("instruction", &Behaviour::instruction, "What a prompt asks for.")
      .def("__repr__", [](const Behaviour& b) { return "Behaviour('" + b.name + "')"; });
  m.def(
      "study_behaviours", [] { return study_behaviours(); }, "The 14 behaviours of arXiv:2602.04903.");
  m.def("load_behaviours", &load_behaviours, "json"_a,
        "Behaviours of a JSON file: [{\"name\", \"instruction\"}, ...].");

  nb::class_<Arm>(m, "Arm", "One condition of an experiment: what is asked, and how the model is steered.")
      .def_static("control", &Arm::control, "No request, no steering: what the others are compared with.")
      .def_static("prompt", &Arm::prompt, "The request in the system prompt.")
      .def_static("strong_prompt", &Arm::strong_prompt, "A system prompt that insists.")
      .def_static(
          "steered",
          [](const std::string& name, const std::map<std::string, Steering>& steerings) {
            return Arm::steered(name, steerings);
          },
          "name"_a, "steerings"_a, "One steering for each behaviour by name, or one for all under \"\".")
      .def_static(
          "from_files",
          [](const std::string& name, const std::filesystem::path& path, const std::vector<Sae>& saes) {
            return Arm::from_files(name, path, {.saes = saes});
          },
          "name"_a, "path"_a, nb::kw_only(), "saes"_a = std::vector<Sae>(),
          "Steering files: one for all behaviours, or a folder of <behaviour>.json. saes: as Steering.load.")
      .def_static(
          "auto_steer",
          [](const Sae& sae, const AutoSteerOptions& options, const std::string& mode) {
            return auto_steer_arm(sae, parse_enum<AutoSteerMode>(mode, "Arm.auto_steer"), options);
          },
          "sae"_a, "options"_a, "mode"_a = "safe", "Steerings found by a search, one a behaviour.")
      .def("with_prompt", &Arm::with_prompt, "The same steering, and the request in the system prompt.")
      .def("random_features", &Arm::random_features, "seed"_a = 42,
           "A control: other features of the same SAE, edited by as much.")
      .def("noise", &Arm::noise, "seed"_a = 42, "A control: random directions of the same length.")
      .def("flipped", &Arm::flipped, "A control: the opposite of every edit.")
      .def("at_strength", &Arm::at_strength, "factor"_a, "Every edit's strength multiplied.")
      .def("strength_sweep", &Arm::strength_sweep, "strengths"_a, "every"_a = 1,
           "One arm a strength: the report draws them as a curve. every: answers every n-th question only.")
      .def_ro("name", &Arm::name, "In results and reports.")
      .def_ro("description", &Arm::description, "One line.")
      .def("__repr__", [](const Arm& a) { return "Arm('" + a.name + "')"; });

  m.def(
      "search_options",
      [](const Model& model, const std::vector<Question>& held_out, std::int64_t max_tokens, std::uint64_t seed,
         std::int64_t prompts, std::int64_t checks, std::int64_t certificate) {
        return search_options(model, held_out, max_tokens, seed,
                              {.prompts = prompts, .checks = checks, .certificate = certificate});
      },
      "model"_a, "held_out"_a, "max_tokens"_a, "seed"_a = 42, nb::kw_only(), "prompts"_a = 24, "checks"_a = 64,
      "certificate"_a = 0,
      "Search options from questions that nothing else asks: prompts, checks and a certificate are taken from them.");

  nb::class_<Judge>(m, "Judge", "Scores responses.")
      .def_prop_ro("identity", &Judge::identity, "What its scores depend on, for journals.");
  m.def(
      "python_judge",
      [](nb::callable function, const std::string& identity) {
        return std::shared_ptr<Judge>(std::make_shared<PythonJudge>(function, identity));
      },
      "function"_a, "identity"_a,
      nb::sig(
          "def python_judge(function: Callable[[str, str, str, str | None], float | None], identity: str) -> Judge"),
      "A judge that is function(rubric, prompt, response, behaviour) -> 1 to 5 or None; rubric is \"behaviour\" or "
      "\"coherence\".");
  m.def("logit_judge", &logit_judge, "model"_a, "A local language model as the judge.");
  m.def(
      "request_evidence", [](const Model& model) { return request_evidence(model); }, "model"_a,
      "How much the unsteered model takes a text for an answer to the request; no score of a judge.");
  m.def(
      "http_judge",
      [](const std::string& url, const std::string& model, const std::string& key_variable) {
        return std::shared_ptr<Judge>(
            std::make_shared<HttpJudge>(HttpJudgeOptions{.url = url, .model = model, .key_variable = key_variable}));
      },
      "url"_a, "model"_a, "key_variable"_a = "OPENAI_API_KEY",
      "A judge behind an OpenAI-compatible API; the key comes from the environment.");

  nb::class_<Report>(m, "Report", "Results, their analysis, and the files that show them.")
      .def_rw("title", &Report::title, "Of the page.")
      .def("verdict", &Report::verdict, "Headline and findings as text.")
      .def("headline", &Report::headline, "The one sentence.")
      .def("__repr__",
           [](const Report& r) { return fmt::format("Report({} results: {})", r.results.size(), r.headline()); })
      .def("findings", &Report::findings, "The sentences below it.")
      .def("html", &Report::html, nb::call_guard<nb::gil_scoped_release>(), "The page that `write` writes.")
      .def("markdown", &Report::markdown, nb::call_guard<nb::gil_scoped_release>(), "The same as Markdown.")
      .def_ro("settings", &Report::settings, "JSON of everything the run depends on.")
      .def_ro("notes", &Report::notes, "What a reader should know of the run.")
      .def_ro("warnings", &Report::warnings, "Of the steerings; shown before the notes.")
      .def_ro("steerings", &Report::steerings, "What searches found, by arm and behaviour.")
      .def("write", &Report::write, "file"_a, nb::call_guard<nb::gil_scoped_release>(),
           "One page, and beside it report.md, results.csv, results.jsonl and steerings.")
      .def(
          "rows",
          [](const Report& r) {
            nb::list out;
            for (const ResultRow& row : r.results) out.append(row_of(row));
            return out;
          },
          nb::sig("def rows(self) -> list[dict[str, typing.Any]]"), "One dict a result.")
      .def("to_pandas", in_python("steer.display", "to_pandas"), nb::sig("def to_pandas(self) -> typing.Any"),
           "One row an answer: a DataFrame where pandas is installed, else a list of dicts.")
      .def(
          "plot", in_python("steer.display", "plot_tradeoff"),
          nb::sig("def plot(self, score: str = 'behaviour', behaviour: str = '', ax: typing.Any = None) -> typing.Any"),
          "Accuracy over a score, one point an arm, with the intervals of both. Returns matplotlib's axes.")
      .def("_repr_html_", in_python("steer.display", "report_html"), nb::sig("def _repr_html_(self) -> str"))
      .def(
          "tradeoffs",
          [](const Report& r) {
            nb::list out;
            for (const ArmCell& cell : r.analysis.cells) {
              if (cell.steered_only) continue;
              nb::dict row;
              row["arm"] = cell.arm;
              row["behaviour"] = cell.behaviour;
              row["n"] = cell.n;
              row["accuracy"] = estimate(cell.accuracy.value, cell.accuracy.interval.low, cell.accuracy.interval.high);
              nb::dict scores;  // of their own: a judge's score is called "behaviour" too
              for (const auto& [name, score] : cell.scores)
                scores[name.c_str()] = estimate(score.summary.mean, score.interval.low, score.interval.high);
              row["scores"] = scores;
              out.append(row);
            }
            return out;
          },
          nb::sig("def tradeoffs(self) -> list[dict[str, typing.Any]]"),
          "One dict an arm and behaviour (\"\": all): arm, behaviour, n, accuracy and scores by name, each a dict of "
          "mean, "
          "low and high, the 95 % interval by question.");

  m.def(
      "run_experiment",
      [](const Model& model, const std::vector<Question>& questions, const std::vector<Behaviour>& behaviours,
         const std::vector<Arm>& arms, const std::string& mode, double temperature, double top_p,
         std::int64_t max_tokens, std::uint64_t seed, bool nll, bool kl, bool force_answers,
         const std::shared_ptr<Judge>& judge, const std::filesystem::path& journal, std::int64_t batch,
         const std::string& baseline, bool progress, std::int64_t rank, std::int64_t ranks, const std::string& address,
         std::uint16_t port, double timeout_s) {
        Experiment study{.questions = questions,
                         .behaviours = behaviours,
                         .arms = arms,
                         .mode = parse_enum<AnswerMode>(mode, "Experiment"),
                         .sampling = {.temperature = temperature, .top_p = top_p},
                         .max_tokens = max_tokens,
                         .seed = seed,
                         .nll = nll,
                         .kl = kl,
                         .force_answers = force_answers};
        Signals signals;
        ExperimentOptions options{
            .judge = judge, .journal = journal, .batch = batch, .baseline = baseline, .stop = [&] {
              signals.check();
              return false;
            }};
        if (ranks > 1)
          options.workers = {.rank = rank, .count = ranks, .address = address, .port = port, .timeout_s = timeout_s};
        if (progress) options.progress = Progress("experiment", 0);
        return without_gil([&] { return run_experiment(model, study, options); });
      },
      "model"_a, nb::kw_only(), "questions"_a, "behaviours"_a, "arms"_a, "mode"_a = "generate", "temperature"_a = 0.6,
      "top_p"_a = 0.9, "max_tokens"_a = 1024, "seed"_a = 42, "nll"_a = true, "kl"_a = false, "force_answers"_a = false,
      "judge"_a = nb::none(), "journal"_a = std::filesystem::path(), "batch"_a = 64, "baseline"_a = "control",
      "progress"_a = false, "rank"_a = 0, "ranks"_a = 1, "address"_a = "", "port"_a = 0, "timeout_s"_a = 60.0,
      "Runs an experiment; killed and started again with the same journal it goes on where it was.");
}

}  // namespace steer::python
