#include "eval/run/csv.hpp"

#include <utility>

#include <steer/core/error.hpp>

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
    } else if (c == '\r' && i + 1 < text.size() && text[i + 1] == '\n') {
      // the LF that follows ends the record
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
  return parse_csv(io::detail::read_text_file(path, "read_csv"), path.string());
}

std::string csv_line(const CsvRow& fields) {
  std::string line;
  for (const auto& field : fields) {
    if (&field != &fields.front()) line += ',';
    if (field.find_first_of(",\"\r\n") == std::string::npos) {
      line += field;
      continue;
    }
    line += '"';
    for (char c : field) line += c == '"' ? std::string("\"\"") : std::string(1, c);
    line += '"';
  }
  return line + '\n';
}

}  // namespace steer::eval::detail
