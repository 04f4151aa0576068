#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <steer/io/tensor_reader.hpp>
#include <steer/model/model.hpp>

#include "model/transformer.hpp"

namespace steer::model::detail {

/// Takes a model's tensors out of a reader. The same assembling code runs twice: first only checking that every
/// tensor is there with its shape (so that all that is wrong is reported at once, before anything is read), then
/// reading. Anything not asked for and not on the list of ignored names is an error.
class WeightSource {
 public:
  WeightSource(const TensorReader& reader, const LoadOptions& options, at::Device device)
      : reader_(reader),
        options_(options),
        device_(device),
        matrix_device_(options.parallel ? at::Device(at::kCPU) : device) {}

  /// A vector [n], as f32 on the device. `plus_one`: 1 is added (Gemma's gains).
  at::Tensor vector(const std::string& name, std::int64_t n, bool plus_one = false);
  /// A small dense matrix [rows, columns], f32.
  at::Tensor table(const std::string& name, std::int64_t rows, std::int64_t columns);
  /// A small dense tensor [a, b, c], f32.
  at::Tensor cube(const std::string& name, std::int64_t a, std::int64_t b, std::int64_t c);
  /// A weight matrix [out, in] and, unless `bias` is empty, its bias [out].
  /// @param rows  which of its rows to take, in which order; empty: all. Consecutive ones stay in place.
  Linear matrix(const std::string& name, const std::string& bias, std::int64_t out, std::int64_t in,
                const std::vector<std::int64_t>& rows = {});
  /// One matrix [out, in] of several in one tensor [count, out, in], or [count, in, out] when `transposed`, and its
  /// bias, a row of [count, out]. @param rows  as above.
  Linear stacked(const std::string& name, const std::string& bias, std::int64_t index, std::int64_t count,
                 std::int64_t out, std::int64_t in, bool transposed, const std::vector<std::int64_t>& rows = {});
  /// Query, key and value of one fused tensor with `heads` heads: [in, 3 * in] holding q, k and v one after another
  /// (`transposed`, GPT-2's Conv1D), or [3 * in, in] with q, k and v of each head together (GPT-NeoX).
  std::array<Linear, 3> fused_qkv(const std::string& name, const std::string& bias, std::int64_t in, std::int64_t heads,
                                  bool transposed);
  /// GPT-2's Conv1D: stored [in, out].
  Linear transposed(const std::string& name, const std::string& bias, std::int64_t out, std::int64_t in);

  /// Called by whoever assembles, for each layer that is complete.
  void layer_done(LayerWeights& layer) const {
    if (!checking_ && finish_layer) finish_layer(layer);
  }
  std::function<void(LayerWeights&)> finish_layer;

  bool contains(const std::string& name) const { return reader_.contains(name); }
  /// How a tensor is stored, e.g. "BF16"; empty if there is none.
  std::string storage(const std::string& name) const {
    const TensorInfo* info = reader_.find(name);
    return info ? std::string(info->storage) : std::string();
  }
  /// Whether a tensor [rows, columns] holds the very numbers of another; both are read.
  bool equal(const std::string& name, const std::string& other) const;
  bool checking() const { return checking_; }
  void warn(std::string warning) { warnings_.push_back(std::move(warning)); }
  const std::vector<std::string>& warnings() const { return warnings_; }
  /// Ends the first pass. @throws Error(shape | format) listing all missing, mis-shaped and extra tensors;
  ///         Error(argument) when the weights would take more than `max_memory`.
  void finish_check(const std::function<bool(std::string_view)>& ignored);
  /// Bytes of all weights asked for, in the form they are kept.
  std::int64_t bytes() const { return bytes_; }

 private:
  const TensorInfo* check(const std::string& name, std::vector<std::int64_t> shape);
  std::int64_t kept_bytes(const TensorInfo& info) const;
  at::Tensor read(const std::string& name);
  [[noreturn]] void refuse_missing() const;
  Linear keep(at::Tensor weight, at::Tensor bias) const;
  /// Rows of a weight as stored, decoded or not.
  Linear take(at::Tensor weight, at::Tensor raw, const TensorInfo& info, at::Tensor bias, std::int64_t out,
              std::int64_t in, const std::vector<std::int64_t>& rows) const;

  const TensorReader& reader_;
  const LoadOptions& options_;
  at::Device device_;
  at::Device matrix_device_;  ///< where several processes share a model, its matrices are cut before they leave the CPU
  bool checking_ = true;
  std::set<std::string, std::less<>> used_;
  std::vector<std::string> missing_, shapes_, warnings_;
  std::int64_t bytes_ = 0;
};

/// Refuses a tensor with an infinite element or one that is not a number. @throws Error(format) naming it.
void require_finite(const at::Tensor& tensor, const std::string& name, const TensorReader& reader);

/// Hash of names, shapes, storage and a sample of every tensor's bytes.
std::string hash_weights(const TensorReader& reader);

}  // namespace steer::model::detail
