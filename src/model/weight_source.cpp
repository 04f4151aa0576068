#include "model/weight_source.hpp"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include <atomic>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>

#include "model/cpu_ops.hpp"

namespace steer::model::detail {
namespace {

constexpr auto kWhere = "Model::load";

std::string listing(const std::vector<std::string>& items) {
  constexpr std::size_t kShown = 8;
  auto text = fmt::format(
      "{}",
      fmt::join(items.begin(), items.begin() + static_cast<std::ptrdiff_t>(std::min(items.size(), kShown)), ", "));
  if (items.size() > kShown) text += fmt::format(" and {} more", items.size() - kShown);
  return text;
}

std::string describe(const std::string& name, const std::vector<std::int64_t>& shape) {
  return fmt::format("{} [{}]", name, fmt::join(shape, ", "));
}

}  // namespace

void require_finite(const at::Tensor& tensor, const std::string& name, const TensorReader& reader) {
  const auto type = tensor.scalar_type();
  if (type != at::kFloat && type != at::kBFloat16 && type != at::kHalf) return;
  const auto flat = tensor.contiguous();
  const void* data = flat.const_data_ptr();
  std::atomic<bool> ok{true};
  at::parallel_for(0, flat.numel(), 1 << 18, [&](std::int64_t begin, std::int64_t end) {
    const bool part = type == at::kFloat ? cpu::all_finite(static_cast<const float*>(data) + begin, end - begin)
                                         : cpu::all_finite_16(static_cast<const std::uint16_t*>(data) + begin,
                                                              end - begin, type == at::kBFloat16 ? 0x7f80 : 0x7c00);
    if (!part) ok = false;
  });
  require(ok, ErrorCode::format, kWhere,
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
constexpr BlockScales kBlockScales[] = {{"Q4_0", 18, 0, 1},  {"Q4_1", 20, 0, 2},   {"Q5_0", 22, 0, 1},
                                        {"Q5_1", 24, 0, 2},  {"Q8_0", 34, 0, 1},   {"Q4_K", 144, 0, 2},
                                        {"Q5_K", 176, 0, 2}, {"Q6_K", 210, 208, 1}};

void require_finite_blocks(const at::Tensor& raw, const TensorInfo& info, const TensorReader& reader) {
  const auto* kind = std::find_if(std::begin(kBlockScales), std::end(kBlockScales),
                                  [&](const auto& k) { return k.storage == info.storage; });
  if (kind == std::end(kBlockScales)) return;
  const auto* bytes = static_cast<const std::uint8_t*>(raw.const_data_ptr());
  std::atomic<bool> ok{true};
  at::parallel_for(0, raw.numel() / kind->bytes, 1 << 14, [&](std::int64_t begin, std::int64_t end) {
    constexpr std::uint16_t kExponent = 0x7c00;  // all ones in f16: infinity or NaN
    for (std::int64_t block = begin; block < end; ++block)
      for (std::int64_t i = 0; i < kind->count; ++i) {
        std::uint16_t scale;
        std::memcpy(&scale, bytes + block * kind->bytes + kind->offset + 2 * i, sizeof scale);
        if ((scale & kExponent) == kExponent) ok = false;
      }
  });
  require(ok, ErrorCode::format, kWhere,
          "expected finite weights but got NaN or infinity in {} ({}); the file is damaged: get it again", info.name,
          reader.path().string());
}

}  // namespace

std::string hash_weights(const TensorReader& reader) {
  constexpr std::int64_t kEnd = 4096, kSamples = 64, kSample = 64;
  ContentHasher hasher;
  for (const auto& info : reader.tensors()) {
    hasher.update(fmt::format("{}|{}|{}|", info.name, fmt::join(info.shape, ","), info.storage));
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
  used_.insert(name);
  const TensorInfo* info = reader_.find(name);
  if (checking_) {
    if (!info)
      missing_.push_back(describe(name, shape));
    else if (info->shape != shape)
      shapes_.push_back(fmt::format("{} as [{}] (the configuration says [{}])", name, fmt::join(info->shape, ", "),
                                    fmt::join(shape, ", ")));
    else if (info->dtype != at::kFloat && info->dtype != at::kBFloat16 && info->dtype != at::kHalf)
      shapes_.push_back(fmt::format("{} of type {} (not a floating point type)", name, info->storage));
    else
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
  return in_place || Linear::keeps_blocks(info.storage) ? info.bytes : elements * 4;
}

void WeightSource::finish_check(const std::function<bool(std::string_view)>& ignored) {
  std::vector<std::string> extra;
  for (const auto& info : reader_.tensors())
    if (!used_.contains(info.name) && !ignored(info.name)) extra.push_back(describe(info.name, info.shape));
  const std::string path = reader_.path().string();
  require(missing_.empty(), ErrorCode::format, kWhere,
          "expected {} but got no tensor of {} ({}); the file is incomplete or not of this family", listing(missing_),
          missing_.size() == 1 ? "that name" : "those names", path);
  require(shapes_.empty(), ErrorCode::shape, kWhere,
          "expected tensors that fit the configuration but got {} ({}); config.json "
          "and weights do not belong together",
          listing(shapes_), path);
  require(extra.empty(), ErrorCode::format, kWhere,
          "expected only tensors of this family but got {} ({}); steer would compute without them: check model_type",
          listing(extra), path);
  require(
      options_.max_memory <= 0 || bytes_ <= options_.max_memory, ErrorCode::argument, kWhere,
      "expected weights of at most {} bytes (max_memory) but got {} ({}); allow more or choose a smaller WeightFormat",
      options_.max_memory, bytes_, path);
  checking_ = false;
}

at::Tensor WeightSource::read(const std::string& name) {
  at::Tensor tensor = reader_.read(name);
  require_finite(tensor, name, reader_);
  return tensor;
}

at::Tensor WeightSource::vector(const std::string& name, std::int64_t n, bool plus_one) {
  check(name, {n});
  if (checking_) return {};
  at::Tensor tensor = read(name).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  if (plus_one) tensor.add_(1);
  return tensor.to(device_);
}

at::Tensor WeightSource::table(const std::string& name, std::int64_t rows, std::int64_t columns) {
  check(name, {rows, columns});
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
      return Linear::int8(weight, bias).to(device_);
    case WeightFormat::stored:
      break;
  }
  return Linear::dense(weight, bias).to(device_);
}

Linear WeightSource::matrix(const std::string& name, const std::string& bias_name, std::int64_t out, std::int64_t in,
                            const std::vector<std::int64_t>& row_order) {
  const TensorInfo* info = check(name, {out, in});
  const bool has_bias = !bias_name.empty();
  if (has_bias) check(bias_name, {out});
  if (checking_) return {};
  at::Tensor bias = has_bias ? read(bias_name).to(at::kFloat) : at::Tensor();
  at::Tensor order;
  if (!row_order.empty()) {
    order = at::tensor(row_order, at::kLong);
    if (has_bias) bias = bias.index_select(0, order);
  }
  if (options_.weights == WeightFormat::stored && Linear::keeps_blocks(info->storage)) {
    at::Tensor raw = reader_.raw(name);
    // A row is a whole number of blocks, so rows move without being decoded.
    if (order.defined()) raw = raw.view({out, -1}).index_select(0, order).view(-1);
    Linear kept = Linear::blocks(raw, info->storage, out, in, bias);
    require_finite_blocks(raw, *info, reader_);
    return kept.to(device_);
  }
  at::Tensor weight = read(name);
  if (order.defined()) weight = weight.index_select(0, order);
  return keep(weight, bias);
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
