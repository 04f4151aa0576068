#pragma once
// How others store matrices in fewer bits, one format a file: each shows its parts as the matrix they stand for.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <steer/io/tensor_reader.hpp>
#include <steer/model/config.hpp>

#include "io/view_reader.hpp"

namespace steer::model::detail {

using Plain = io::detail::ViewTensor;

inline constexpr auto kStoredWhere = "Model::load";
inline constexpr std::int64_t kStoredBlock = 32;  ///< values of a Q8_0 block, of an MXFP4 block

/// One of a matrix's parts. @throws Error(format | shape) where it is missing or of another shape.
const TensorInfo& part(const TensorReader& reader, const std::string& name, const std::vector<std::int64_t>& shape);
at::Tensor floats(const TensorReader& reader, const std::string& name);
at::Tensor integers(const TensorReader& reader, const std::string& name);

/// GPTQ as AutoGPTQ and GPTQModel write it, AWQ as AutoAWQ's GEMM version.
Plain four_bits(const TensorReader& reader, const TensorInfo& weight, const std::string& name, const StoredWeights& s);

/// FP8 as DeepSeek-V3 and compressed-tensors: a matrix of f8 times the scale of its block, of its row, or of all.
Plain scaled(const TensorReader& reader, const TensorInfo& weight, const std::string& scale_name,
             const StoredWeights& s);

/// bitsandbytes' serialised 4-bit state.
Plain four_bit_blocks(const TensorReader& reader, const TensorInfo& weight, const std::string& state_name);
/// bitsandbytes' 8 bits: rows of int8 times the row's largest value over 127.
Plain eight_bit_rows(const TensorReader& reader, const TensorInfo& weight, const std::string& scale_name);

/// The last MXFP4 tensor that was repacked: its parts are asked for one after another, and share its memory.
struct Repacked {
  std::string name;
  at::Tensor bytes;
};
/// MXFP4 as gpt-oss: experts' matrices, stored [experts, out, in / 32, 16], shown [experts, out, in] (unpacked files
/// have them transposed).
Plain mxfp4(const TensorReader& reader, const TensorInfo& blocks, const std::string& name,
            const std::shared_ptr<Repacked>& last);

}  // namespace steer::model::detail
