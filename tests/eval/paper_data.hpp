#pragma once
// The stored rows of arXiv 2602.04903's evaluation (../shared/data/paper_results; its README describes the columns).

#include <zlib.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "eval/run/csv.hpp"
#include "support.hpp"

namespace steer::test {

/// A CSV file with a header, gzipped or not, as one map a row.
inline std::vector<std::map<std::string, std::string>> read_table(const std::filesystem::path& path) {
  gzFile file = gzopen(path.c_str(), "rb");  // reads plain files too
  if (!file) throw std::runtime_error("cannot open " + path.string());
  std::string text;
  char buffer[1 << 16];
  for (int n; (n = gzread(file, buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
  gzclose(file);
  const auto rows = eval::detail::parse_csv(text, path.string());
  std::vector<std::map<std::string, std::string>> table;
  for (std::size_t r = 1; r < rows.size(); ++r) {
    std::map<std::string, std::string> row;
    for (std::size_t c = 0; c < rows[0].size(); ++c) row[rows[0][c]] = rows[r].at(c);
    table.push_back(std::move(row));
  }
  return table;
}

inline OutsideData paper_results() { return outside_data("STEER_PAPER_RESULTS", "../shared/data/paper_results"); }

}  // namespace steer::test
