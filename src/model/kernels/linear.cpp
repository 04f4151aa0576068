#include "model/kernels/linear.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include <steer/core/error.hpp>

#include "core/crew.hpp"
#include "model/kernels/run_products.hpp"
#include "model/send.hpp"

namespace steer::model::detail {
namespace {

struct BlockType {
  std::string_view name;
  WeightType type;
  std::int64_t values, bytes;  // of one block
};

constexpr BlockType kBlockTypes[] = {
    {"Q4_0", WeightType::q4_0, 32, 18},   {"Q4_1", WeightType::q4_1, 32, 20},   {"Q5_0", WeightType::q5_0, 32, 22},
    {"Q5_1", WeightType::q5_1, 32, 24},   {"Q8_0", WeightType::q8_0, 32, 34},   {"Q4_K", WeightType::q4_k, 256, 144},
    {"Q5_K", WeightType::q5_k, 256, 176}, {"Q6_K", WeightType::q6_k, 256, 210}, {"MXFP4", WeightType::mxfp4, 32, 17},
};

const BlockType* find_block_type(std::string_view name) {
  for (const auto& type : kBlockTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

constexpr std::int64_t kGroup = 32;

at::Tensor checked_bias(const at::Tensor& bias, std::int64_t out) {
  if (!bias.defined()) return bias;
  require(bias.dim() == 1 && bias.size(0) == out, ErrorCode::shape, "Linear",
          "expected a bias of shape [{}] but got {}", out, fmt::join(bias.sizes(), "x"));
  return bias.to(at::kFloat).contiguous();
}

}  // namespace

Linear Linear::dense(at::Tensor weight, at::Tensor bias) {
  require(weight.defined() && weight.dim() == 2, ErrorCode::shape, "Linear::dense",
          "expected a weight of two dimensions but got {}", weight.defined() ? weight.dim() : 0);
  const auto dtype = weight.scalar_type();
  require(dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16, ErrorCode::unsupported, "Linear::dense",
          "expected a weight of f32, f16 or bf16 but got {}", at::toString(dtype));
  Linear linear;
  linear.data_ = weight.contiguous();
  linear.bias_ = checked_bias(bias, weight.size(0));
  auto& view = linear.view_;
  view.type = dtype == at::kFloat ? WeightType::f32 : dtype == at::kHalf ? WeightType::f16 : WeightType::bf16;
  view.data = linear.data_.const_data_ptr();
  view.n = weight.size(0);
  view.k = weight.size(1);
  view.row_bytes = view.k * static_cast<std::int64_t>(linear.data_.element_size());
  return linear;
}

Linear Linear::int8(const at::Tensor& weight, at::Tensor bias) {
  const Linear source = dense(weight);
  const std::int64_t n = source.view_.n, k = source.view_.k, groups = (k + kGroup - 1) / kGroup;
  require(source.data_.is_cpu(), ErrorCode::argument, "Linear::int8", "expected a weight on the CPU but got {}",
          source.data_.device().str());
  Linear linear;
  linear.data_ = at::zeros({n, groups * kGroup}, at::kChar);
  linear.scales_ = at::empty({n, groups}, at::kFloat);
  linear.bias_ = checked_bias(bias, n);
  std::int8_t* values = linear.data_.data_ptr<std::int8_t>();
  float* scales = linear.scales_.data_ptr<float>();
  const KernelTable& table = kernels();
  core::detail::run_shares(n, 16, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> row(k);
    for (std::int64_t i = begin; i < end; ++i) {
      table.decode_row(source.view_, i, row.data());
      for (std::int64_t g = 0; g < groups; ++g) {
        const std::int64_t first = g * kGroup, last = std::min(k, first + kGroup);
        float largest = 0;
        for (std::int64_t j = first; j < last; ++j) largest = std::max(largest, std::abs(row[j]));
        const float scale = largest / 127.0f;
        scales[i * groups + g] = scale;
        for (std::int64_t j = first; j < last; ++j) {
          values[i * groups * kGroup + j] = scale > 0 ? static_cast<std::int8_t>(std::lrint(row[j] / scale)) : 0;
        }
      }
    }
  });
  linear.view_ = {WeightType::int8, values, scales, n, k, groups * kGroup};
  return linear;
}

bool Linear::keeps_blocks(std::string_view storage) { return find_block_type(storage) != nullptr; }

Linear Linear::blocks(at::Tensor raw, std::string_view storage, std::int64_t out, std::int64_t in, at::Tensor bias) {
  const BlockType* type = find_block_type(storage);
  require(type != nullptr, ErrorCode::unsupported, "Linear::blocks",
          "expected a block type steer computes with but got {}", storage);
  require(out >= 0 && in >= 0 && in % type->values == 0, ErrorCode::shape, "Linear::blocks",
          "expected rows of a multiple of {} values for {} but got [{}, {}]", type->values, storage, out, in);
  require(raw.defined() && raw.scalar_type() == at::kByte && raw.is_cpu() && raw.is_contiguous(), ErrorCode::argument,
          "Linear::blocks", "expected the stored bytes as a contiguous u8 tensor on the CPU");
  const std::int64_t row_bytes = in / type->values * type->bytes;
  require(raw.numel() == out * row_bytes, ErrorCode::format, "Linear::blocks",
          "expected {} bytes of {} for [{}, {}] but got {}", out * row_bytes, storage, out, in, raw.numel());
  Linear linear;
  linear.data_ = std::move(raw);
  linear.bias_ = checked_bias(bias, out);
  linear.view_ = {type->type, linear.data_.const_data_ptr(), nullptr, out, in, row_bytes};
  return linear;
}

Linear Linear::with(at::Tensor data, at::Tensor scales, at::Tensor bias, std::int64_t out, std::int64_t in) const {
  Linear part;
  part.data_ = std::move(data);
  part.scales_ = std::move(scales);
  part.bias_ = std::move(bias);
  part.view_ = {view_.type,
                part.data_.const_data_ptr(),
                part.scales_.defined() ? part.scales_.const_data_ptr<float>() : nullptr,
                out,
                in,
                out > 0 ? static_cast<std::int64_t>(part.data_.nbytes()) / out : 0};
  return part;
}

Linear Linear::rows(std::int64_t begin, std::int64_t end) const {
  const std::int64_t count = end - begin;
  const auto narrow = [&](const at::Tensor& t) { return t.defined() ? t.narrow(0, begin, count) : t; };
  at::Tensor data = narrow(is_blocks() ? data_.view({view_.n, view_.row_bytes}) : data_);
  if (is_blocks()) data = data.flatten();
  return with(std::move(data), narrow(scales_), narrow(bias_), count, view_.k);
}

Linear Linear::columns(std::int64_t begin, std::int64_t end, bool with_bias) const {
  const auto* block = std::ranges::find(kBlockTypes, view_.type, &BlockType::type);
  const bool is_int8 = view_.type == WeightType::int8;
  const std::int64_t values = is_blocks() ? block->values : is_int8 ? kGroup : 1;
  const at::Tensor bias = with_bias ? bias_ : at::Tensor();
  if (begin % values != 0 || (end % values != 0 && end != view_.k))
    return dense(to_f32().narrow(1, begin, end - begin), bias);
  const std::int64_t first = begin / values, count = (end - begin + values - 1) / values;
  const auto narrow = [&](const at::Tensor& t, std::int64_t unit) {
    return t.narrow(1, first * unit, count * unit).contiguous();
  };
  if (is_blocks())
    return with(narrow(data_.view({view_.n, view_.row_bytes}), block->bytes).flatten(), {}, bias, view_.n, end - begin);
  return with(narrow(data_, values), is_int8 ? narrow(scales_, 1) : at::Tensor(), bias, view_.n, end - begin);
}

std::int64_t Linear::bytes() const {
  std::int64_t total = 0;
  for (const auto* t : {&data_, &scales_, &bias_}) {
    if (t->defined()) total += static_cast<std::int64_t>(t->nbytes());
  }
  return total;
}

at::Tensor Linear::operator()(const at::Tensor& x) const {
  require(x.dim() >= 1 && x.size(-1) == view_.k, ErrorCode::shape, "Linear",
          "expected activations of width {} but got [{}]", view_.k, fmt::join(x.sizes(), ", "));
  const bool fast = x.is_cpu() && data_.is_cpu() && x.scalar_type() == at::kFloat &&
                    !(at::GradMode::is_enabled() && x.requires_grad());
  if (!fast) {
    // Weights of another precision are widened, never activations narrowed.
    const bool same =
        view_.type != WeightType::int8 && data_.scalar_type() == x.scalar_type() && data_.scalar_type() != at::kByte;
    const at::Tensor weight = same ? data_ : to_f32().to(x.scalar_type());
    return at::linear(x, weight, bias_.defined() ? bias_.to(x.scalar_type()) : bias_);
  }
  const at::Tensor in = x.contiguous();
  auto shape = x.sizes().vec();
  shape.back() = view_.n;
  at::Tensor y = at::empty(shape, x.options());
  const std::int64_t m = view_.n == 0 ? 0 : y.numel() / view_.n;
  apply(in.const_data_ptr<float>(), m, y.data_ptr<float>());
  return y;
}

void Linear::apply(const float* x, std::int64_t m, float* y, Rounding rounding) const {
  const LinearCall call{this, y, 0};
  apply_together(x, m, {&call, 1}, rounding);
}

void apply_together(const float* x, std::int64_t m, std::span<const LinearCall> calls, Rounding rounding) {
  const LinearGroup group{x, m, calls};
  apply_together({&group, 1}, rounding);
}

void apply_together(std::span<const LinearGroup> groups, Rounding rounding) {
  std::vector<ProductArgs> products, rounded;
  for (const auto& [x, m, calls] : groups)
    for (const auto& call : calls) {
      if (m == 0) break;
      const WeightView& w = call.weight->view();
      const at::Tensor& bias = call.weight->bias();
      // Of a single group, scales would not fit where f32 did.
      const bool rounds = rounding != Rounding::none && w.k > kPackedGroup && kernels().rounds(w.type, rounding);
      (rounds ? rounded : products)
          .push_back({.weight = w,
                      .bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                      .x = x,
                      .ldx = w.k,
                      .m = m,
                      .y = call.y,
                      .ldy = call.ldy > 0 ? call.ldy : w.n,
                      .rounding = rounds ? rounding : Rounding::none});
    }
  run_products(products);
  run_products(rounded);
}

at::Tensor Linear::gather(std::span<const std::int64_t> ids) const {
  const auto count = static_cast<std::int64_t>(ids.size());
  for (std::int64_t id : ids) {
    require(id >= 0 && id < view_.n, ErrorCode::argument, "Linear::gather", "expected ids in [0, {}) but got {}",
            view_.n, id);
  }
  if (is_blocks() && !data_.is_cpu()) {
    Linear rows = *this;
    const at::Tensor index = send(at::tensor(at::ArrayRef(ids.data(), ids.size()), at::kLong), data_.device());
    rows.data_ = data_.view({view_.n, view_.row_bytes}).index_select(0, index).cpu();
    rows.view_.data = rows.data_.const_data_ptr();
    rows.view_.n = count;
    return rows.to_f32().to(data_.device());
  }
  if (!data_.is_cpu()) {
    const at::Tensor index = send(at::tensor(at::ArrayRef(ids.data(), ids.size()), at::kLong), data_.device());
    at::Tensor rows = data_.index_select(0, index).to(at::kFloat);
    if (view_.type != WeightType::int8) return rows;
    const at::Tensor scales = scales_.index_select(0, index);
    return (rows.view({count, -1, kGroup}) * scales.unsqueeze(-1)).view({count, -1}).narrow(1, 0, view_.k);
  }
  at::Tensor out = at::empty({count, view_.k}, at::kFloat);
  float* to = out.data_ptr<float>();
  for (std::int64_t i = 0; i < count; ++i) kernels().decode_row(view_, ids[i], to + i * view_.k);
  return out;
}

at::Tensor Linear::to_f32() const {
  if (view_.type == WeightType::f32) return data_;
  if (!data_.is_cpu()) {
    if (is_blocks()) return to(at::kCPU).to_f32().to(data_.device());
    const at::Tensor values = data_.to(at::kFloat);
    if (view_.type != WeightType::int8) return values;
    return (values.view({view_.n, -1, kGroup}) * scales_.unsqueeze(-1)).view({view_.n, -1}).narrow(1, 0, view_.k);
  }
  at::Tensor out = at::empty({view_.n, view_.k}, at::kFloat);
  float* to = out.data_ptr<float>();
  const KernelTable& table = kernels();
  core::detail::run_shares(view_.n, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) table.decode_row(view_, i, to + i * view_.k);
  });
  return out;
}

Linear Linear::to(at::Device device) const {
  if (device == data_.device()) return *this;
#ifndef STEER_CUDA
  if (is_blocks() && !device.is_cpu()) {
    const auto type = view_.type == WeightType::mxfp4 ? at::kBFloat16 : at::kFloat;  // which holds its values exactly
    return dense(to_f32().to(type).to(device), bias_.defined() ? bias_.to(device) : bias_);
  }
#endif
  Linear moved = *this;
  moved.data_ = data_.to(device);
  if (scales_.defined()) moved.scales_ = scales_.to(device);
  if (bias_.defined()) moved.bias_ = bias_.to(device);
  moved.view_.data = moved.data_.const_data_ptr();
  moved.view_.scales = moved.scales_.defined() ? moved.scales_.const_data_ptr<float>() : nullptr;
  return moved;
}

}  // namespace steer::model::detail
