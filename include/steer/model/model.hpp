#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <steer/model/communicator.hpp>
#include <steer/model/config.hpp>
#include <steer/text/chat_template.hpp>
#include <steer/text/tokenizer.hpp>

namespace steer {

namespace model::detail {
struct Transformer;
}
class TensorReader;

/// How weights are kept in memory. Products accumulate in f32 always.
enum class WeightFormat {
  stored,  ///< as in the file, used in place where it is mapped (f32, f16, bf16, GGUF Q8_0 and Q4_K); others become f32
  f32,
  bf16,
  int8,  ///< quantised at load, symmetric, one scale a group of 32
};

template <>
struct EnumTable<WeightFormat> {
  static constexpr std::string_view name = "weight format";
  static constexpr EnumEntry<WeightFormat> entries[] = {{WeightFormat::stored, "stored"},
                                                        {WeightFormat::f32, "f32"},
                                                        {WeightFormat::bf16, "bf16"},
                                                        {WeightFormat::int8, "int8"}};
};

/// The device that "cpu" or "cuda:N" names. @throws Error(argument) for anything else.
at::Device parse_device(std::string_view name);

/// What activations are rounded to before they are multiplied with weights on the CPU. Sums stay f32.
enum class ComputeFormat {
  f32,   ///< nothing: exact but for the order of additions
  bf16,  ///< bf16, as other libraries do by default; so is what of weights is neither bf16 nor f32. f32 ones: nothing
  int8,  ///< 8 bits and a scale for each 32 of them, for weights kept as int8 or as GGUF blocks (not MXFP4)
};

template <>
struct EnumTable<ComputeFormat> {
  static constexpr std::string_view name = "compute format";
  static constexpr EnumEntry<ComputeFormat> entries[] = {
      {ComputeFormat::f32, "f32"}, {ComputeFormat::bf16, "bf16"}, {ComputeFormat::int8, "int8"}};
};

struct LoadOptions {
  WeightFormat weights = WeightFormat::stored;
  /// Faster and less exact; docs/performance-model.md says by how much. Weights of other kinds compute in f32, and so
  /// do all where the processor has no instructions for it: then `Model::warnings` says so.
  ComputeFormat compute = ComputeFormat::f32;
  at::Device device = at::kCPU;  ///< or {at::kCUDA, N}; `parse_device` reads one from text
  std::int64_t max_memory = 0;   ///< bytes the weights may take; 0: no limit. More is an error before anything is read
  std::int64_t context = 0;      ///< lowers the longest sequence; 0: the model's own
  std::vector<std::string> allow_unknown_config{};  ///< keys of config.json to ignore though steer does not know them
  std::filesystem::path adapter = {};  ///< folder of a LoRA adapter (PEFT) to merge into the weights; empty: none
  std::optional<ChatFormat> chat_format = {};  ///< in place of the files' own chat template
  /// Several processes compute the model together, each with a part of every layer's heads and inner widths, for models
  /// too large for one device. All of them load it and then make the same calls with the same arguments, on one thread;
  /// each gets all results, and its hooks see whole values. Sums over processes have one order, so a row's bits do not
  /// depend on its batch; they are those of one process but for rounding. Embeddings and recurrent layers are whole in
  /// each. Null: this process alone. (Shoeybi et al. 2019, arXiv 1909.08053.)
  std::shared_ptr<Communicator> parallel = {};
};

/// A language model: weights, configuration, tokenizer. Immutable, cheap to copy, shared by any number of sessions
/// on any number of threads.
class Model {
 public:
  /// From a Hugging Face folder (config.json, weights, tokenizer), one of its weight files, shards or indices, a GGUF
  /// file or a part of one. Weights may be safetensors or PyTorch files, whole or in numbered parts.
  /// @throws Error(io | format | shape | config | unsupported) that names the file, key or tensor: missing shards,
  ///         missing, extra or mis-shaped tensors, NaN weights, settings steer does not have, too little memory.
  static Model load(const std::filesystem::path& path, const LoadOptions& options = {});
  /// From tensors named as in Hugging Face folders; no tokenizer unless given.
  static Model from_tensors(const ModelConfig& config, const TensorReader& tensors, const LoadOptions& options = {},
                            std::optional<Tokenizer> tokenizer = {});

  /// What the weights were built into; sizes and hook points follow from it.
  const ModelConfig& config() const;
  /// False for models made from tensors alone: then work with ids.
  bool has_tokenizer() const;
  /// @throws Error(config) if the model came without one.
  const Tokenizer& tokenizer() const;
  /// The model's own chat format; `plain` when its files name none. @throws Error(config) without a tokenizer,
  /// Error(unsupported) for a template that cannot be run, with the reason; what takes ids needs no chat format.
  const ChatTemplate& chat() const;
  /// This model with another chat format: a cheap copy that shares all weights.
  Model with_chat(ChatTemplate chat) const;
  /// Ids that end a generation: the configuration's end of sequence and the chat format's end of turn.
  std::vector<std::int64_t> stop_ids() const;
  /// Where its weights are.
  at::Device device() const;
  /// How many processes compute it together (`LoadOptions::parallel`); 1: this one alone.
  std::int64_t processes() const;
  /// Bytes the weights take in memory or in the mapping, of this process's part.
  std::int64_t weight_bytes() const;
  /// What was let through while loading, a sentence each: keys of the configuration that were ignored, a head that the
  /// configuration says is tied and the file has differently, a tokenizer larger than the embedding. A program should
  /// show them.
  const std::vector<std::string>& warnings() const;
  /// Identifies what it computes, for journals: a hash of the weights' names, shapes, dtypes and a sample of each
  /// tensor's bytes, and how they were loaded if not as stored or not computing in f32.
  const std::string& hash() const;
  /// Logits [tokens, vocab], f32, of activations of the residual stream [tokens, d_model], any float dtype and device:
  /// the final norm with its bias, the unembedding, its scale and soft cap, as at the end of a pass. Of
  /// `blocks.L.hook_resid_post` it is the logit lens (nostalgebraist 2020); of the last layer's, the model's own
  /// logits. On the CPU a row's logits do not depend on the other rows. Gradients flow to `h`. Thread-safe.
  /// @throws Error(shape) for another width, Error(argument) for a tensor that is not of a float dtype.
  at::Tensor unembed(const at::Tensor& h) const;
  /// The unembedding [vocab, d_model], f32, and the final norm's gain [d_model]: what logit attribution needs.
  at::Tensor unembedding() const;
  at::Tensor final_norm_gain() const;

 private:
  friend class Session;
  explicit Model(std::shared_ptr<const model::detail::Transformer> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const model::detail::Transformer> impl_;
  std::shared_ptr<const ChatTemplate> chat_;  ///< in place of the files' own
};

}  // namespace steer
