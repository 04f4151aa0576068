// w[out][in] = scale[group][out] * (q - zero[group][out]).
#include "model/stored/formats.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <c10/util/Half.h>

#include <array>
#include <cstring>

#include <steer/core/error.hpp>

#include "core/crew.hpp"

namespace steer::model::detail {
namespace {

constexpr std::int64_t kPacked = 8;  // 4-bit values in an int32

/// The parts of one matrix, read.
struct FourBits {
  std::int64_t out, in, groups;
  bool awq, less_one;
  at::Tensor weight, zeros, scales, group_of;  // group_of [in] of int32

  /// AWQ packs columns in this order into an int32, so that a CUDA kernel unpacks them in pairs.
  static constexpr std::array<int, kPacked> kAwqPlace = {0, 4, 1, 5, 2, 6, 3, 7};

  static int nibble(std::int32_t word, int place) {
    return static_cast<int>(static_cast<std::uint32_t>(word) >> (4 * place)) & 15;
  }
  int place(std::int64_t column) const {
    return awq ? kAwqPlace[static_cast<std::size_t>(column % kPacked)] : static_cast<int>(column % kPacked);
  }
  /// q - zero, within [-16, 15].
  int value(std::int64_t o, std::int64_t i) const {
    const auto* w = weight.const_data_ptr<std::int32_t>();
    const auto* z = zeros.const_data_ptr<std::int32_t>();
    const int q = awq ? nibble(w[i * (out / kPacked) + o / kPacked], place(o))
                      : nibble(w[i / kPacked * out + o], static_cast<int>(i % kPacked));
    return q - (nibble(z[group(i) * (out / kPacked) + o / kPacked], place(o)) + (less_one ? 1 : 0));
  }
  std::int64_t group(std::int64_t i) const { return group_of.const_data_ptr<std::int32_t>()[i]; }
  float scale(std::int64_t o, std::int64_t i) const { return scales.const_data_ptr<float>()[group(i) * out + o]; }
};

FourBits read_four_bits(const TensorReader& reader, const std::string& name, std::int64_t out, std::int64_t in,
                        const StoredWeights& stored) {
  const std::int64_t group = stored.group > 0 ? stored.group : in, groups = (in + group - 1) / group;
  FourBits m{
      out, in, groups, stored.kind == StoredKind::awq, stored.kind == StoredKind::gptq && stored.zeros_less_one, {},
      {},  {}, {}};
  m.weight = integers(reader, name + ".qweight");
  m.zeros = integers(reader, name + ".qzeros");
  m.scales = floats(reader, name + ".scales");
  m.group_of = reader.contains(name + ".g_idx") ? integers(reader, name + ".g_idx")
                                                : at::arange(in, at::kInt).div(group, "floor").to(at::kInt);
  require(m.group_of.min().item<int>() >= 0 && m.group_of.max().item<int>() < groups, ErrorCode::format, kStoredWhere,
          "expected groups below {} in {}.g_idx but got up to {} ({}); the file is damaged", groups, name,
          m.group_of.max().item<int>(), reader.path().string());
  return m;
}

at::Tensor decode(const FourBits& m, std::int64_t begin, std::int64_t end) {
  at::Tensor out = at::empty({end - begin, m.in}, at::kFloat);
  auto* rows = out.data_ptr<float>();
  core::detail::run_shares(end - begin, 16, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t o = begin + from; o < begin + to; ++o)
      for (std::int64_t i = 0; i < m.in; ++i)
        rows[(o - begin) * m.in + i] = m.scale(o, i) * static_cast<float>(m.value(o, i));
  });
  return out;
}

/// As GGUF's Q8_0: an f16 scale and 32 signed bytes. Exact, since the scales are f16 and the values small.
at::Tensor as_q8_0(const FourBits& m) {
  constexpr std::int64_t kBytes = 2 + kStoredBlock;
  at::Tensor out = at::empty({m.out * m.in / kStoredBlock * kBytes}, at::kByte);
  auto* bytes = out.data_ptr<std::uint8_t>();
  core::detail::run_shares(m.out, 16, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t o = from; o < to; ++o) {
      std::uint8_t* block = bytes + o * (m.in / kStoredBlock) * kBytes;
      for (std::int64_t first = 0; first < m.in; first += kStoredBlock, block += kBytes) {
        const c10::Half scale(m.scale(o, first));
        std::memcpy(block, &scale.x, 2);
        for (std::int64_t i = 0; i < kStoredBlock; ++i)
          block[2 + i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(m.value(o, first + i)));
      }
    }
  });
  return out;
}

/// Whether every 32 inputs in a row share a group.
bool groups_of_blocks(const TensorReader& reader, const std::string& name, std::int64_t in, std::int64_t group) {
  if (in % kStoredBlock != 0 || (group > 0 && group % kStoredBlock != 0)) return false;
  if (!reader.contains(name + ".g_idx")) return true;
  const at::Tensor blocks = integers(reader, name + ".g_idx").reshape({-1, kStoredBlock});
  return at::equal(blocks, blocks.narrow(1, 0, 1).expand_as(blocks));
}

}  // namespace

Plain four_bits(const TensorReader& reader, const TensorInfo& weight, const std::string& name, const StoredWeights& s) {
  const bool awq = s.kind == StoredKind::awq;
  require(weight.shape.size() == 2 && weight.storage == "I32", ErrorCode::shape, kStoredWhere,
          "expected {} to be a matrix of I32 but got {} of {} dimensions ({})", weight.name, weight.storage,
          weight.shape.size(), reader.path().string());
  const std::int64_t out = awq ? weight.shape[1] * kPacked : weight.shape[1],
                     in = awq ? weight.shape[0] : weight.shape[0] * kPacked, group = s.group > 0 ? s.group : in,
                     groups = (in + group - 1) / group;
  part(reader, name + ".qzeros", {groups, out / kPacked});
  const bool f16 = part(reader, name + ".scales", {groups, out}).storage == "F16";
  if (reader.contains(name + ".g_idx")) part(reader, name + ".g_idx", {in});
  const bool blocks = f16 && groups_of_blocks(reader, name, in, s.group);
  Plain plain;
  plain.info = {name + ".weight",
                {out, in},
                blocks ? "Q8_0" : std::string(to_string(s.kind)),
                at::kFloat,
                blocks ? out * in / kStoredBlock * (2 + kStoredBlock) : out * in * 4};
  plain.rows = [&reader, name, out, in, s](std::int64_t begin, std::int64_t end) {
    return decode(read_four_bits(reader, name, out, in, s), begin, end);
  };
  if (blocks) plain.raw = [&reader, name, out, in, s] { return as_q8_0(read_four_bits(reader, name, out, in, s)); };
  return plain;
}

}  // namespace steer::model::detail
