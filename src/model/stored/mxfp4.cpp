// Blocks of 32 values of 4 bits (1 sign, 2 exponent, 1 mantissa) and a power of two.
#include "model/stored/formats.hpp"

#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <fmt/ranges.h>

#include <array>
#include <cmath>

#include <steer/core/error.hpp>

#include "core/crew.hpp"

namespace steer::model::detail {
namespace {

constexpr std::array<float, 16> kFp4 = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};

/// As GGUF's MXFP4: the power, then 16 bytes whose low halves are values 0 to 15. Here they are the even ones.
at::Tensor as_ggml_mxfp4(const at::Tensor& packed, const at::Tensor& powers) {
  const std::int64_t blocks = powers.numel();
  at::Tensor out = at::empty({blocks * (1 + kStoredBlock / 2)}, at::kByte);
  const auto *from = packed.const_data_ptr<std::uint8_t>(), *power = powers.const_data_ptr<std::uint8_t>();
  auto* to = out.data_ptr<std::uint8_t>();
  core::detail::run_shares(blocks, 1 << 12, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      const std::uint8_t* in = from + b * (kStoredBlock / 2);
      std::uint8_t* made = to + b * (1 + kStoredBlock / 2);
      *made++ = power[b];
      const auto value = [&](std::int64_t i) { return i % 2 ? in[i / 2] >> 4 : in[i / 2] & 15; };
      for (std::int64_t i = 0; i < kStoredBlock / 2; ++i)
        made[i] = static_cast<std::uint8_t>(value(i) | value(i + kStoredBlock / 2) << 4);
    }
  });
  return out;
}

}  // namespace

Plain mxfp4(const TensorReader& reader, const TensorInfo& blocks, const std::string& name,
            const std::shared_ptr<Repacked>& last) {
  require(blocks.shape.size() == 4 && blocks.shape[3] == kStoredBlock / 2 && blocks.storage == "U8", ErrorCode::shape,
          kStoredWhere, "expected {} to be [experts, out, in / 32, 16] of U8 but got [{}] of {} ({})", blocks.name,
          fmt::join(blocks.shape, ", "), blocks.storage, reader.path().string());
  const std::int64_t experts = blocks.shape[0], out = blocks.shape[1], across = blocks.shape[2],
                     in = across * kStoredBlock;
  part(reader, name + "_scales", {experts, out, across});
  Plain plain;
  plain.info = {name, {experts, out, in}, "MXFP4", at::kBFloat16, experts * out * across * (1 + kStoredBlock / 2)};
  plain.raw = [&reader, name, last, packed_name = blocks.name] {
    if (last->name != name) {
      *last = {};  // before the next one takes as much
      *last = {name, as_ggml_mxfp4(reader.read(packed_name).contiguous(), reader.read(name + "_scales").contiguous())};
    }
    return last->bytes;
  };
  plain.rows = [=, &reader, packed_name = blocks.name](std::int64_t begin, std::int64_t end) {
    const at::Tensor packed = reader.read_rows(packed_name, begin, end).contiguous(),
                     exponents = reader.read_rows(name + "_scales", begin, end).contiguous();
    const auto* bytes = packed.const_data_ptr<std::uint8_t>();
    const auto* scale = exponents.const_data_ptr<std::uint8_t>();
    at::Tensor made = at::empty({end - begin, out, in}, at::kBFloat16);  // holds three bits and a power of two exactly
    auto* to = made.data_ptr<at::BFloat16>();
    core::detail::run_shares((end - begin) * out * across, 1 << 10, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t b = first; b < last; ++b) {
        const int exponent = static_cast<int>(scale[b]) - 127;
        for (std::int64_t i = 0; i < kStoredBlock / 2; ++i) {
          const std::uint8_t two = bytes[b * (kStoredBlock / 2) + i];
          to[b * kStoredBlock + 2 * i] = at::BFloat16(std::ldexp(kFp4[two & 15], exponent));
          to[b * kStoredBlock + 2 * i + 1] = at::BFloat16(std::ldexp(kFp4[two >> 4], exponent));
        }
      }
    });
    return made;
  };
  return plain;
}

}  // namespace steer::model::detail
