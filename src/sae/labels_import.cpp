// Neuronpedia's exports: one JSON object a line, gzipped, in batches (the bucket of datasets); or one document, as its
// API gives them: an array of rows, or {"modelId", "layer", "explanations": [rows]}. Written by Python, so NaN and
// Infinity occur bare.
#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <memory>

#include <steer/core/error.hpp>
#include <steer/sae/labels.hpp>

#include "core/format_text.hpp"
#include "io/strict_json.hpp"

namespace steer {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kImport = "FeatureLabels::import_neuronpedia";
/// A row of the export has some hundred kilobytes at most, a whole document some ten megabytes.
constexpr std::size_t kLongestLine = std::size_t{64} << 20, kLongestDocument = std::size_t{256} << 20;

/// A file that may be gzipped, line by line.
class Lines {
 public:
  explicit Lines(const fs::path& path) : path_(path), file_(gzopen(path.c_str(), "rb"), gzclose), block_(1 << 18) {
    require(file_ != nullptr, ErrorCode::io, kImport, "expected a readable file but got none that opens ({})",
            path.string());
    gzbuffer(file_.get(), 1 << 18);
  }

  /// The next line with its end, as it is in the file; false after the last.
  bool next(std::string& line, std::size_t longest = kLongestLine) {
    line.clear();
    while (at_ < end_ || fill()) {
      const auto* begin = block_.data() + at_;
      const auto* found = static_cast<const char*>(std::memchr(begin, '\n', end_ - at_));
      const auto count = found ? static_cast<std::size_t>(found - begin) + 1 : end_ - at_;
      at_ += count;
      line.append(begin, count);
      require(line.size() <= longest, ErrorCode::format, kImport,
              "expected lines of at most {} bytes but got more ({})", longest, place());
      if (found) break;
    }
    if (!line.empty()) ++number_;
    return !line.empty();
  }
  /// Adds the rest of the file to `text`.
  void rest(std::string& text) {
    for (std::string line; next(line, kLongestDocument); text += line)
      require(text.size() + line.size() <= kLongestDocument, ErrorCode::format, kImport,
              "expected a document of at most {} bytes but got more ({})", kLongestDocument, path_.string());
  }
  /// "line 3 of FILE": the line read last.
  std::string place() const { return format_text("line {} of {}", number_, path_.string()); }

 private:
  bool fill() {
    const int got = gzread(file_.get(), block_.data(), static_cast<unsigned>(block_.size()));
    int code = Z_OK;
    const char* problem = gzerror(file_.get(), &code);
    require(got >= 0 && (code == Z_OK || code == Z_STREAM_END), ErrorCode::format, kImport,
            "expected a whole file but got \"{}\" from zlib after {}; download it again", got < 0 ? problem : "cut off",
            place());
    at_ = 0;
    end_ = static_cast<std::size_t>(got);
    return got > 0;
  }

  const fs::path& path_;
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file_;
  std::vector<char> block_;
  std::size_t at_ = 0, end_ = 0;
  std::int64_t number_ = 0;
};

/// Whether every bracket that `text` opens outside of strings is closed.
bool is_closed(std::string_view text) {
  std::int64_t level = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\')
      ++i;
    else if (c == '"')
      quoted = !quoted;
    else if (!quoted)
      level += (c == '{' || c == '[') - (c == '}' || c == ']');
  }
  return level <= 0 && !quoted;
}

/// Python writes NaN, Infinity and -Infinity, which JSON does not know: null instead, outside of strings.
void replace_python_numbers(std::string& text) {
  if (text.find("NaN") == std::string::npos && text.find("Infinity") == std::string::npos) return;
  std::string out;
  out.reserve(text.size() + text.size() / 3);
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\' && i + 1 < text.size()) {
      out += c;
      out += text[++i];
      continue;
    }
    if (c == '"') quoted = !quoted;
    std::string_view found;
    if (!quoted && (c == 'N' || c == '-' || c == 'I'))
      for (const std::string_view word : {"NaN", "-Infinity", "Infinity"})
        if (text.compare(i, word.size(), word) == 0) found = word;
    if (found.empty()) {
      out += c;
    } else {
      out += "null";
      i += found.size() - 1;
    }
  }
  text = std::move(out);
}

/// What is read of one row.
struct Row {
  std::int64_t index = -1;
  std::string description, model_id, source_id;
  std::optional<float> max_activation, frac_nonzero, default_strength;
};

/// Calls `use` for each row of a JSON text: a row, an array of rows, or an object that has its rows under
/// "explanations". Whatever else is nested in them (activating tokens, the vector itself) is passed over while it is
/// parsed.
class ExportEvents final : public nlohmann::json_sax<nlohmann::json> {
 public:
  ExportEvents(const std::string& place, const std::function<void(Row&&)>& use) : place_(place), use_(use) {}

  void parse(std::string_view text) {
    text_ = text;
    nlohmann::json::sax_parse(text.begin(), text.end(), static_cast<nlohmann::json_sax<nlohmann::json>*>(this));
  }

 private:
  /// The level of the outer rows; those under "explanations" are two deeper.
  std::size_t outer() const { return top_is_array_ ? 2 : 1; }
  /// The row whose own fields come now, if any.
  Row* current() {
    if (level_ == outer()) return &row_;
    return level_ == outer() + 2 && in_explanations_ ? &inner_.back() : nullptr;
  }

  bool start_object(std::size_t) override {
    enter();
    if (level_ == outer()) {
      row_ = {};
      inner_.clear();
      has_explanations_ = false;
    } else if (level_ == outer() + 2 && in_explanations_) {
      inner_.emplace_back();
    }
    return true;
  }
  bool start_array(std::size_t) override {
    enter();
    if (level_ == 1)
      top_is_array_ = true;
    else if (level_ == outer() + 1 && key_ == "explanations")
      in_explanations_ = has_explanations_ = true;
    return true;
  }
  bool end_object() override {
    if (level_ == outer()) finish();
    --level_;
    return true;
  }
  bool end_array() override {
    if (level_ == outer() + 1) in_explanations_ = false;
    --level_;
    return true;
  }
  bool key(string_t& text) override {
    if (current()) key_ = std::move(text);
    return true;
  }
  bool string(string_t& text) override {
    require_in_row("a text");
    auto* row = current();
    if (!row) return true;
    if (key_ == "index") {
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), row->index);
      if (error != std::errc() || end != text.data() + text.size()) row->index = -1;
    } else if (key_ == "description") {
      row->description = std::move(text);
    } else if (key_ == "modelId") {
      row->model_id = std::move(text);
    } else if (key_ == "layer") {
      row->source_id = std::move(text);
    }
    return true;
  }
  bool number(double value) {
    require_in_row("a number");
    auto* row = current();
    if (!row) return true;
    const auto narrow = static_cast<float>(value);
    auto* field = key_ == "maxActApprox"                 ? &row->max_activation
                  : key_ == "frac_nonzero"               ? &row->frac_nonzero
                  : key_ == "vectorDefaultSteerStrength" ? &row->default_strength
                                                         : nullptr;
    if (field && std::isfinite(narrow)) *field = narrow;
    return true;
  }
  bool number_integer(number_integer_t value) override { return number(static_cast<double>(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    if (auto* row = current(); row && key_ == "index" && value <= std::uint64_t{INT64_MAX})
      row->index = static_cast<std::int64_t>(value);
    return number(static_cast<double>(value));
  }
  bool number_float(number_float_t value, const string_t&) override { return number(value); }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool parse_error(std::size_t at, const std::string&, const nlohmann::detail::exception& error) override {
    io::detail::refuse_json(text_, at, error, kImport, place_);
  }

  void enter() {
    if (++level_ > io::detail::JsonLimits{}.depth) refuse("values nested deeper than any export's");
  }
  void require_in_row(std::string_view what) const {
    if (level_ < outer()) refuse(what);
  }
  void finish() {
    const bool is_row = row_.index >= 0;
    if (!is_row && !has_explanations_) refuse("an object without a feature's number as \"index\"");
    for (auto& row : inner_) {
      if (row.index < 0) row.index = row_.index;
      if (row.index < 0) refuse("an explanation without a feature's number as \"index\"");
      if (row.model_id.empty()) row.model_id = row_.model_id;
      if (row.source_id.empty()) row.source_id = row_.source_id;
      use_(std::move(row));
    }
    if (is_row) use_(std::move(row_));
  }
  [[noreturn]] void refuse(std::string_view got) const {
    fail(
        ErrorCode::format, kImport,
        "expected rows {{\"index\", \"description\", ...}}, one a line, in an array or under \"explanations\", but got "
        "{} in {}; check that this is an export of Neuronpedia",
        got, place_);
  }

  const std::string& place_;
  std::string_view text_;
  const std::function<void(Row&&)>& use_;
  std::size_t level_ = 0;
  bool top_is_array_ = false, in_explanations_ = false, has_explanations_ = false;
  std::string key_;
  Row row_;
  std::vector<Row> inner_;  // those under the "explanations" of row_, whose own fields may come later
};

/// Calls `use` for each row of a file.
void each_row(const fs::path& path, const std::function<void(Row&&)>& use) {
  Lines lines(path);
  std::string text;
  for (bool first = true; lines.next(text);) {
    if (text.find_first_not_of(" \t\r\n\xef\xbb\xbf") == std::string::npos) continue;
    auto place = lines.place();
    // A document over several lines shows in the first of them, which opens what it does not close.
    if (std::exchange(first, false) && !is_closed(text)) {
      lines.rest(text);
      place = path.string();
    }
    replace_python_numbers(text);
    ExportEvents(place, use).parse(text);
  }
}

/// Batches of a folder in the order of their numbers.
std::vector<fs::path> batches(const fs::path& folder) {
  std::vector<std::pair<std::int64_t, fs::path>> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const auto name = entry.path().filename().string();
    if (!name.ends_with(".jsonl.gz") && !name.ends_with(".jsonl")) continue;
    std::int64_t number = 0;
    if (const auto at = name.find_first_of("0123456789"); at != std::string::npos)
      std::from_chars(name.data() + at, name.data() + name.size(), number);
    found.emplace_back(number, entry.path());
  }
  std::sort(found.begin(), found.end());
  std::vector<fs::path> paths;
  for (auto& [number, path] : found) paths.push_back(std::move(path));
  return paths;
}

}  // namespace

FeatureLabels FeatureLabels::import_neuronpedia(const fs::path& folder, const fs::path& store) {
  // A single file's rows may hold both kinds of fields; those of a folder's files are read as what they are.
  const bool single = fs::is_regular_file(folder);
  const auto explanations = single ? std::vector{folder} : batches(folder / "explanations"),
             features = batches(folder / "features");
  require(!explanations.empty() || !features.empty(), ErrorCode::io, kImport,
          "expected explanations/batch-*.jsonl.gz or features/batch-*.jsonl.gz in {} but found none", folder.string());
  std::vector<FeatureRecord> records;
  std::string model_id, source_id;
  const auto read = [&](const fs::path& path, bool texts, bool statistics) {
    each_row(path, [&](Row&& row) {
      FeatureRecord record;
      record.feature = row.index;
      if (texts && !row.description.empty()) record.explanations.push_back(std::move(row.description));
      if (statistics) {
        record.max_activation = row.max_activation;
        record.frac_nonzero = row.frac_nonzero;
        record.default_strength = row.default_strength;
      }
      if (model_id.empty()) model_id = std::move(row.model_id);
      if (source_id.empty()) source_id = std::move(row.source_id);
      records.push_back(std::move(record));
    });
  };
  for (const auto& path : explanations) read(path, true, single);
  for (const auto& path : features) read(path, false, true);
  require(!records.empty(), ErrorCode::format, kImport, "expected rows of features but got none ({})", folder.string());
  write(store, records, model_id, source_id);
  return open(store);
}

}  // namespace steer
