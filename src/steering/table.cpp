#include "steering/table.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/empty.h>

#include <cmath>

#include <steer/core/hash.hpp>

namespace steer::steering::detail {

void TableBuilder::want(const Sae& sae, std::int64_t feature, TargetSide side) {
  Wanted& wanted = wanted_[sae.hash()];
  if (!wanted.sae) wanted.sae = sae;
  (side == TargetSide::encoder ? wanted.encoder : wanted.decoder).emplace(feature, -1);
}

template <class ReadRows>
void TableBuilder::gather(std::map<std::int64_t, int>& wanted, ReadRows read_rows) {
  std::vector<std::int64_t> features;
  for (const auto& [feature, row] : wanted) features.push_back(feature);
  if (features.empty()) return;
  const at::Tensor rows = read_rows(features).to(at::kCPU);
  for (std::size_t i = 0; i < features.size(); ++i) wanted[features[i]] = add(rows[static_cast<std::int64_t>(i)]);
}

void TableBuilder::gather() {
  for (auto& of_sae : wanted_) {
    auto& wanted = of_sae.second;  // clang 16 with OpenMP captures no structured binding
    gather(wanted.encoder, [&](const auto& features) { return wanted.sae->encoder_rows(features); });
    gather(wanted.decoder, [&](const auto& features) { return wanted.sae->decoder_rows(features); });
  }
}

int TableBuilder::place(const Sae& sae, std::int64_t feature, TargetSide side) const {
  const Wanted& wanted = wanted_.at(sae.hash());
  return (side == TargetSide::encoder ? wanted.encoder : wanted.decoder).at(feature);
}

int TableBuilder::add(const at::Tensor& vector) {
  const at::Tensor row = vector.to(at::kFloat).contiguous();
  const auto* bytes = reinterpret_cast<const std::byte*>(row.const_data_ptr<float>());
  const auto size = static_cast<std::size_t>(row.numel()) * sizeof(float);
  const auto [it, fresh] = by_content_.emplace(content_hash(std::span(bytes, size)), static_cast<int>(rows_.size()));
  if (fresh) rows_.push_back(row);
  return it->second;
}

ConstantTable TableBuilder::finish() const {
  ConstantTable table{.width = width_, .rows = at::empty({static_cast<std::int64_t>(rows_.size()), width_})};
  table.first = table.rows.const_data_ptr<float>();
  for (std::size_t i = 0; i < rows_.size(); ++i) table.rows[static_cast<std::int64_t>(i)].copy_(rows_[i]);
  return table;
}

Register feature_register(const Sae& sae, std::int64_t feature, const TableBuilder& table) {
  Register r;
  r.feature = feature;
  r.reading = sae.per_feature() ? Reading::feature : Reading::encode;
  if (!sae.per_feature()) return r;
  r.read = table.place(sae, feature, TableBuilder::TargetSide::encoder);
  const at::Tensor encoder = table.row(r.read).to(at::kDouble);
  const auto of_feature = [&](const at::Tensor& t) {
    return static_cast<float>(t.numel() == 1 ? t.item<double>() : t[feature].item<double>());
  };
  r.read_sum = static_cast<float>(encoder.sum().item<double>());
  if (sae.config().subtract_b_dec)
    r.offset = static_cast<float>(-at::dot(sae.b_dec().to(at::kCPU).to(at::kDouble), encoder).item<double>());
  if (sae.config().activation == SaeActivation::gated) {
    r.gain = std::exp(of_feature(sae.r_mag()));
    r.bias = of_feature(sae.b_mag());
    r.gate_bias = of_feature(sae.b_gate());
  } else {
    r.bias = r.gate_bias = of_feature(sae.b_enc());
    if (sae.threshold().defined()) r.threshold = of_feature(sae.threshold());
  }
  return r;
}

}  // namespace steer::steering::detail
