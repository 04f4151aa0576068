#include "text/pre_tokenizer.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/json_fields.hpp"
#include "text/space_mark.hpp"
#include "text/text_decoder.hpp"
#include "text/unicode.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail {

const char* const gpt2_pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

SplitBehavior behavior_of(const JsonFields& fields) {
  const std::string text = fields.text("behavior");
  if (text == "Removed") return SplitBehavior::removed;
  if (text == "Isolated") return SplitBehavior::isolated;
  if (text == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (text == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (text == "Contiguous") return SplitBehavior::contiguous;
  fields.unsupported("behavior " + io::detail::quote(text),
                     "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

// The character at a place of a byte-alphabet text, written as UTF-8.
void append_alphabet(std::string& out, std::string_view bytes, std::vector<std::uint32_t>& byte_of) {
  for (std::uint32_t i = 0; i < bytes.size(); ++i) {
    utf8_append(out, alphabet_of_byte(static_cast<unsigned char>(bytes[i])));
    byte_of.resize(out.size(), i);
  }
  byte_of.push_back(static_cast<std::uint32_t>(bytes.size()));
}

}  // namespace

void PreTokenizer::read(const nlohmann::json& section, const std::string& name) {
  if (section.is_null()) return;
  const JsonFields fields(section, "pre_tokenizer", name);
  const std::string type = fields.text("type");
  const auto add_regex = [&](std::string_view pattern, SplitBehavior behavior, bool invert) {
    SplitRule rule{.regex = {}, .text = {}, .is_member = nullptr, .behavior = behavior, .invert = invert};
    rule.regex.emplace_back(pattern, name);
    rules_.emplace_back(std::move(rule));
  };
  if (type == "Sequence") {
    for (const auto& part : fields.array("pretokenizers")) read(part, name);
  } else if (type == "Split") {
    const auto [pattern, is_regex] = fields.pattern("pattern");
    const SplitBehavior behavior = behavior_of(fields);
    const bool invert = fields.flag("invert", false);
    if (is_regex)
      add_regex(pattern, behavior, invert);
    else
      rules_.emplace_back(
          SplitRule{.regex = {}, .text = pattern, .is_member = nullptr, .behavior = behavior, .invert = invert});
  } else if (type == "ByteLevel") {
    if (byte_level_) fields.unsupported("two ByteLevel steps", "one");
    if (fields.flag("add_prefix_space", true)) rules_.emplace_back(PrefixRule{" "});
    if (fields.flag("use_regex", true)) add_regex(gpt2_pattern, SplitBehavior::isolated, false);
    add_alphabet();
  } else if (type == "Metaspace") {
    const std::string mark = fields.text("replacement", std::string(space_mark));
    const bool add_prefix = fields.flag("add_prefix_space", true);
    const std::string scheme = fields.text("prepend_scheme", add_prefix ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never")
      fields.unsupported("prepend_scheme " + io::detail::quote(scheme), "always, first, never");
    rules_.emplace_back(MarkSpacesRule{mark});
    if (scheme != "never") rules_.emplace_back(PrefixRule{mark, scheme == "first"});
    if (fields.flag("split", true))
      rules_.emplace_back(
          SplitRule{.regex = {}, .text = mark, .is_member = nullptr, .behavior = SplitBehavior::merged_with_next});
  } else if (type == "Digits") {
    add_regex("\\p{N}", fields.flag("individual_digits", false) ? SplitBehavior::isolated : SplitBehavior::contiguous,
              false);
  } else if (type == "Punctuation") {
    // ASCII punctuation counts even where Unicode calls it a symbol.
    add_regex(R"([!-/:-@\x5B-`{-~\p{P}])", fields.find("behavior") ? behavior_of(fields) : SplitBehavior::isolated,
              false);
  } else if (type == "Whitespace") {
    add_regex(R"(\w+|[^\w\s]+)", SplitBehavior::removed, true);
  } else if (type == "WhitespaceSplit") {
    rules_.emplace_back(SplitRule{.regex = {},
                                  .text = {},
                                  .is_member = [](char32_t c) { return is_white_space(c); },
                                  .behavior = SplitBehavior::removed});
  } else {
    fields.unsupported("a pre_tokenizer of type " + io::detail::quote(type),
                       "Sequence, Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit");
  }
}

PreTokenizer::Run::Run(const PreTokenizer& rules) : rules_(rules) {
  for (const auto& rule : rules.rules_)
    if (const auto* split = std::get_if<SplitRule>(&rule); split && !split->regex.empty())
      matchers_.emplace_back(split->regex.front());
}

const std::vector<ByteRange>& PreTokenizer::Run::operator()(MappedText& text, bool at_start) {
  pieces_.clear();
  if (!text.text().empty()) pieces_.push_back({0, static_cast<std::uint32_t>(text.text().size())});
  std::size_t regex_index = 0;
  bool alphabet = false;
  for (const auto& rule : rules_.rules_) {
    if (const auto* split_rule = std::get_if<SplitRule>(&rule)) {
      split(*split_rule, regex_index, text.text(), alphabet);
      if (!split_rule->regex.empty()) ++regex_index;
    } else if (const auto* prefix = std::get_if<PrefixRule>(&rule)) {
      const auto due = [&](ByteRange piece) {
        return !text.text().substr(piece.begin).starts_with(prefix->mark) &&
               (!prefix->first_only || (at_start && piece.begin == 0));
      };
      if (std::any_of(pieces_.begin(), pieces_.end(), due))
        rewrite(text, [&](ByteRange piece) {
          if (due(piece)) text.write(piece.begin, piece.begin, prefix->mark);
          text.keep(piece.begin, piece.end);
          return due(piece) ? prefix->mark.size() + piece.end - piece.begin : piece.end - piece.begin;
        });
    } else if (const auto* spaces = std::get_if<MarkSpacesRule>(&rule)) {
      rewrite(text, [&](ByteRange piece) {
        std::size_t size = 0;
        for (std::size_t at = piece.begin; at < piece.end;) {
          if (text.text()[at] == ' ') {
            text.write(at, at + 1, spaces->mark);
            size += spaces->mark.size();
            ++at;
          } else {
            const std::size_t end = std::min<std::size_t>(text.text().find(' ', at), piece.end);
            text.keep(at, end);
            size += end - at;
            at = end;
          }
        }
        return size;
      });
    } else {
      alphabet = true;
    }
  }
  return pieces_;
}

// `edit` writes one piece anew and returns its new size.
template <class Edit>
void PreTokenizer::Run::rewrite(MappedText& text, const Edit& edit) {
  text.begin_rewrite();
  next_.clear();
  std::uint32_t at = 0;
  for (const ByteRange piece : pieces_) {
    const auto size = static_cast<std::uint32_t>(edit(piece));
    if (size > 0) next_.push_back({at, at + size});
    at += size;
  }
  pieces_.swap(next_);
  text.commit();
}

// Matches and what lies between them, in order, over the whole piece.
void PreTokenizer::Run::find_matches(const SplitRule& rule, std::size_t index, std::string_view piece) {
  matches_.clear();
  std::uint32_t done = 0;
  const auto size = static_cast<std::uint32_t>(piece.size());
  const auto found = [&](ByteRange match) {
    if (match.begin > done) matches_.push_back({{done, match.begin}, false});
    matches_.push_back({match, true});
    done = match.end;
  };
  if (!rule.regex.empty()) {
    ByteRange match;
    for (std::size_t at = 0; at <= piece.size() && matchers_[index].find(piece, at, match);) {
      at = match.end;
      if (match.begin == match.end) {
        if (at < piece.size())
          at += utf8_length(piece[at]);
        else
          ++at;
        if (match.begin == done && done > 0) continue;  // empty, right behind the last match: no new cut
      }
      found(match);
    }
  } else if (rule.is_member) {
    for (std::uint32_t at = 0; at < size;) {
      const Utf8Step step = utf8_step(piece, at);
      if (rule.is_member(step.code)) found({at, at + step.length});
      at += step.length;
    }
  } else if (!rule.text.empty()) {
    for (std::size_t at = 0; (at = piece.find(rule.text, at)) != std::string_view::npos; at += rule.text.size())
      found({static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(at + rule.text.size())});
  }
  if (done < size) matches_.push_back({{done, size}, false});
  if (rule.invert)
    for (Match& match : matches_) match.is_match = !match.is_match;
}

void PreTokenizer::Run::split(const SplitRule& rule, std::size_t index, std::string_view text, bool alphabet) {
  next_.clear();
  for (const ByteRange piece : pieces_) {
    std::string_view seen = text.substr(piece.begin, piece.end - piece.begin);
    if (alphabet) {
      in_alphabet_.clear();
      byte_of_.clear();
      append_alphabet(in_alphabet_, seen, byte_of_);
      seen = in_alphabet_;
    }
    find_matches(rule, index, seen);
    bool previous = false;
    joined_.clear();
    const auto join = [&](const Match& match, bool with_last) {
      if (with_last && !joined_.empty()) {
        joined_.back().range.begin = std::min(joined_.back().range.begin, match.range.begin);
        joined_.back().range.end = std::max(joined_.back().range.end, match.range.end);
      } else {
        joined_.push_back(match);
      }
      previous = match.is_match;
    };
    switch (rule.behavior) {
      case SplitBehavior::removed:
        for (const Match& match : matches_)
          if (!match.is_match) joined_.push_back(match);
        break;
      case SplitBehavior::isolated:
        joined_.swap(matches_);
        break;
      case SplitBehavior::merged_with_previous:
        for (const Match& match : matches_) join(match, match.is_match && !previous);
        break;
      case SplitBehavior::merged_with_next:
        std::reverse(matches_.begin(), matches_.end());
        for (const Match& match : matches_) join(match, match.is_match && !previous);
        std::reverse(joined_.begin(), joined_.end());
        break;
      case SplitBehavior::contiguous:
        for (const Match& match : matches_) join(match, match.is_match == previous);
        break;
    }
    for (const Match& match : joined_) {
      ByteRange range = match.range;
      if (alphabet) range = {byte_of_[range.begin], byte_of_[range.end]};
      if (range.begin < range.end) next_.push_back({piece.begin + range.begin, piece.begin + range.end});
    }
  }
  pieces_.swap(next_);
}

}  // namespace steer::text::detail
