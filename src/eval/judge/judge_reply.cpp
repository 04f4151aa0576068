#include "eval/judge/judge_reply.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/ascii.hpp"
#include "core/format_text.hpp"
#include "io/json_levels.hpp"
#include "io/strict_json.hpp"

namespace steer::eval::detail {
namespace {

using nlohmann::json;
constexpr std::size_t kLongest = 64 << 10;  // of a reply: what comes before its last 64 KiB is not looked at
constexpr int kDeepest = 5, kObjects = 200;

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

/// Without thoughts, and with plain quotes and spaces. Nothing where a thought never ends.
std::optional<std::string> final_part(std::string_view reply) {
  if (reply.size() > kLongest) reply.remove_prefix(reply.size() - kLongest);
  const std::string small = ascii_lower(reply);
  std::size_t begin = 0;
  constexpr std::pair<std::string_view, std::string_view> kThoughts[] = {
      {"<think>", "</think>"},         {"<thinking>", "</thinking>"}, {"<thought>", "</thought>"},
      {"<reasoning>", "</reasoning>"}, {"[think]", "[/think]"},       {"<|channel|>analysis", "<|channel|>final"}};
  for (const auto& [open, close] : kThoughts) {
    const auto closed = small.rfind(close), opened = small.rfind(open);
    if (opened != std::string::npos && (closed == std::string::npos || closed < opened)) return std::nullopt;
    if (closed != std::string::npos) begin = std::max(begin, closed + close.size());
  }
  std::string text(reply.substr(begin));
  for (const char* quote : {"\u201c", "\u201d"}) text = replaced(std::move(text), quote, "\"");
  for (int digit = 0; digit < 10; ++digit) {  // full width
    const std::string wide = {'\xef', '\xbc', static_cast<char>(0x90 + digit)};
    text = replaced(std::move(text), wide, std::string(1, static_cast<char>('0' + digit)));
  }
  return replaced(std::move(text), "\u00a0", " ");
}

/// The end of the object that opens at `begin`, texts respected; npos when it never closes.
std::size_t object_end(std::string_view text, std::size_t begin) {
  const auto last =
      io::detail::walk_levels(text, begin, [](std::size_t level, bool opened) { return !opened && level == 0; });
  return last == std::string_view::npos ? last : last + 1;
}

bool name_character(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

/// Without comments, trailing commas and plus signs; keys without quotes and Python's constants as JSON has them.
std::string mend(std::string_view text) {
  std::string mended;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '"') {  // a text, as it is
      std::size_t end = i + 1;
      while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
      end = std::min(end + 1, text.size());
      mended += text.substr(i, end - i);
      i = end - 1;
      continue;
    }
    if (c == '/' && i + 1 < text.size() && (text[i + 1] == '/' || text[i + 1] == '*')) {
      const auto end = text[i + 1] == '/' ? text.find('\n', i) : text.find("*/", i + 2);
      if (end == std::string_view::npos) break;
      i = text[i + 1] == '/' ? end : end + 1;
      continue;
    }
    const auto next = text.find_first_not_of(" \t\r\n", i + 1);
    if (c == ',' && next != std::string_view::npos && (text[next] == '}' || text[next] == ']')) continue;
    if (c == '+' && i + 1 < text.size() && std::isdigit(static_cast<unsigned char>(text[i + 1]))) continue;
    if (!std::isalpha(static_cast<unsigned char>(c)) ||
        (i > 0 && (name_character(text[i - 1]) || text[i - 1] == '\''))) {
      mended += c;
      continue;
    }
    std::size_t end = i;
    while (end < text.size() && name_character(text[end])) ++end;
    const std::string_view word = text.substr(i, end - i);
    const auto after = text.find_first_not_of(" \t\r\n", end);
    const bool key = after != std::string_view::npos && text[after] == ':';
    mended += key               ? '"' + std::string(word) + '"'
              : word == "True"  ? "true"
              : word == "False" ? "false"
              : word == "None"  ? "null"
                                : std::string(word);
    i = end - 1;
  }
  return mended;
}

/// As JSON, or as JSON once the slips of language models are mended.
json parse(std::string_view text) {
  if (auto value = io::detail::find_json(text)) return *value;
  const std::string mended = mend(mend(text));  // a comma may trail only once a comment is gone
  if (auto value = io::detail::find_json(mended)) return *value;
  if (text.find('"') != std::string_view::npos) return {};
  return io::detail::find_json(mend(mend(replaced(std::string(text), "'", "\"")))).value_or(json());
}

class Reader {
 public:
  explicit Reader(const ScoreForm& form) : form_(form) {}

  using Scores = std::optional<std::vector<double>>;
  struct Found {
    bool found = false;  ///< something that is meant as the scores
    Scores scores;
  };

  Found in(const json& value, int depth = 0) const {
    if (depth > kDeepest || !value.is_object()) return {};
    for (const auto& [key, inner] : value.items())
      if (const std::string name = ascii_lower(key); name == "scores" || name == "score") return {true, list(inner)};
    if (const Scores named = by_name(value)) return {true, named};
    Found last;
    for (const auto& inner : value)
      if (const Found found = in(inner, depth + 1); found.found) last = found;
    return last;
  }

  /// The whole reply is the list or the level.
  Scores bare(std::string_view text) const {
    const auto first = text.find_first_not_of(" \t\r\n*`");
    if (first == std::string_view::npos) return std::nullopt;
    text = text.substr(first, text.find_last_not_of(" \t\r\n*`.") - first + 1);
    if (text.starts_with('[')) return list(io::detail::find_json(text).value_or(json()));
    if (form_.least.size() != 1) return std::nullopt;
    const std::string small = ascii_lower(text);
    for (std::string_view label : {"score:", "level:", "rating:"})
      if (small.starts_with(label)) text.remove_prefix(label.size());
    const auto start = text.find_first_not_of(' ');
    return start == std::string_view::npos ? std::nullopt : list(json(std::string(text.substr(start))));
  }

 private:
  /// A number, or a text that is one ("2", "2/2").
  std::optional<double> number(const json& value, std::size_t criterion) const {
    double parsed = 0;
    if (value.is_number()) {
      parsed = value.get<double>();
    } else if (value.is_string()) {
      std::string_view text = value.get_ref<const std::string&>();
      text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
      if (error != std::errc()) return std::nullopt;
      const std::string rest =
          replaced(std::string(end, static_cast<std::size_t>(text.data() + text.size() - end)), " ", "");
      if (!rest.empty() && rest != format_text("/{}", form_.most[criterion])) return std::nullopt;
    } else if (value.is_object()) {  // {"points": 2, "why": "a pun"}
      for (const auto& [key, inner] : value.items())
        if (const std::string name = ascii_lower(key); name == "points" || name == "score" || name == "value")
          return inner.is_object() ? std::nullopt : number(inner, criterion);
      return std::nullopt;
    } else {
      return std::nullopt;
    }
    if (!std::isfinite(parsed) || parsed < form_.least[criterion] || parsed > form_.most[criterion])
      return std::nullopt;
    return parsed;
  }

  Scores list(const json& value) const {
    if (value.is_object()) return by_name(value);
    const json one = json::array({value});
    const json& values = value.is_array() ? value : one;
    if (values.size() != form_.least.size()) return std::nullopt;
    std::vector<double> scores;
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!same_criterion(values[i], i)) return std::nullopt;
      const auto score = number(values[i], i);
      if (!score) return std::nullopt;
      scores.push_back(*score);
    }
    return scores;
  }

  /// An entry that names its criterion must stand in its place.
  bool same_criterion(const json& entry, std::size_t i) const {
    if (!entry.is_object() || form_.least.size() == 1) return true;
    for (const char* key : {"name", "criterion"})
      if (const auto found = entry.find(key); found != entry.end())
        return found->is_string() && ascii_alike(found->get_ref<const std::string&>(), form_.names[i]);
    return true;
  }

  Scores by_name(const json& value) const {
    std::vector<std::optional<double>> scores(form_.least.size());
    std::size_t matched = 0;
    for (const auto& [key, inner] : value.items())
      for (std::size_t i = 0; i < form_.names.size(); ++i)
        if (ascii_alike(key, form_.names[i])) {
          const std::size_t place = std::min(i, scores.size() - 1);
          ++matched;
          scores[place] = number(inner, place);
        }
    if (matched != scores.size() || std::any_of(scores.begin(), scores.end(), [](const auto& s) { return !s; }))
      return std::nullopt;
    std::vector<double> all;
    for (const auto& score : scores) all.push_back(*score);
    return all;
  }

  const ScoreForm& form_;
};

}  // namespace

std::optional<std::vector<double>> read_scores(std::string_view reply, const ScoreForm& form) {
  const auto part = final_part(reply);
  if (!part) return std::nullopt;
  if (const auto start = part->find_first_not_of(" \t\r\n"); start != std::string::npos && (*part)[start] == '"')
    if (const auto inner = io::detail::find_json(*part);
        inner && inner->is_string() && inner->get<std::string>() != reply)
      return read_scores(inner->get<std::string>(), form);  // JSON in a JSON text
  const std::string_view text = *part;
  const Reader reader(form);
  Reader::Found last;
  std::size_t end = 0;
  int tried = 0;
  for (std::size_t at = text.find('{'); at != std::string_view::npos && tried++ < kObjects;) {
    const std::size_t close = object_end(text, at);
    const json value = close == std::string_view::npos ? json() : parse(text.substr(at, close - at));
    if (!value.is_object()) {
      at = text.find('{', at + 1);
      continue;
    }
    if (const auto found = reader.in(value); found.found) {
      last = found;
      end = close;
    }
    at = text.find('{', close);
  }
  // A later score that was cut off, or that cannot be read, replaces an earlier one: there is none.
  if (last.found) return text.find("\"scores\"", end) == std::string_view::npos ? last.scores : std::nullopt;
  return reader.bare(text);
}

std::string message_text(const json& message) {
  const auto content = message.is_object() ? message.find("content") : message.end();
  if (!message.is_object() || content == message.end()) return {};
  if (content->is_string()) return content->get<std::string>();
  if (content->is_object() && content->contains("text") && (*content)["text"].is_string())
    return (*content)["text"].get<std::string>();
  std::string text;
  if (content->is_array())
    for (const auto& part : *content) {
      if (part.is_string()) text += part.get<std::string>();
      if (!part.is_object() || !part.contains("text") || !part["text"].is_string()) continue;
      const auto type = part.find("type");
      if (type == part.end() || *type == "text" || *type == "output_text") text += part["text"].get<std::string>();
    }
  return text;
}

}  // namespace steer::eval::detail
