#include "eval/run/csv.hpp"

#include <utility>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "io/text_file.hpp"

namespace steer::eval::detail {

std::vector<CsvRow> parse_csv(std::string_view text, std::string_view name) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  std::vector<CsvRow> rows;
  CsvRow row;
  std::string field;
  bool quoted = false, closed = false;  // inside quotes; just after the quote that ended a field
  bool any = false;                     // the record has seen a character
  std::int64_t line = 1, opened_at = 0;
  const auto end_field = [&] {
    row.push_back(std::exchange(field, {}));
    closed = false;
  };
  const auto end_row = [&] {
    if (!any) return;
    end_field();
    rows.push_back(std::exchange(row, {}));
    any = false;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\n') ++line;
    if (quoted) {
      if (c != '"') {
        field += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        field += '"';
        ++i;
      } else {
        quoted = false;
        closed = true;
      }
    } else if (c == '\n') {
      end_row();
    } else if (c == '\r') {
      if (i + 1 == text.size() || text[i + 1] != '\n') end_row();  // else the LF that follows ends it
    } else if (c == ',') {
      any = true;
      end_field();
    } else if (c == '"' && field.empty() && !closed) {
      any = quoted = true;
      opened_at = line;
    } else {
      require(!closed, ErrorCode::format, "read_csv",
              "expected a comma or a line end after a closing quote but got \"{}\" ({}, line {})", c, name, line);
      any = true;
      field += c;
    }
  }
  require(!quoted, ErrorCode::format, "read_csv",
          "expected a closing quote but got the end of the text ({}, the quote "
          "opened in line {})",
          name, opened_at);
  end_row();
  return rows;
}

std::vector<CsvRow> read_csv(const std::filesystem::path& path) {
  return parse_csv(read_plain_text(path, "read_csv"), path.string());
}

std::string csv_line(const CsvRow& fields) {
  std::string line;
  for (const auto& field : fields) {
    if (&field != &fields.front()) line += ',';
    // A lone empty field would be an empty line, and a byte order mark would be taken for the file's: both are skipped.
    const bool lost = (fields.size() == 1 && field.empty()) || field.starts_with("\xef\xbb\xbf");
    if (!lost && field.find_first_of(",\"\r\n") == std::string::npos) {
      line += field;
      continue;
    }
    line += '"';
    for (char c : field) line += c == '"' ? std::string("\"\"") : std::string(1, c);
    line += '"';
  }
  return line + '\n';
}

std::string read_plain_text(const std::filesystem::path& path, std::string_view where) {
  std::string text = io::detail::read_text_file(path, where);
  const bool wide = text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff") ||
                    text.starts_with(std::string_view("\0\0\xfe\xff", 4)) ||
                    (text.size() >= 4 && text.size() % 2 == 0 && text[0] != 0 && text[1] == 0 && text[3] == 0);
  require(!wide, ErrorCode::format, where,
          "expected UTF-8 text but got UTF-16 or UTF-32 ({}); save it as UTF-8, e.g. iconv -f UTF-16 -t UTF-8",
          path.string());
  if (text.starts_with("\xef\xbb\xbf")) text.erase(0, 3);
  return text;
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::size_t length = byte < 0x80                   ? 1
                               : byte >= 0xC2 && byte < 0xE0 ? 2
                               : byte >= 0xE0 && byte < 0xF0 ? 3
                               : byte >= 0xF0 && byte < 0xF5 ? 4
                                                             : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (std::size_t k = 1; k < length; ++k)
      if ((static_cast<unsigned char>(text[i + k]) & 0xC0) != 0x80) return false;
    if (length > 2) {
      const auto second = static_cast<unsigned char>(text[i + 1]);
      if ((byte == 0xE0 && second < 0xA0) || (byte == 0xED && second > 0x9F) || (byte == 0xF0 && second < 0x90) ||
          (byte == 0xF4 && second > 0x8F))
        return false;
    }
    i += length;
  }
  return true;
}

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

void for_each_line(std::string_view text, const std::filesystem::path& path,
                   const std::function<void(std::string_view line, const std::string& place)>& visit) {
  std::int64_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (!trim(line).empty()) visit(line, format_text("{}, line {}", path.string(), number));
  }
}

}  // namespace steer::eval::detail
