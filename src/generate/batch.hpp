#pragma once

#include <functional>
#include <string>
#include <string_view>

#include <steer/generate/engine.hpp>

namespace steer::generation::detail {

/// Of an engine for so many rows that are read and compared with each other, all submitted before the first step.
EngineOptions batch_options(const Model& model, std::size_t rows);

/// Steps until all rows have ended. @param ended  is told of each one's result; may be empty.
/// @param name_of  what messages call a row, given what came of it so far.
/// @throws what a row failed with, on behalf of `where` and naming the row.
void run_batch(Engine& engine, std::string_view where,
               const std::function<std::string(RowId, const GenerateResult&)>& name_of,
               const std::function<void(RowId, const GenerateResult&)>& ended);

}  // namespace steer::generation::detail
