#include "eval/run/final_letter.hpp"

#include <cctype>
#include <string>
#include <vector>

#include "core/ascii.hpp"
#include "eval/run/answer_text.hpp"

namespace steer::eval::detail {
namespace {

struct Tag {
  std::size_t begin = 0, end = 0;  // of all of it
  std::string_view content;        // inside, or of its attribute
};

bool blank_character(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/// A markup tag that starts at a '<': its name in lower case, and where it ends.
struct Markup {
  std::string name, rest;
  bool closing = false;
  std::size_t end = 0;
};

std::optional<Markup> markup_at(std::string_view text, std::size_t at) {
  const std::size_t close = text.substr(at, 80).find('>');
  if (text[at] != '<' || close == std::string_view::npos) return std::nullopt;
  Markup markup{.name = {}, .rest = {}, .end = at + close + 1};
  std::string inside = ascii_lower(text.substr(at + 1, close - 1));
  std::size_t i = 0;
  while (i < inside.size() && blank_character(inside[i])) ++i;
  if (i < inside.size() && inside[i] == '/') markup.closing = true, ++i;
  while (i < inside.size() && blank_character(inside[i])) ++i;
  while (i < inside.size() &&
         (std::isalnum(static_cast<unsigned char>(inside[i])) || inside[i] == '_' || inside[i] == '-'))
    markup.name += inside[i++];
  markup.rest = inside.substr(i);
  return markup;
}

bool answer_name(std::string_view name) {
  static const Words kNames{"answer", "final_answer", "finalanswer", "final-answer", "final",
                            "ans",    "result",       "option",      "choice"};
  return kNames.contains(name);
}
bool thought_name(std::string_view name) {
  return name == "think" || name == "thinking" || name == "thought" || name == "thoughts" || name == "reasoning" ||
         name == "reflection" || name == "scratchpad";
}

std::vector<Tag> tags_of(std::string_view text) {
  std::vector<Tag> tags;
  constexpr std::size_t kNone = std::string_view::npos;
  std::size_t open = kNone, content = 0;  // where a tag opened, and what it holds begins
  for (std::size_t at = text.find('<'); at != std::string_view::npos; at = text.find('<', at + 1)) {
    const auto markup = markup_at(text, at);
    if (!markup || !answer_name(markup->name)) continue;
    if (markup->closing) {
      if (open != kNone) {
        tags.push_back({open, markup->end, text.substr(content, at - content)});
      } else {  // only the end of the tag is there: what stands before it on its line
        std::size_t begin = at;
        while (begin > 0 && text[begin - 1] != '\n' && text[begin - 1] != '>') --begin;
        tags.push_back({begin, markup->end, text.substr(begin, at - begin)});
      }
      open = kNone;
    } else if (markup->rest.find_first_not_of(" /\t") != std::string::npos && open == kNone) {  // <answer letter="D"/>
      tags.push_back({at, markup->end, text.substr(at + 1, markup->end - at - 2)});
      if (!markup->rest.ends_with('/')) open = at, content = markup->end;
    } else {
      if (open != kNone) tags.push_back({open, at, text.substr(content, at - content)});
      open = at;
      content = markup->end;
    }
  }
  if (open != kNone) tags.push_back({open, text.size(), text.substr(content)});
  return tags;
}

class Reader {
 public:
  explicit Reader(int choices) : last_(static_cast<char>('A' + choices - 1)) {}

  /// A part that is no thought.
  Reading read(std::string_view text) const {
    const auto tags = tags_of(text);
    if (tags.empty()) return prose(text);
    Reading reading;
    std::size_t end = 0;  // of the tag that decided
    for (std::size_t t = 0; t < tags.size(); ++t) {
      const Reading next = content(tags[t].content);
      if (!next.decided) continue;
      if (reading.letter && next.letter && reading.letter != next.letter) {
        // "<answer>C</answer> or maybe <answer>D</answer>"
        const std::string_view between = text.substr(end, tags[t].begin - end);
        if (Text(between, last_).starts_with_word({"or", "and", "maybe", "perhaps"})) {
          reading = {true, std::nullopt};
          end = tags[t].end;
          continue;
        }
      }
      reading = next;
      end = tags[t].end;
    }
    const std::string_view after = text.substr(tags.back().end);
    if (reading.decided) {
      const Text rest(after, last_);
      if (const Reading later = rest.statement(); later.decided && says_answer(after)) return later;
      return rest.retracts() ? Reading{true, std::nullopt} : reading;
    }
    // Tags that hold nothing: what is said around them.
    if (const Reading later = prose(after); later.decided) return later;
    return prose(text.substr(0, tags.front().begin));
  }

  /// A part that is a thought and all there is: only what it states as the answer.
  Reading thought(std::string_view text) const { return says_answer(text) ? Text(text, last_).statement() : Reading{}; }

 private:
  static bool says_answer(std::string_view text) { return ascii_lower(text).find("answer") != std::string::npos; }

  Reading content(std::string_view inside) const {
    const Text text(inside, last_);
    if (text.blank()) return {};
    if (const Reading bare = text.bare(/*tagged=*/true); bare.decided) return bare;
    if (const Reading said = text.statement(); said.decided) return said;
    if (text.undecided()) return {true, std::nullopt};
    return text.in_brackets();
  }

  Reading prose(std::string_view text) const {
    const Text whole(text, last_);
    if (const Reading said = whole.statement(); said.decided) return said;
    if (const Reading bare = whole.bare(); bare.decided) return bare;
    if (const Reading last = whole.last_sentence(); last.decided) return last;
    // The last line, where it is a letter alone.
    while (!text.empty() && blank_character(text.back())) text.remove_suffix(1);
    const auto line = text.rfind('\n');
    if (line == std::string_view::npos) return {};
    const std::string_view before = text.substr(0, line), last = text.substr(line + 1);
    const auto previous = before.find_last_not_of(" \t\r\n");
    if (previous != std::string_view::npos) {
      const auto start = before.rfind('\n', previous);
      const std::string_view above = before.substr(start == std::string_view::npos ? 0 : start + 1);
      if (Text(above, last_).bare().decided) return {};  // choices, one a line
    }
    return Text(last, last_).bare();
  }

  char last_;
};

}  // namespace

std::optional<char> final_letter(std::string_view response, int choices) {
  const Reader reader(choices);
  // Thoughts: what follows the last that was closed, and what an open one holds.
  std::size_t open = std::string_view::npos, thought_begin = 0, thought_end = 0, rest = 0;
  bool closed = false;
  for (std::size_t at = response.find('<'); at != std::string_view::npos; at = response.find('<', at + 1)) {
    const auto markup = markup_at(response, at);
    if (!markup || !thought_name(markup->name)) continue;
    if (markup->closing) {
      thought_begin = open == std::string_view::npos ? 0 : open;
      thought_end = at;
      rest = markup->end;
      closed = true;
      open = std::string_view::npos;
    } else if (open == std::string_view::npos) {
      open = markup->end;
    }
  }
  if (open != std::string_view::npos) {
    // A thought that never ends: only an answer in its tag, which models write there when they forget to close.
    const auto tags = tags_of(response.substr(open));
    if (!tags.empty()) return reader.read(response.substr(open + tags.front().begin)).letter;
    const std::string_view before =
        closed ? response.substr(rest, response.find('<', rest) - rest) : std::string_view();
    return before.empty() ? std::nullopt : reader.read(before).letter;
  }
  if (!closed) return reader.read(response).letter;
  const std::string_view after = response.substr(rest);
  if (Text(after, 'Z').blank() && tags_of(after).empty()) {
    const std::string_view thought = response.substr(thought_begin, thought_end - thought_begin);
    const auto tags = tags_of(thought);
    return tags.empty() ? reader.thought(thought).letter : reader.read(thought).letter;
  }
  return reader.read(after).letter;
}

}  // namespace steer::eval::detail
