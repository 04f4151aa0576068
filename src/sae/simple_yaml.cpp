#include "sae/simple_yaml.hpp"

#include <charconv>
#include <cstdlib>
#include <vector>

#include <steer/core/error.hpp>

#include "io/bytes.hpp"
#include "io/text_file.hpp"

namespace steer::sae::detail {
namespace {

using nlohmann::json;

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

/// Without a comment, which a '#' begins that stands first or after a blank, outside of quotes.
std::string_view without_comment(std::string_view line) {
  char quoted = 0;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (quoted)
      quoted = line[i] == quoted ? 0 : quoted;
    else if (line[i] == '"' || line[i] == '\'')
      quoted = line[i];
    else if (line[i] == '#' && (i == 0 || line[i - 1] == ' ' || line[i - 1] == '\t'))
      return line.substr(0, i);
  }
  return line;
}

json scalar(std::string_view text) {
  if (text.empty() || text == "null" || text == "~") return nullptr;
  if (text == "true" || text == "True") return true;
  if (text == "false" || text == "False") return false;
  if (text.size() >= 2 && (text.front() == '"' || text.front() == '\'') && text.back() == text.front())
    return std::string(text.substr(1, text.size() - 2));
  std::int64_t integer = 0;
  const auto* end = text.data() + text.size();
  if (const auto [at, error] = std::from_chars(text.data(), end, integer); error == std::errc() && at == end)
    return integer;
  double number = 0;
  if (const auto [at, error] = std::from_chars(text.data(), end, number); error == std::errc() && at == end)
    return number;
  return std::string(text);
}

}  // namespace

json parse_simple_yaml(std::string_view text, std::string_view where, std::string_view what) {
  constexpr std::size_t kDeepest = 32;
  json root = json::object();
  struct Level {
    std::size_t indent;
    json* object;
  };
  std::vector<Level> open = {{0, &root}};
  json* last = nullptr;  // the value of the line before, in case this one is nested below it
  std::size_t last_indent = 0;
  std::int64_t number = 0;
  while (!text.empty()) {
    const auto line_end = std::min(text.find('\n'), text.size());
    const auto line = without_comment(text.substr(0, line_end));
    text.remove_prefix(std::min(line_end + 1, text.size()));
    ++number;
    const auto content = trimmed(line);
    if (content.empty() || content == "---" || content.starts_with("- ") || content == "-") continue;
    const auto indent = line.find_first_not_of(' ');
    const auto colon = content.find(": ");
    const auto key_end = colon != std::string_view::npos ? colon : content.ends_with(':') ? content.size() - 1 : 0;
    if (key_end == 0) {
      // A line of a list's item or of a long text: deeper than the key it belongs to.
      require(last && indent > last_indent, ErrorCode::format, where,
              "expected \"key: value\" in line {} but got {} ({})", number, io::detail::quote(content), what);
      continue;
    }
    if (last && indent > last_indent && last->is_null()) {
      *last = json::object();
      open.push_back({indent, last});
      require(open.size() <= kDeepest, ErrorCode::format, where,
              "expected settings nested at most {} deep but got more in line {} ({})", kDeepest, number, what);
    }
    while (open.size() > 1 && indent < open.back().indent) open.pop_back();
    if (indent > open.back().indent) continue;  // below a list or a text: nothing that is read
    auto& value = (*open.back().object)[std::string(trimmed(content.substr(0, key_end)))];
    value = scalar(trimmed(content.substr(std::min(key_end + 1, content.size()))));
    last = &value;
    last_indent = indent;
  }
  return root;
}

json read_simple_yaml(const std::filesystem::path& path, std::string_view where) {
  return parse_simple_yaml(io::detail::read_text_file(path, where, std::size_t{1} << 20), where, path.string());
}

}  // namespace steer::sae::detail
