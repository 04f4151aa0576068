// Edits, conditions and steerings.
#include <steer/core/error.hpp>
#include <steer/steering/interop.hpp>
#include <steer/steering/steering.hpp>

#include <nanobind/operators.h>
#include <nanobind/stl/map.h>
#include <nlohmann/json.hpp>

#include "bind.hpp"
#include "hooks.hpp"

namespace steer::python {
namespace {

/// What every builder takes besides its own arguments.
EditOptions edit_options(const std::optional<Scope>& scope, const std::optional<Condition>& when,
                         const std::string& unit, double max_activation, const std::optional<std::string>& point,
                         const std::string& name) {
  EditOptions options{
      .when = when, .unit = parse_enum<StrengthUnit>(unit, "Steering"), .max_activation = max_activation, .name = name};
  if (scope) options.scope = *scope;
  if (point) options.point = HookPoint::parse(*point);
  return options;
}

#define STEER_EDIT_PARAMETERS                                                                     \
  const std::optional<Scope>&scope, const std::optional<Condition>&when, const std::string &unit, \
      double max_activation, const std::optional<std::string>&point, const std::string &name
#define STEER_EDIT_OPTIONS edit_options(scope, when, unit, max_activation, point, name)
#define STEER_EDIT_ARGUMENTS                                                                                \
  nb::kw_only(), "scope"_a = nb::none(), "when"_a = nb::none(), "unit"_a = "raw", "max_activation"_a = 0.0, \
                 "point"_a = nb::none(), "name"_a = ""

ConditionOptions condition_options(const std::optional<std::string>& point, double release, bool sticky) {
  ConditionOptions options{.release = release, .sticky = sticky};
  if (point) options.point = HookPoint::parse(*point);
  return options;
}

SteeringLoadOptions load_options(const std::vector<Sae>& saes) { return {.saes = saes}; }

}  // namespace

void bind_steering(nb::module_& m) {
  nb::class_<Scope>(m, "Scope",
                    "Which positions an edit touches. Position 0, an attention sink, only with include_bos.")
      .def(
          "__init__",
          [](Scope* self, const std::string& where, std::int64_t count, std::int64_t begin, std::int64_t end,
             const std::string& tag, bool include_bos, const Ids& tokens, const std::vector<Scope>& except) {
            new (self) Scope{.where = parse_enum<Where>(where, "Scope"),
                             .count = count,
                             .begin = begin,
                             .end = end,
                             .tag = tag,
                             .include_bos = include_bos,
                             .tokens = tokens,
                             .except = except};
            self->validate("Scope");
          },
          "where"_a = "all", nb::kw_only(), "count"_a = 0, "begin"_a = 0, "end"_a = 0, "tag"_a = "",
          "include_bos"_a = false, "tokens"_a = Ids(), "but_not"_a = std::vector<Scope>(),
          "where: all, prompt, generated, onset (the first `count` generated), last, from_last, span ([begin, end)), "
          "inside_tag, outside_tag. tokens: only these ids. but_not: none that one of these scopes selects.")
      .def(nb::self == nb::self, nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__repr__", [](const Scope& s) { return "Scope(" + s.describe() + ")"; });

  nb::class_<Condition>(m, "Condition", "When an edit acts, decided token by token.")
      .def_static(
          "feature_above",
          [](const Sae& sae, std::int64_t feature, double threshold, const std::optional<std::string>& point,
             double release, bool sticky) {
            return Condition::feature_above(sae, feature, threshold, condition_options(point, release, sticky));
          },
          "sae"_a, "feature"_a, "threshold"_a, nb::kw_only(), "point"_a = nb::none(), "release"_a = 0.0,
          "sticky"_a = false,
          "The feature's activation, read as it arrives at `point` (where the SAE was trained), exceeds `threshold`. "
          "release: once on, stays on until the value is so far below. sticky: once on, stays on for the sequence.")
      .def_static(
          "feature_at_most",
          [](const Sae& sae, std::int64_t feature, double threshold, const std::optional<std::string>& point,
             double release, bool sticky) {
            return Condition::feature_at_most(sae, feature, threshold, condition_options(point, release, sticky));
          },
          "sae"_a, "feature"_a, "threshold"_a, nb::kw_only(), "point"_a = nb::none(), "release"_a = 0.0,
          "sticky"_a = false, "The feature's activation is at most `threshold`.")
      .def_static(
          "probe_above",
          [](const at::Tensor& w, double b, const std::string& point, double release, bool sticky) {
            return Condition::probe_above(w, b, condition_options(point, release, sticky));
          },
          "w"_a, "b"_a, nb::kw_only(), "point"_a, "release"_a = 0.0, "sticky"_a = false,
          "w.h + b > 0 at `point`, with w [width].")
      .def_static(
          "entropy_between",
          [](double low, double high, bool sticky) {
            return Condition::entropy_between(low, high, {.sticky = sticky});
          },
          "low"_a, "high"_a, nb::kw_only(), "sticky"_a = false, "The next-token entropy lies in [low, high], in nats.")
      .def_static("all_of", &Condition::all_of, "parts"_a, "Every part holds.")
      .def_static("any_of", &Condition::any_of, "parts"_a, "One part holds.")
      .def("__repr__", [](const Condition& c) { return "Condition(" + c.describe() + ")"; });

  nb::class_<Edit>(m, "Edit", "One edit, a value.")
      .def_prop_ro(
          "point", [](const Edit& e) { return e.point.name(); }, "The hook point it acts at.")
      .def_prop_ro(
          "kind", [](const Edit& e) { return std::string(e.kind()); }, "As files spell it: \"nudge\", \"add\".")
      .def_ro("strength", &Edit::strength, "Multiplies what it does.")
      .def_prop_ro(
          "unit", [](const Edit& e) { return std::string(to_string(e.unit)); },
          "raw, residual_norm (shares of |h|) or max_activation (of the feature's).")
      .def_ro("scope", &Edit::scope, "Which positions it touches.")
      .def_ro("when", &Edit::when, "Its condition, or None.")
      .def_ro("name", &Edit::name, "For the audit; may be empty.")
      .def("number", &Edit::number, "parameter"_a, "A parameter by the name it has in files: \"value\", \"feature\".")
      .def("vector", &Edit::vector, "parameter"_a, "A vector by the name it has in files: \"vector\", \"w\".")
      .def("__repr__", &Edit::describe);

  using S = Steering;
  nb::class_<Steering>(m, "Steering", "An ordered list of edits: a value, for one row. Builders return self.")
      .def(nb::init<>())
      .def(
          "add",
          [](S& s, const at::Tensor& vector, const std::string& at, double strength, STEER_EDIT_PARAMETERS) -> S& {
            return s.add(vector, at, strength, STEER_EDIT_OPTIONS);
          },
          "vector"_a, "at"_a, "strength"_a = 1.0, STEER_EDIT_ARGUMENTS, nb::rv_policy::none,
          "h + strength * vector; with unit=\"residual_norm\" h + strength * |h| * vector / |vector| "
          "(arXiv:2308.10248, "
          "2312.06681).")
      .def(
          "nudge",
          [](S& s, const Sae& sae, std::int64_t feature, double value, STEER_EDIT_PARAMETERS) -> S& {
            return s.nudge(sae, feature, value, STEER_EDIT_OPTIONS);
          },
          "sae"_a, "feature"_a, "value"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none,
          "f' = f + value: adds to a feature's activation. Alone, it needs no encode.")
      .def(
          "pin",
          [](S& s, const Sae& sae, std::int64_t feature, double value, STEER_EDIT_PARAMETERS) -> S& {
            return s.pin(sae, feature, value, STEER_EDIT_OPTIONS);
          },
          "sae"_a, "feature"_a, "value"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none, "f' = value.")
      .def(
          "mul",
          [](S& s, const Sae& sae, std::int64_t feature, double factor, STEER_EDIT_PARAMETERS) -> S& {
            return s.mul(sae, feature, factor, STEER_EDIT_OPTIONS);
          },
          "sae"_a, "feature"_a, "factor"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none, "f' = factor * f.")
      .def(
          "clamp",
          [](S& s, const Sae& sae, std::int64_t feature, double low, double high, STEER_EDIT_PARAMETERS) -> S& {
            return s.clamp(sae, feature, low, high, STEER_EDIT_OPTIONS);
          },
          "sae"_a, "feature"_a, "low"_a, "high"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none,
          "f' = min(max(f, low), high).")
      .def(
          "cap",
          [](S& s, const Sae& sae, std::int64_t feature, double high, STEER_EDIT_PARAMETERS) -> S& {
            return s.cap(sae, feature, high, STEER_EDIT_OPTIONS);
          },
          "sae"_a, "feature"_a, "high"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none, "f' = min(f, high).")
      .def(
          "ablate",
          [](S& s, const Sae& sae, std::int64_t feature, STEER_EDIT_PARAMETERS) -> S& {
            return s.ablate(sae, feature, STEER_EDIT_OPTIONS);
          },
          "sae"_a, "feature"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none, "f' = 0.")
      .def(
          "project_out",
          [](S& s, const at::Tensor& vector, const std::string& at, STEER_EDIT_PARAMETERS) -> S& {
            return s.project_out(vector, at, STEER_EDIT_OPTIONS);
          },
          "vector"_a, "at"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none,
          "h - (h.v^) v^ with v^ = v / |v|: directional ablation (arXiv:2406.11717).")
      .def(
          "scale_along",
          [](S& s, const at::Tensor& vector, const std::string& at, double factor, STEER_EDIT_PARAMETERS) -> S& {
            return s.scale_along(vector, at, factor, STEER_EDIT_OPTIONS);
          },
          "vector"_a, "at"_a, "factor"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none, "h + (factor - 1) (h.v^) v^.")
      .def(
          "project_to",
          [](S& s, const at::Tensor& vector, const std::string& at, double target, const std::string& side,
             STEER_EDIT_PARAMETERS) -> S& {
            return s.project_to(vector, at, target, parse_enum<TargetSide>(side, "Steering.project_to"),
                                STEER_EDIT_OPTIONS);
          },
          "vector"_a, "at"_a, "target"_a, "side"_a = "below", STEER_EDIT_ARGUMENTS, nb::rv_policy::none,
          "h + (target - h.v^) v^ where h.v^ lies below (or above, or on either side of) the target; with "
          "unit=\"residual_norm\" the target is a share of |h|.")
      .def(
          "rotate",
          [](S& s, const at::Tensor& a, const at::Tensor& b, const std::string& at, double radians,
             STEER_EDIT_PARAMETERS) -> S& { return s.rotate(a, b, at, radians, STEER_EDIT_OPTIONS); },
          "a"_a, "b"_a, "at"_a, "radians"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none,
          "Rotates the part of h in the plane of a and b, a towards b; the rest and |h| stay.")
      .def(
          "swap",
          [](S& s, const at::Tensor& a, const at::Tensor& b, const std::string& at, STEER_EDIT_PARAMETERS) -> S& {
            return s.swap(a, b, at, STEER_EDIT_OPTIONS);
          },
          "a"_a, "b"_a, "at"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none,
          "Exchanges the parts of h along a and b; the rest and |h| stay.")
      .def(
          "gated_add",
          [](S& s, const at::Tensor& w, double b, const at::Tensor& z, const std::string& at, double a,
             STEER_EDIT_PARAMETERS) -> S& { return s.gated_add(w, b, z, at, a, STEER_EDIT_OPTIONS); },
          "w"_a, "b"_a, "z"_a, "at"_a, "a"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none, "h + a relu(w.h + b) z.")
      .def(
          "splice",
          [](S& s, const Sae& sae, bool with_error, STEER_EDIT_PARAMETERS) -> S& {
            return s.splice(sae, with_error, STEER_EDIT_OPTIONS);
          },
          "sae"_a, "with_error"_a = false, STEER_EDIT_ARGUMENTS, nb::rv_policy::none,
          "Puts decode(encode(h)) in h's place; with_error adds what the SAE does not explain.")
      .def(
          "cap_norm",
          [](S& s, const std::string& at, double limit, STEER_EDIT_PARAMETERS) -> S& {
            return s.cap_norm(at, limit, STEER_EDIT_OPTIONS);
          },
          "at"_a, "limit"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none,
          "Scales h down to |h| = limit where it is longer; with unit=\"residual_norm\" the limit is a multiple of the "
          "norm on "
          "arrival.")
      .def(
          "keep_norm",
          [](S& s, const std::string& at, STEER_EDIT_PARAMETERS) -> S& { return s.keep_norm(at, STEER_EDIT_OPTIONS); },
          "at"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none,
          "Scales h to the norm it had on arrival, undoing what the edits before did to it.")
      .def(
          "custom",
          [](S& s, nb::callable function, const std::string& at, STEER_EDIT_PARAMETERS) -> S& {
            return s.custom(
                [held = Held(function)](const CustomContext& c) {
                  const nb::gil_scoped_acquire gil;
                  return nb::cast<at::Tensor>(held.get()(nb::steal(wrap(c.h)), nb::steal(wrap(c.position))));
                },
                at, STEER_EDIT_OPTIONS);
          },
          "function"_a, "at"_a, STEER_EDIT_ARGUMENTS, nb::rv_policy::none,
          "h + strength * (function(h, positions) - h), over the tokens in scope: h [tokens, width], a copy.")
      .def(
          "edit", [](S& s, const Edit& edit) -> S& { return s.edit(edit); }, "edit"_a, nb::rv_policy::none,
          "A copy of an edit, of another steering.")
      .def(
          "abort_when",
          [](S& s, const Condition& when, const std::string& reason) -> S& { return s.abort_when(when, reason); },
          "when"_a, "reason"_a, nb::rv_policy::none, "Ends the row when the condition becomes true.")
      .def_prop_ro(
          "edits", [](const S& s) { return std::vector<Edit>(s.edits().begin(), s.edits().end()); },
          "In the order in which they act.")
      .def_prop_ro("empty", &S::empty, "Neither edits nor watches.")
      .def("__len__", [](const S& s) { return s.edits().size(); })
      .def("__bool__", [](const S& s) { return !s.empty(); })
      .def(
          "__iadd__", [](S& a, const S& b) -> S& { return a += b; }, nb::rv_policy::none)
      .def(nb::self + nb::self)
      .def("__mul__", &S::scaled, "factor"_a, nb::is_operator(), "Every strength multiplied; 0 switches off.")
      .def("__rmul__", &S::scaled, "factor"_a, nb::is_operator())
      .def("__neg__", [](const S& s) { return s.scaled(-1); })
      .def("scaled", &S::scaled, "factor"_a, "Every strength multiplied; 0 switches off.")
      .def(nb::self == nb::self, nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("diff", &S::diff, "other"_a, "What differs, one line an edit.")
      .def(
          "copy", [](const S& s) { return s; }, "Builders change a steering in place; this keeps the one before.")
      .def("__copy__", [](const S& s) { return s; })
      .def(
          "__deepcopy__", [](const S& s, nb::handle) { return s; }, "memo"_a)
      .def("__reduce__", in_python("steer._pickle", "reduce_steering"),
           nb::sig("def __reduce__(self) -> tuple[object, ...]"))
      .def("_repr_html_", in_python("steer.display", "steering_html"), nb::sig("def _repr_html_(self) -> str"))
      .def("describe", &S::describe, "One line an edit.")
      .def("__repr__",
           [](const S& s) { return s.empty() ? std::string("Steering()") : "Steering(\n" + s.describe() + ")"; })
      .def(
          "save",
          [](const S& s, const std::filesystem::path& file,
             const std::map<std::string, std::filesystem::path>& sae_paths) { s.save(file, {.sae_paths = sae_paths}); },
          "file"_a, nb::kw_only(), "sae_paths"_a = std::map<std::string, std::filesystem::path>(),
          "Writes JSON (docs/steering-schema.md), and vectors as safetensors beside it. sae_paths: by SAE.hash; by "
          "default "
          "where an SAE was loaded from.")
      .def_static(
          "load",
          [](const std::filesystem::path& file, const std::vector<Sae>& saes) {
            return S::load(file, load_options(saes));
          },
          "file"_a, nb::kw_only(), "saes"_a = std::vector<Sae>(),
          "Reads what `save` wrote. saes: used for references with the same hash; others are loaded from their path. "
          "Raises "
          "Error(format | config) for an unknown key or kind, or a vector or SAE that is not the one of its hash.")
      .def(
          "to_json",
          [](const S& s, const std::map<std::string, std::filesystem::path>& sae_paths) {
            return to_python(s.to_json({.sae_paths = sae_paths}));
          },
          nb::kw_only(), "sae_paths"_a = std::map<std::string, std::filesystem::path>(),
          nb::sig("def to_json(self, *, sae_paths: Mapping[str, str] = {}) -> dict[str, object]"),
          "The JSON, vectors inline.")
      .def_static(
          "from_json",
          [](nb::handle json, const std::vector<Sae>& saes, const std::filesystem::path& folder) {
            return S::from_json(to_json(json), load_options(saes), folder);
          },
          "json"_a, nb::kw_only(), "saes"_a = std::vector<Sae>(), "folder"_a = std::filesystem::path(),
          nb::sig(
              "def from_json(json: object, *, saes: Sequence[SAE] = [], folder: str | os.PathLike = '') -> Steering"),
          "From the dict that `to_json` made. folder: what relative paths in it are relative to.");

  m.def(
      "from_hosted_variant", [](nb::handle json, const Sae& sae) { return from_hosted_variant(to_json(json), sae); },
      "json"_a, "sae"_a, nb::sig("def from_hosted_variant(json: object, sae: SAE) -> Steering"),
      "A variant of Goodfire's hosted service.");
  m.def(
      "from_vllm_json", [](nb::handle json) { return from_vllm_json(to_json(json)); }, "json"_a,
      nb::sig("def from_vllm_json(json: object) -> Steering"), "Steering JSON of the vLLM steering forks.");
}

}  // namespace steer::python
