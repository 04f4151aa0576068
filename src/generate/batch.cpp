#include "generate/batch.hpp"

#include <steer/core/error.hpp>

#include "model/reproducible.hpp"

namespace steer::generation::detail {

EngineOptions batch_options(const Model& model, std::size_t rows) {
  return {.max_rows = 32,
          .step_tokens = 1024,
          .max_waiting = static_cast<std::int64_t>(rows),
          .keep_answers = false,
          .batch_invariant = model::detail::reproducible(model).batch_invariant};
}

void run_batch(Engine& engine, std::string_view where,
               const std::function<std::string(RowId, const GenerateResult&)>& name_of,
               const std::function<void(RowId, const GenerateResult&)>& ended) {
  const auto on_event = [&](const EngineEvent& e) {
    if (!e.result) return;
    if (e.error) {
      try {
        std::rethrow_exception(e.error);
      } catch (const Error& error) {
        fail(error.code(), where, "{}: {}", name_of(e.row, *e.result), error.what());
      }
    }
    if (ended) ended(e.row, *e.result);
  };
  while (engine.step(on_event)) {
  }
}

}  // namespace steer::generation::detail
