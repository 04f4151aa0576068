#include "model/weight_source.hpp"

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <fmt/ranges.h>

#include <atomic>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>

#include "core/crew.hpp"
#include "core/format_text.hpp"
#include "model/cpu_loops.hpp"

namespace steer::model::detail {
namespace {

constexpr auto kWeightSource = "Model::load";
std::string listing(const std::vector<std::string>& items) {
  constexpr std::size_t kShown = 8;
  auto text = format_text(
      "{}",
      fmt::join(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(std::min(items.size(), kShown)), ", "));
  if (items.size() > kShown) text += format_text(" and {} more", items.size() - kShown);
  return text;
}

std::string describe(const std::string& name, const std::vector<std::int64_t>& shape) {
  return format_text("{} [{}]", name, fmt::join(shape, ", "));
}

}  // namespace

void require_finite(const at::Tensor& tensor, const std::string& name, const TensorReader& reader) {
  const auto type = tensor.scalar_type();
  if (type != at::kFloat && type != at::kBFloat16 && type != at::kHalf) return;
  const auto flat = tensor.contiguous();
  const void* data = flat.const_data_ptr();
  std::atomic<bool> ok{true};
  core::detail::run_shares(flat.numel(), 1 << 18, [&](std::int64_t begin, std::int64_t end) {
    const bool part = type == at::kFloat
                          ? cpu::loops().all_finite(static_cast<const float*>(data) + begin, end - begin)
                          : cpu::loops().all_finite_16(static_cast<const std::uint16_t*>(data) + begin, end - begin,
                                                       type == at::kBFloat16 ? 0x7f80 : 0x7c00);
    if (!part) ok = false;
  });
  require(ok, ErrorCode::format, kWeightSource,
          "expected finite weights but got NaN or infinity in {} ({}); the file is damaged or training diverged: get "
          "it again",
          name, reader.path().string());
}

namespace {

/// Where a block keeps its scales, which alone can be infinite or NaN (ggml-common.h).
struct BlockScales {
  std::string_view storage;
  std::int64_t bytes, offset, count;
};
constexpr BlockScales kBlockScales[] = {{"Q4_0", 18, 0, 1},  {"Q4_1", 20, 0, 2},    {"Q5_0", 22, 0, 1},
                                        {"Q5_1", 24, 0, 2},  {"Q8_0", 34, 0, 1},    {"Q4_K", 144, 0, 2},
                                        {"Q5_K", 176, 0, 2}, {"Q6_K", 210, 208, 1}, {"MXFP4", 17, 0, 0}};

void require_finite_blocks(const at::Tensor& raw, const TensorInfo& info, const TensorReader& reader) {
  const auto* kind = std::find_if(std::begin(kBlockScales), std::end(kBlockScales),
                                  [&](const auto& k) { return k.storage == info.storage; });
  if (kind == std::end(kBlockScales)) return;
  const auto* bytes = static_cast<const std::uint8_t*>(raw.const_data_ptr());
  std::atomic<bool> ok{true};
  const bool powers = kind->count == 0;  // one byte, of which 255 is no number
  core::detail::run_shares(raw.numel() / kind->bytes, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
    constexpr std::uint16_t kExponent = 0x7c00;  // all ones in f16: infinity or NaN
    for (std::int64_t block = begin; block < end; ++block) {
      if (powers && bytes[block * kind->bytes] == 255) ok = false;
      for (std::int64_t i = 0; i < kind->count; ++i) {
        std::uint16_t scale;
        std::memcpy(&scale, bytes + block * kind->bytes + kind->offset + 2 * i, sizeof scale);
        if ((scale & kExponent) == kExponent) ok = false;
      }
    }
  });
  require(ok, ErrorCode::format, kWeightSource,
          "expected finite weights but got NaN or infinity in {} ({}); the file is damaged: get it again", info.name,
          reader.path().string());
}

}  // namespace

std::string hash_weights(const TensorReader& reader) {
  constexpr std::int64_t kEnd = 4096, kSamples = 64, kSample = 64;
  ContentHasher hasher;
  for (const auto& info : reader.tensors()) {
    hasher.update(format_text("{}|{}|{}|", info.name, fmt::join(info.shape, ","), info.storage));
    const at::Tensor raw = reader.raw(info.name);
    const auto* bytes = static_cast<const char*>(raw.const_data_ptr());
    const std::int64_t size = raw.numel();
    const auto add = [&](std::int64_t from, std::int64_t count) {
      hasher.update(std::string_view(bytes + from, static_cast<std::size_t>(count)));
    };
    if (size <= 2 * kEnd + kSamples * kSample) {
      add(0, size);
      continue;
    }
    add(0, kEnd);
    for (std::int64_t i = 0; i < kSamples; ++i) add(kEnd + (size - 2 * kEnd - kSample) / kSamples * i, kSample);
    add(size - kEnd, kEnd);
  }
  return hasher.hex();
}

const TensorInfo* WeightSource::check(const std::string& name, std::vector<std::int64_t> shape) {
  const bool is_new = used_.insert(name).second;
  const TensorInfo* info = reader_.find(name);
  if (!checking_) return info;
  const bool floats = info && (info->dtype == at::kFloat || info->dtype == at::kBFloat16 || info->dtype == at::kHalf ||
                               info->dtype == at::kDouble);
  if (!info) {
    missing_.push_back(describe(name, shape));
    // A configuration may name more layers or experts than any file holds.
    constexpr std::size_t kEnough = 1000;
    if (missing_.size() == kEnough) refuse_missing();
  } else if (info->shape != shape) {
    shapes_.push_back(format_text("{} as [{}] (the configuration says [{}])", name, fmt::join(info->shape, ", "),
                                  fmt::join(shape, ", ")));
  } else if (!floats) {
    shapes_.push_back(format_text("{} of type {}, {}", name, info->storage,
                                  info->storage.starts_with("F8")
                                      ? "which needs scales that are not there: give the file with its "
                                        "*_scale_inv tensors, or convert it to BF16"
                                      : "which is not a floating point type that steer reads: convert it to BF16"));
  } else if (is_new) {
    bytes_ += kept_bytes(*info);
  }
  return info;
}

std::int64_t WeightSource::kept_bytes(const TensorInfo& info) const {
  std::int64_t elements = 1;
  for (auto size : info.shape) elements *= size;
  if (info.shape.size() < 2 || options_.weights == WeightFormat::f32) return elements * 4;
  switch (options_.weights) {
    case WeightFormat::bf16:
      return elements * 2;
    case WeightFormat::int8:
      return elements + elements / 8;
    default:
      break;
  }
  const bool in_place = info.storage == "F32" || info.storage == "F16" || info.storage == "BF16";
  if (in_place || Linear::keeps_blocks(info.storage)) return info.bytes;
  return elements * (info.dtype == at::kBFloat16 || info.dtype == at::kHalf ? 2 : 4);
}

void WeightSource::refuse_missing() const {
  std::string hint;
  for (const auto& name : missing_)
    if (name.starts_with("lm_head.weight"))
      hint = "; tie_word_embeddings is false, so that the unembedding must be a tensor of its own";
  fail(ErrorCode::format, kWeightSource,
       "expected {} but got no tensor of {} ({}); the file is incomplete or not of this family{}", listing(missing_),
       missing_.size() == 1 ? "that name" : "those names", reader_.path().string(), hint);
}

void WeightSource::finish_check(const std::function<bool(std::string_view)>& ignored) {
  std::vector<std::string> extra;
  for (const auto& info : reader_.tensors())
    if (!used_.contains(info.name) && !ignored(info.name)) extra.push_back(describe(info.name, info.shape));
  const std::string path = reader_.path().string();
  if (!missing_.empty()) refuse_missing();
  require(shapes_.empty(), ErrorCode::shape, kWeightSource,
          "expected tensors that fit the configuration but got {} ({}); config.json "
          "and weights do not belong together",
          listing(shapes_), path);
  const bool layers = std::any_of(extra.begin(), extra.end(), [](const auto& name) {
    return name.find("layers.") != std::string::npos || name.find("blk.") != std::string::npos ||
           name.find("h.") != std::string::npos;
  });
  require(extra.empty(), ErrorCode::format, kWeightSource,
          "expected only tensors of this family but got {} ({}); steer would compute without them: check model_type{}",
          listing(extra), path, layers ? " and num_hidden_layers" : "");
  require(
      options_.max_memory <= 0 || bytes_ <= options_.max_memory, ErrorCode::argument, kWeightSource,
      "expected weights of at most {} bytes (max_memory) but got {} ({}); allow more or choose a smaller WeightFormat",
      options_.max_memory, bytes_, path);
  checking_ = false;
}

at::Tensor WeightSource::read(const std::string& name) {
  at::Tensor tensor = reader_.read(name);
  if (tensor.scalar_type() == at::kDouble) tensor = tensor.to(at::kFloat);
  require_finite(tensor, name, reader_);
  return tensor;
}

bool WeightSource::equal(const std::string& name, const std::string& other) const {
  const TensorInfo &a = reader_.info(name), &b = reader_.info(other);
  if (a.shape != b.shape) return false;
  const bool stored = a.storage == "F32" || a.storage == "F16" || a.storage == "BF16";
  if (stored && a.storage == b.storage) return at::equal(reader_.raw(name), reader_.raw(other));
  constexpr std::int64_t kRows = 1024;  // a vocabulary's worth in f32 would be gigabytes
  for (std::int64_t row = 0; row < a.shape[0]; row += kRows) {
    const auto end = std::min(row + kRows, a.shape[0]);
    if (!at::equal(reader_.read_rows(name, row, end).to(at::kFloat), reader_.read_rows(other, row, end).to(at::kFloat)))
      return false;
  }
  return true;
}

at::Tensor WeightSource::vector(const std::string& name, std::int64_t n, bool plus_one) {
  // llama.cpp's converter writes some as one row, which is the same to ggml.
  const TensorInfo* info = reader_.find(name);
  check(name, info && info->shape == std::vector<std::int64_t>{1, n} ? info->shape : std::vector{n});
  if (checking_) return {};
  at::Tensor tensor = read(name).flatten().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  if (plus_one) tensor.add_(1);
  return tensor.to(device_);
}

at::Tensor WeightSource::table(const std::string& name, std::int64_t rows, std::int64_t columns) {
  check(name, {rows, columns});
  return checking_ ? at::Tensor() : read(name).to(at::kFloat).contiguous().to(device_);
}

at::Tensor WeightSource::cube(const std::string& name, std::int64_t a, std::int64_t b, std::int64_t c) {
  check(name, {a, b, c});
  return checking_ ? at::Tensor() : read(name).to(at::kFloat).contiguous().to(device_);
}

Linear WeightSource::keep(at::Tensor weight, at::Tensor bias) const {
  switch (options_.weights) {
    case WeightFormat::f32:
      weight = weight.to(at::kFloat);
      break;
    case WeightFormat::bf16:
      weight = weight.to(at::kBFloat16);
      break;
    case WeightFormat::int8:
      return Linear::int8(weight, bias).to(matrix_device_);
    case WeightFormat::stored:
      break;
  }
  return Linear::dense(weight, bias).to(matrix_device_);
}

namespace {

/// Rows of t, in place where they are consecutive.
at::Tensor rows_of(const at::Tensor& t, const std::vector<std::int64_t>& rows) {
  if (rows.empty() || !t.defined()) return t;
  bool consecutive = true;
  for (std::size_t i = 1; i < rows.size(); ++i) consecutive = consecutive && rows[i] == rows[i - 1] + 1;
  return consecutive ? t.narrow(0, rows.front(), std::ssize(rows)) : t.index_select(0, at::tensor(rows, at::kLong));
}

}  // namespace

Linear WeightSource::take(at::Tensor weight, at::Tensor raw, const TensorInfo& info, at::Tensor bias, std::int64_t out,
                          std::int64_t in, const std::vector<std::int64_t>& rows) const {
  bias = rows_of(bias, rows);
  if (!raw.defined()) return keep(rows_of(weight, rows), bias);
  // A row is a whole number of blocks, so rows move without being decoded.
  raw = rows_of(raw.view({out, -1}), rows).reshape(-1);
  Linear kept = Linear::blocks(raw, info.storage, rows.empty() ? out : std::ssize(rows), in, bias);
  require_finite_blocks(raw, info, reader_);
  return kept.to(matrix_device_);
}

Linear WeightSource::matrix(const std::string& name, const std::string& bias_name, std::int64_t out, std::int64_t in,
                            const std::vector<std::int64_t>& rows) {
  const TensorInfo* info = check(name, {out, in});
  const bool has_bias = !bias_name.empty();
  if (has_bias) check(bias_name, {out});
  if (checking_) return {};
  const at::Tensor bias = has_bias ? read(bias_name).to(at::kFloat) : at::Tensor();
  const bool blocks = options_.weights == WeightFormat::stored && Linear::keeps_blocks(info->storage);
  return take(blocks ? at::Tensor() : read(name), blocks ? reader_.raw(name) : at::Tensor(), *info, bias, out, in,
              rows);
}

Linear WeightSource::stacked(const std::string& name, const std::string& bias_name, std::int64_t index,
                             std::int64_t count, std::int64_t out, std::int64_t in, bool transposed,
                             const std::vector<std::int64_t>& rows) {
  const TensorInfo* info = check(name, transposed ? std::vector{count, in, out} : std::vector{count, out, in});
  const bool has_bias = !bias_name.empty();
  if (has_bias) check(bias_name, {count, out});
  if (checking_) return {};
  const at::Tensor bias = has_bias ? read(bias_name).to(at::kFloat)[index] : at::Tensor();
  if (!transposed && options_.weights == WeightFormat::stored && Linear::keeps_blocks(info->storage)) {
    const at::Tensor raw = reader_.raw(name);
    const std::int64_t bytes = raw.numel() / count;
    return take({}, raw.narrow(0, index * bytes, bytes), *info, bias, out, in, rows);
  }
  at::Tensor weight = reader_.read_rows(name, index, index + 1)[0];
  if (weight.scalar_type() == at::kDouble) weight = weight.to(at::kFloat);
  require_finite(weight, name, reader_);
  return take(transposed ? weight.t() : weight, {}, *info, bias, out, in, rows);
}

Linear WeightSource::transposed(const std::string& name, const std::string& bias_name, std::int64_t out,
                                std::int64_t in) {
  check(name, {in, out});
  check(bias_name, {out});
  if (checking_) return {};
  return keep(read(name).t().contiguous(), read(bias_name));
}

std::array<Linear, 3> WeightSource::fused_qkv(const std::string& name, const std::string& bias_name, std::int64_t in,
                                              std::int64_t heads, bool transposed) {
  check(name, transposed ? std::vector{in, 3 * in} : std::vector{3 * in, in});
  if (!bias_name.empty()) check(bias_name, {3 * in});
  if (checking_) return {};
  const at::Tensor weight = transposed ? read(name).t() : read(name);
  const at::Tensor bias = bias_name.empty() ? at::Tensor() : read(bias_name);
  const auto part = [&](const at::Tensor& t, std::int64_t i) {
    if (!t.defined()) return t;
    if (transposed) return t.narrow(0, i * in, in).contiguous();
    auto shape = t.sizes().vec();
    shape[0] = in;
    return t.unflatten(0, {heads, 3, in / heads}).select(1, i).reshape(shape).contiguous();
  };
  return {keep(part(weight, 0), part(bias, 0)), keep(part(weight, 1), part(bias, 1)),
          keep(part(weight, 2), part(bias, 2))};
}

}  // namespace steer::model::detail
