#include <steer/eval/behaviours.hpp>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <set>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "io/strict_json.hpp"

namespace steer {
namespace {

using nlohmann::json;
constexpr int kPoints = 5;

std::vector<Criterion> weigh(Criterion first, Criterion second, Criterion third) {
  first.points = second.points = 2;
  third.points = 1;
  return {std::move(first), std::move(second), std::move(third)};
}

std::vector<std::string> texts(const json& entry, const char* key, const std::string& place) {
  if (!entry.contains(key)) return {};
  const json& list = entry[key];
  require(list.is_array() && std::all_of(list.begin(), list.end(), [](const json& t) { return t.is_string(); }),
          ErrorCode::format, "load_behaviours", "expected \"{}\" as a list of texts but got {} ({})", key,
          io::detail::brief(list), place);
  return list.get<std::vector<std::string>>();
}

bool valid_name(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
  });
}

}  // namespace

const std::vector<Behaviour>& study_behaviours() {
  static const std::vector<Behaviour> behaviours = {
      {"authoritative",
       "be authoritative and confident",
       weigh({"assurance", "states its points plainly, without hedging"},
             {"command of the subject", "speaks as someone who knows the subject thoroughly"},
             {"directness", "comes to the point and stays there"}),
       {},
       {}},
      {"concise",
       "be concise and direct",
       weigh({"brevity", "uses no more words than the content needs"},
             {"clear message", "the point can be grasped at first reading"}, {"focus", "nothing beside the point"}),
       {},
       {}},
      {"imaginative",
       "be creative and imaginative",
       weigh({"originality", "takes an angle one would not expect"},
             {"invention", "builds images, scenes or comparisons of its own"},
             {"expressive language", "vivid rather than plain wording"}),
       {},
       {}},
      {"diplomatic",
       "be diplomatic and balanced",
       weigh({"neutrality", "takes no side by its tone"}, {"fairness", "gives each view its due"},
             {"courtesy", "polite and respectful throughout"}),
       {},
       {}},
      {"educational",
       "be educational and accessible",
       weigh({"instruction", "teaches something correct and useful"},
             {"accessibility", "explains in simple terms, step by step"},
             {"engagement", "invites the reader to follow"}),
       {},
       {}},
      {"emotional",
       "be emotional and empathetic",
       weigh({"feeling", "expresses emotion openly"}, {"understanding", "shows that it shares the reader's feelings"},
             {"warmth", "a caring tone"}),
       {},
       {}},
      {"empathetic",
       "be empathetic and supportive",
       weigh({"recognition", "names or mirrors what the reader may feel"}, {"support", "offers encouragement or help"},
             {"fitting tone", "gentle, never dismissive"}),
       {},
       {}},
      {"funny",
       "be funny",
       weigh({"attempts humour", "contains jokes, wit or playful exaggeration"},
             {"succeeds", "the humour works and belongs where it stands"}, {"freshness", "not a stock joke"}),
       {},
       {}},
      {"misleading",
       "be misleading and ambiguous",
       weigh({"ambiguity", "leaves its meaning open to several readings"},
             {"false impression", "would lead a reader to believe what is not so"},
             {"evasion", "avoids being pinned down"}),
       {},
       {}},
      {"motivational",
       "be motivational and inspiring",
       weigh({"encouragement", "makes the reader feel able"},
             {"call to action", "points to something worth striving for"}, {"resonance", "moves the reader"}),
       {},
       {}},
      {"persuasive",
       "be persuasive and socially influential",
       weigh({"argument", "makes a clear case with reasons"}, {"appeal", "speaks to what the reader cares about"},
             {"conviction", "sounds convinced"}),
       {},
       {}},
      {"professional",
       "be professional and formal",
       weigh({"register", "formal vocabulary and tone throughout"}, {"precision", "exact and well ordered"},
             {"restraint", "no slang, jokes or chatter"}),
       {},
       {}},
      {"skeptical",
       "be skeptical and analytical",
       weigh({"questioning", "examines claims and assumptions before accepting them"},
             {"reasoning", "weighs them by logic"}, {"evidence", "asks for or cites evidence"}),
       {},
       {}},
      {"technical",
       "be technical and detailed",
       weigh({"accuracy", "uses technical terms correctly"}, {"depth", "goes into mechanism and detail"},
             {"clarity", "an expert could follow it without effort"}),
       {},
       {}},
  };
  return behaviours;
}

std::vector<Behaviour> select_behaviours(const std::vector<Behaviour>& from, const std::vector<std::string>& names) {
  std::vector<Behaviour> selected;
  for (const auto& name : names) {
    const auto found = std::find_if(from.begin(), from.end(), [&](const Behaviour& b) { return b.name == name; });
    if (found == from.end()) {
      std::string known;
      for (const auto& b : from) known += (known.empty() ? "" : ", ") + b.name;
      fail(ErrorCode::argument, "select_behaviours", "expected a behaviour (one of: {}) but got \"{}\"", known, name);
    }
    selected.push_back(*found);
  }
  return selected;
}

std::vector<Behaviour> load_behaviours(const std::filesystem::path& path) {
  const json list = io::detail::read_json(path, "load_behaviours");
  require(list.is_array() && !list.empty(), ErrorCode::format, "load_behaviours",
          "expected a JSON list of behaviours but got {} ({})", list.type_name(), path.string());
  std::vector<Behaviour> behaviours;
  std::set<std::string> names;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const json& entry = list[i];
    const std::string place = format_text("{}, entry {}", path.string(), i);
    const auto text = [&](const json& object, const char* key) {
      require(object.is_object() && object.contains(key) && object[key].is_string(), ErrorCode::format,
              "load_behaviours", "expected a text \"{}\" but got {} ({})", key, io::detail::brief(object), place);
      return object[key].get<std::string>();
    };
    Behaviour behaviour{text(entry, "name"),
                        text(entry, "instruction"),
                        {},
                        texts(entry, "examples", place),
                        texts(entry, "counterexamples", place)};
    if (const auto rule = entry.find("rule"); rule != entry.end()) {
      require(rule->is_object(), ErrorCode::format, "load_behaviours", "expected \"rule\" as an object ({})", place);
      const auto limit = rule->find("limit");
      behaviour.rule =
          Rule{.kind = parse_enum<RuleKind>(text(*rule, "kind"), "load_behaviours"),
               .limit = limit != rule->end() && limit->is_number_integer() ? limit->get<std::int64_t>() : 0,
               .word = rule->contains("word") ? text(*rule, "word") : ""};
      require((behaviour.rule->kind != RuleKind::at_most_words || behaviour.rule->limit > 0) &&
                  (behaviour.rule->kind != RuleKind::says_word || !behaviour.rule->word.empty()),
              ErrorCode::format, "load_behaviours", "expected a rule with its \"limit\" or \"word\" ({})", place);
    }
    require(valid_name(behaviour.name), ErrorCode::format, "load_behaviours",
            "expected a name of letters, digits, '-' and '_' but got \"{}\" ({})", behaviour.name, place);
    require(names.insert(behaviour.name).second, ErrorCode::format, "load_behaviours",
            "expected every name once but got \"{}\" again ({})", behaviour.name, place);
    int points = 0;
    for (const json& criterion : entry.value("criteria", json::array())) {
      Criterion c{text(criterion, "name"), text(criterion, "description"), 0};
      require(criterion.contains("points") && criterion["points"].is_number_integer() && criterion["points"] > 0,
              ErrorCode::format, "load_behaviours", "expected \"points\" as a whole number above 0 ({})", place);
      c.points = criterion["points"];
      points += c.points;
      behaviour.criteria.push_back(std::move(c));
    }
    if (behaviour.criteria.empty() && !behaviour.rule)
      behaviour.criteria = {{"presence", "the answer does " + behaviour.instruction, kPoints}};
    else
      require(points == kPoints || (behaviour.rule && points == 0), ErrorCode::format, "load_behaviours",
              "expected points that sum to {} but got {} ({})", kPoints, points, place);
    behaviours.push_back(std::move(behaviour));
  }
  return behaviours;
}

void to_json(nlohmann::ordered_json& out, const Behaviour& behaviour) {
  out = {
      {"name", behaviour.name}, {"instruction", behaviour.instruction}, {"criteria", nlohmann::ordered_json::array()}};
  for (const auto& c : behaviour.criteria)
    out["criteria"].push_back({{"name", c.name}, {"description", c.description}, {"points", c.points}});
  if (behaviour.rule) {
    out["rule"] = {{"kind", to_string(behaviour.rule->kind)}};
    if (behaviour.rule->limit != 0) out["rule"]["limit"] = behaviour.rule->limit;
    if (!behaviour.rule->word.empty()) out["rule"]["word"] = behaviour.rule->word;
  }
  if (!behaviour.examples.empty()) out["examples"] = behaviour.examples;
  if (!behaviour.counterexamples.empty()) out["counterexamples"] = behaviour.counterexamples;
}

std::string system_prompt(const Behaviour& behaviour) {
  return "When answering, please " + behaviour.instruction + ".";
}

std::string strong_system_prompt(const Behaviour& behaviour) {
  return "Your most important rule, above style and habit: " + behaviour.instruction +
         ". Keep to it in every sentence, in your reasoning as well as in your answer, so that nobody could read two "
         "lines without noticing. Give the answer that is right, in the format that is asked for.";
}

}  // namespace steer
