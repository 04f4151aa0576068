#pragma once
// tokenizer.json as a document: the two large tables apart, the rest as JSON.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace steer::text::detail {

inline constexpr std::string_view kTokenizerLoad = "Tokenizer::load";

struct TokenizerJson {
  nlohmann::json rest;  ///< without model.vocab and model.merges
  std::vector<std::pair<std::string, std::int32_t>> vocabulary;
  struct Merge {
    std::size_t begin;          ///< in merge_text
    std::uint32_t left, right;  ///< lengths; the right part follows the left
  };
  std::string merge_text;
  std::vector<Merge> merges;
  bool has_merges = false;
};

/// Parses without building the tables as JSON values (a vocabulary of 262,144 pieces would take half a gigabyte).
/// @throws Error(format) for broken JSON, nesting deeper than 64, or tables of the wrong form.
TokenizerJson parse_tokenizer_json(std::string_view bytes, const std::string& name);

}  // namespace steer::text::detail
