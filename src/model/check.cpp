#include <steer/model/check.hpp>

#include <steer/io/tensor_reader.hpp>

#include "model/assemble.hpp"
#include "model/model_files.hpp"

namespace steer {

ModelSummary check_model(const std::filesystem::path& path, const LoadOptions& options) {
  auto files = model::detail::open_model_files(path, options);
  auto weights = model::detail::check_weights(files.config, *files.tensors, options);
  ModelSummary summary;
  summary.format = files.tensors->format();
  summary.weight_bytes = weights.bytes;
  summary.tensors = static_cast<std::int64_t>(files.tensors->tensors().size());
  summary.has_tokenizer = files.tokenizer.has_value();
  summary.warnings = std::move(files.config.warnings);
  summary.warnings.insert(summary.warnings.end(), weights.warnings.begin(), weights.warnings.end());
  summary.config = std::move(files.config);
  return summary;
}

}  // namespace steer
