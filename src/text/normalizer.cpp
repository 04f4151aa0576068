#include "text/normalizer.hpp"

#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>

#include "text/json_fields.hpp"
#include "text/unicode.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail {
namespace {

void apply_rule(const PrependRule& rule, MappedText& text) {
  if (text.text().empty()) return;
  text.begin_rewrite();
  text.write(0, 0, rule.text);
  text.keep(0, text.text().size());
  text.commit();
}

void apply_rule(const ReplaceRule& rule, MappedText& text) {
  const std::string_view source = text.text();
  std::size_t done = 0;
  const auto replace = [&](std::size_t begin, std::size_t end) {
    text.keep(done, begin);
    text.write(begin, end, rule.to);
    done = end;
  };
  text.begin_rewrite();
  bool changed = false;
  if (rule.regex.empty()) {
    if (rule.from.empty()) return;
    for (std::size_t at = 0; (at = source.find(rule.from, at)) != std::string_view::npos; at += rule.from.size()) {
      replace(at, at + rule.from.size());
      changed = true;
    }
  } else {
    Regex::Matcher matcher(rule.regex.front());
    ByteRange match;
    for (std::size_t at = 0; at <= source.size() && matcher.find(source, at, match);) {
      replace(match.begin, match.end);
      changed = true;
      at = match.end;
      if (match.begin == match.end) at += at < source.size() ? utf8_length(source[at]) : 1;
    }
  }
  if (!changed) return;
  text.keep(done, source.size());
  text.commit();
}

void apply_rule(const StripRule& rule, MappedText& text) {
  const std::string_view source = text.text();
  std::size_t begin = 0, end = source.size();
  while (rule.left && begin < end) {
    const Utf8Step step = utf8_step(source, begin);
    if (!is_white_space(step.code)) break;
    begin += step.length;
  }
  while (rule.right && begin < end) {
    std::size_t at = end - 1;
    while (at > begin && (static_cast<unsigned char>(source[at]) & 0xC0) == 0x80) --at;
    if (!is_white_space(utf8_step(source, at).code)) break;
    end = at;
  }
  if (begin == 0 && end == source.size()) return;
  text.begin_rewrite();
  text.keep(begin, end);
  text.commit();
}

void apply_rule(const NormalForm& form, MappedText& text) { normalize(text, form); }

}  // namespace

void Normalizer::read(const nlohmann::json& section, const std::string& name) {
  if (section.is_null()) return;
  const JsonFields fields(section, "normalizer", name);
  const std::string type = fields.text("type");
  if (type == "Sequence") {
    for (const auto& part : fields.array("normalizers")) read(part, name);
  } else if (type == "Prepend") {
    rules_.emplace_back(PrependRule{fields.text("prepend")});
  } else if (type == "Replace") {
    ReplaceRule rule{.from = {}, .regex = {}, .to = fields.text("content")};
    const auto [pattern, is_regex] = fields.pattern("pattern");
    if (is_regex)
      rule.regex.emplace_back(pattern, name);
    else
      rule.from = pattern;
    rules_.emplace_back(std::move(rule));
  } else if (type == "Strip") {
    rules_.emplace_back(StripRule{fields.flag("strip_left", true), fields.flag("strip_right", true)});
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    rules_.emplace_back(NormalForm{.compatible = type.size() == 4, .composed = type.back() == 'C'});
  } else {
    fields.unsupported("a normalizer of type " + io::detail::quote(type),
                       "Sequence, Prepend, Replace, Strip, NFC, NFD, NFKC, NFKD");
  }
}

void Normalizer::apply(MappedText& text) const {
  for (const auto& rule : rules_) std::visit([&](const auto& r) { apply_rule(r, text); }, rule);
}

}  // namespace steer::text::detail
