// Neuronpedia's export: one JSON object a line, gzipped, in batches. Written by Python, so NaN and Infinity occur bare.
#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/sae/labels.hpp>

namespace steer {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kImport = "FeatureLabels::import_neuronpedia";
/// A row of the export has some hundred kilobytes at most; more is not a row.
constexpr std::size_t kLongestLine = std::size_t{64} << 20;

/// Calls `line(text, number)` for each line of a file that may be gzipped.
template <class F>
void each_line(const fs::path& path, F&& line) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  require(file != nullptr, ErrorCode::io, kImport, "cannot open {}", path.string());
  gzbuffer(file.get(), 1 << 18);
  std::vector<char> block(1 << 18);
  std::string text;
  std::int64_t number = 0;
  const auto finish = [&] {
    ++number;
    if (!text.empty() && text.back() == '\r') text.pop_back();
    if (!text.empty()) line(text, number);
    text.clear();
  };
  for (;;) {
    const int got = gzread(file.get(), block.data(), static_cast<unsigned>(block.size()));
    int code = 0;
    if (got < 0)
      fail(ErrorCode::format, kImport, "{} is damaged after line {}: {}", path.string(), number,
           gzerror(file.get(), &code));
    if (got == 0) break;
    for (const char* p = block.data(); p < block.data() + got;) {
      const auto* end =
          static_cast<const char*>(std::memchr(p, '\n', static_cast<std::size_t>(block.data() + got - p)));
      text.append(p, end ? end : block.data() + got);
      require(text.size() <= kLongestLine, ErrorCode::format, kImport, "line {} of {} is longer than {} bytes",
              number + 1, path.string(), kLongestLine);
      if (!end) break;
      finish();
      p = end + 1;
    }
  }
  int code = Z_OK;
  gzerror(file.get(), &code);
  require(code == Z_OK || code == Z_STREAM_END, ErrorCode::format, kImport, "{} is cut short after line {}",
          path.string(), number);
  if (!text.empty()) finish();
}

/// Python writes NaN, Infinity and -Infinity, which JSON does not know: null instead, outside of strings.
void replace_python_numbers(std::string& text) {
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\' && quoted) {
      ++i;
    } else if (c == '"') {
      quoted = !quoted;
    } else if (!quoted) {
      for (const std::string_view word : {"NaN", "-Infinity", "Infinity"})
        if (text.compare(i, word.size(), word) == 0) {
          text.replace(i, word.size(), "null");
          i += 3;
          break;
        }
    }
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

std::int64_t index_of(const json& row, const fs::path& path, std::int64_t line) {
  const auto found = row.find("index");
  if (found != row.end() && found->is_number_integer()) return found->get<std::int64_t>();
  std::int64_t value = -1;
  if (found != row.end() && found->is_string()) {
    const auto& text = found->get_ref<const std::string&>();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) value = -1;
  }
  require(value >= 0, ErrorCode::format, kImport, "expected a feature's number as \"index\" in line {} of {}", line,
          path.string());
  return value;
}

std::optional<float> number(const json& row, const char* key) {
  const auto found = row.find(key);
  if (found == row.end() || !found->is_number()) return {};
  const auto value = found->get<float>();
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

std::string text_of(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_string() ? found->get<std::string>() : std::string();
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
  const auto read = [&](const fs::path& path, auto&& use) {
    each_line(path, [&](std::string& text, std::int64_t line) {
      replace_python_numbers(text);
      json row;
      try {
        // Long arrays (activating tokens, the vector itself) are dropped while they are parsed.
        row = json::parse(text, [](int depth, json::parse_event_t event, json&) {
          return !(depth == 1 &&
                   (event == json::parse_event_t::array_start || event == json::parse_event_t::object_start));
        });
      } catch (const json::exception& e) {
        fail(ErrorCode::format, kImport, "line {} of {} is not JSON: {}", line, path.string(), e.what());
      }
      require(row.is_object(), ErrorCode::format, kImport, "expected an object in line {} of {}", line, path.string());
      FeatureRecord record;
      record.feature = index_of(row, path, line);
      use(row, record);
      if (model_id.empty()) model_id = text_of(row, "modelId");
      if (source_id.empty()) source_id = text_of(row, "layer");
      records.push_back(std::move(record));
    });
  };
  const auto statistics = [](const json& row, FeatureRecord& record) {
    record.max_activation = number(row, "maxActApprox");
    record.frac_nonzero = number(row, "frac_nonzero");
    record.default_strength = number(row, "vectorDefaultSteerStrength");
  };
  for (const auto& path : explanations)
    read(path, [&](const json& row, FeatureRecord& record) {
      if (auto text = text_of(row, "description"); !text.empty()) record.explanations.push_back(std::move(text));
      if (single) statistics(row, record);
    });
  for (const auto& path : features) read(path, statistics);
  write(store, records, model_id, source_id);
  return open(store);
}

}  // namespace steer
