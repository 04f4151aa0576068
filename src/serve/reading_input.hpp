#pragma once
// The text that a reading is of, and its tokens in an answer.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include <steer/features/activations.hpp>
#include <steer/sae/sae.hpp>

#include "serve/service.hpp"

namespace steer::serve::detail {

/// Reads one of "prompt" (text or ids) and "messages". @throws ApiError(400), also for one longer than the context.
std::vector<std::int64_t> read_text(Fields& fields, const Service& service);
/// A list whose entries are texts, lists of ids, or lists of messages.
std::vector<TokenizedText> read_texts(Fields& fields, std::string_view key, const Service& service);
/// "sae" by name, or the first one.
const ServedSae& read_sae(Fields& fields, const Service& service);
std::int64_t read_feature(Fields& fields, const ServedSae& served);
/// Positions within [0, tokens), ascending; negative ones count from the end; `fallback` when the field is absent.
std::vector<std::int64_t> read_positions(Fields& fields, std::int64_t tokens, std::vector<std::int64_t> fallback);
/// [{"position", "id", "text"}].
nlohmann::json tokens_json(const Service& service, const std::vector<std::int64_t>& ids,
                           const std::vector<std::int64_t>& positions);
/// {"feature", "label"}.
nlohmann::json feature_json(const ServedSae& served, std::int64_t feature);
/// 0, 1, ... count - 1.
std::vector<std::int64_t> all_positions(std::int64_t count);

}  // namespace steer::serve::detail
