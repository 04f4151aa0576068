#pragma once

#include <memory>

#include <nlohmann/json_fwd.hpp>

#include <steer/io/tensor_reader.hpp>
#include <steer/model/config.hpp>

namespace steer::model::detail {

/// What a `quantization_config` says. @throws Error(unsupported) naming a method or setting that steer does not have.
StoredWeights read_quantisation(const nlohmann::json& config);

/// The tensors of a Hugging Face file as plain ones: GPTQ's, AWQ's, bitsandbytes' and MXFP4's parts become the matrix
/// they stand for, FP8 matrices are multiplied with their scales. GPTQ and AWQ keep 8 bits a weight where that loses
/// nothing (as GGUF's Q8_0), MXFP4 becomes bf16, which holds it exactly, all others f32. Nothing is decoded before it
/// is read. `reader` must outlive the view.
/// @return null when there is nothing to decode.
/// @throws Error(format | shape) for parts that are missing or do not fit; Error(unsupported) when the configuration
///         names a quantisation and no tensor has it.
std::shared_ptr<const TensorReader> plain_tensors(const TensorReader& reader, const StoredWeights& stored);

}  // namespace steer::model::detail
