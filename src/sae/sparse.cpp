#include "sae/sparse.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <span>

#include "core/crew.hpp"
#include "sae/kernels.hpp"

namespace steer::sae::detail {
namespace {

/// Sparse rows being collected: one list a token, joined at the end.
struct Rows {
  std::vector<std::vector<std::int32_t>> index;
  std::vector<std::vector<float>> value;
};

/// Adds the entries of the first `count` positions in `at`, the largest absolute value first, zeros left out.
void collect(const float* row, std::span<std::int32_t> at, std::int64_t limit, std::vector<std::int32_t>& index,
             std::vector<float>& value) {
  const auto before = [row](std::int32_t a, std::int32_t b) {
    const float x = std::abs(row[a]), y = std::abs(row[b]);
    return x > y || (x == y && a < b);
  };
  auto end = at.end();
  if (limit > 0 && limit < static_cast<std::int64_t>(at.size())) {
    end = at.begin() + limit;
    std::nth_element(at.begin(), end, at.end(), before);
  }
  std::sort(at.begin(), end, before);
  index.assign(at.begin(), end);
  value.resize(index.size());
  for (std::size_t i = 0; i < index.size(); ++i) value[i] = row[index[i]];
}

SparseActivations join(const Rows& rows, std::int64_t d_sae) {
  const auto tokens = static_cast<std::int64_t>(rows.index.size());
  SparseActivations out;
  out.d_sae = d_sae;
  out.offsets = at::empty({tokens + 1}, at::kLong);
  auto* offset = out.offsets.data_ptr<std::int64_t>();
  offset[0] = 0;
  for (std::int64_t t = 0; t < tokens; ++t) offset[t + 1] = offset[t] + static_cast<std::int64_t>(rows.index[t].size());
  out.index = at::empty({offset[tokens]}, at::kLong);
  out.value = at::empty({offset[tokens]}, at::kFloat);
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::copy(rows.index[t].begin(), rows.index[t].end(), out.index.data_ptr<std::int64_t>() + offset[t]);
    std::copy(rows.value[t].begin(), rows.value[t].end(), out.value.data_ptr<float>() + offset[t]);
  }
  return out;
}

}  // namespace

SparseActivations sparse_of(const at::Tensor& f, std::int64_t limit) {
  const auto tokens = f.size(0), d_sae = f.size(1);
  Rows rows{std::vector<std::vector<std::int32_t>>(tokens), std::vector<std::vector<float>>(tokens)};
  core::detail::run_shares(tokens, 1, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int32_t> at(d_sae);
    for (auto t = begin; t < end; ++t) {
      const float* row = f.const_data_ptr<float>() + t * d_sae;
      const auto count = kernels().nonzero(row, d_sae, at.data());
      collect(row, {at.data(), static_cast<std::size_t>(count)}, limit, rows.index[t], rows.value[t]);
    }
  });
  return join(rows, d_sae);
}

SparseActivations sparse_of_any(const at::Tensor& f, std::int64_t limit) {
  const auto count = (f != 0).sum(1);
  auto most = f.numel() == 0 ? 0 : count.max().item<std::int64_t>();
  if (limit > 0) most = std::min(most, limit);
  const auto at = std::get<1>(f.abs().topk(most, -1, true, true));
  const auto value = f.gather(1, at);
  const auto kept = value != 0;
  SparseActivations out;
  out.d_sae = f.size(1);
  out.index = at.masked_select(kept);
  out.value = value.masked_select(kept);
  out.offsets = at::cat({at::zeros({1}, count.options()), kept.sum(1).cumsum(0)});
  return out;
}

SparseActivations sparse_top_k(const Sae::Impl& sae, const at::Tensor& z, std::int64_t limit) {
  const auto tokens = z.size(0), d_sae = z.size(1);
  const bool absolute = sae.config.activation == SaeActivation::abstopk;
  const float* scale =
      sae.weights.selection_scale.defined() ? sae.weights.selection_scale.const_data_ptr<float>() : nullptr;
  Rows rows{std::vector<std::vector<std::int32_t>>(tokens), std::vector<std::vector<float>>(tokens)};
  core::detail::run_shares(tokens, 1, [&](std::int64_t begin, std::int64_t end) {
    TopKScratch scratch;
    std::vector<std::int32_t> at(sae.config.k);
    std::vector<float> scores(absolute || scale ? d_sae : 0);
    for (auto t = begin; t < end; ++t) {
      const float* row = z.const_data_ptr<float>() + t * d_sae;
      if (absolute)
        for (std::int64_t i = 0; i < d_sae; ++i) scores[i] = std::abs(row[i]);
      else if (scale)
        for (std::int64_t i = 0; i < d_sae; ++i) scores[i] = row[i] * scale[i];
      auto count = top_k(scores.empty() ? row : scores.data(), d_sae, sae.config.k, at.data(), scratch);
      count = std::remove_if(at.begin(), at.begin() + count,
                             [&](std::int32_t i) { return absolute ? row[i] == 0 : !(row[i] > 0); }) -
              at.begin();
      collect(row, {at.data(), static_cast<std::size_t>(count)}, limit, rows.index[t], rows.value[t]);
    }
  });
  return join(rows, d_sae);
}

SparseActivations concatenate(std::vector<SparseActivations> parts) {
  if (parts.size() == 1) return std::move(parts.front());
  SparseActivations out;
  out.d_sae = parts.front().d_sae;
  std::vector<at::Tensor> offsets, index, value;
  std::int64_t before = 0;
  for (auto& p : parts) {
    offsets.push_back((offsets.empty() ? p.offsets : p.offsets.slice(0, 1)) + before);
    before += p.index.size(0);
    index.push_back(p.index);
    value.push_back(p.value);
  }
  out.offsets = at::cat(offsets);
  out.index = at::cat(index);
  out.value = at::cat(value);
  return out;
}

at::Tensor sparse_decode(const Sae::Impl& sae, const SparseActivations& f) {
  const auto tokens = f.offsets.size(0) - 1, d_out = sae.config.d_out;
  const auto& decoder = sae.weights.W_dec;
  auto out = sae.weights.b_dec.repeat({tokens, 1});  // a copy even for one token: it is added to
  if (kernels_apply(f.value) && kernels_apply(decoder)) {
    const auto* offset = f.offsets.const_data_ptr<std::int64_t>();
    const auto* index = f.index.const_data_ptr<std::int64_t>();
    const auto* value = f.value.const_data_ptr<float>();
    const auto* rows = decoder.const_data_ptr<float>();
    auto* to = out.data_ptr<float>();
    core::detail::run_shares(tokens, 1, [&](std::int64_t begin, std::int64_t end) {
      for (auto t = begin; t < end; ++t)
        for (auto e = offset[t]; e < offset[t + 1]; ++e)
          kernels().add_scaled(to + t * d_out, rows + index[e] * d_out, value[e], d_out);
    });
    return out;
  }
  const auto owner = at::repeat_interleave(f.offsets.diff());
  const auto entries = f.index.size(0), block = block_rows(d_out);
  for (std::int64_t begin = 0; begin < entries; begin += block) {
    const auto end = std::min(entries, begin + block);
    const auto rows = decoder.index_select(0, f.index.slice(0, begin, end)).to(at::kFloat);
    out = out.index_add(0, owner.slice(0, begin, end), rows * f.value.slice(0, begin, end).unsqueeze(1));
  }
  return out;
}

}  // namespace steer::sae::detail
