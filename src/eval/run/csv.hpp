#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace steer::eval::detail {

using CsvRow = std::vector<std::string>;

/// Splits RFC 4180 text: quoted fields may hold commas, line breaks and doubled quotes; CRLF, LF and CR end a record; a
/// UTF-8 byte order mark and empty lines are skipped.
/// @param name  what to call the text in messages.
/// @throws Error(format) with the line for a quote that never closes or text after a closing quote.
std::vector<CsvRow> parse_csv(std::string_view text, std::string_view name);

/// The same over a file. @throws Error(io) if it cannot be read.
std::vector<CsvRow> read_csv(const std::filesystem::path& path);

/// One record, ending with LF: quotes fields that hold a comma, quote or line break, and what a reader would skip.
std::string csv_line(const CsvRow& fields);

/// The whole of a file, without a UTF-8 byte order mark. @param where  the public function, for the message.
/// @throws Error(io); Error(format) for UTF-16 and UTF-32.
std::string read_plain_text(const std::filesystem::path& path, std::string_view where);

/// Whether a text is UTF-8 throughout (no surrogates, no overlong forms).
bool is_utf8(std::string_view text);

/// Without spaces, tabs and line ends around it.
std::string_view trim(std::string_view text);
/// Each line that is not blank, and its place: "PATH, line N".
void for_each_line(std::string_view text, const std::filesystem::path& path,
                   const std::function<void(std::string_view line, const std::string& place)>& visit);

}  // namespace steer::eval::detail
