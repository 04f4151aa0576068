// Formats: GPTQ as AutoGPTQ and GPTQModel write it, AWQ as AutoAWQ's GEMM version, FP8 as DeepSeek-V3 and
// compressed-tensors, bitsandbytes' serialised 4-bit state, MXFP4 as gpt-oss.
#include "model/stored_weights.hpp"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <fmt/ranges.h>

#include <array>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include <steer/core/error.hpp>

#include "core/crew.hpp"
#include "io/strict_json.hpp"
#include "io/view_reader.hpp"

namespace steer::model::detail {
namespace {

constexpr auto kWhere = "Model::load";
constexpr std::int64_t kPacked = 8;  // 4-bit values in an int32
constexpr std::int64_t kBlock = 32;  // values of a Q8_0 block, of an MXFP4 block

[[noreturn]] void refuse(const std::string& what) {
  fail(ErrorCode::unsupported, kWhere,
       "expected a quantization_config that steer reads (GPTQ and AWQ of 4 bits, FP8, bitsandbytes, MXFP4) but got {}; "
       "convert the model to bf16 safetensors or to GGUF",
       what);
}

using Plain = io::detail::ViewTensor;

const TensorInfo& part(const TensorReader& reader, const std::string& name, const std::vector<std::int64_t>& shape) {
  const TensorInfo* info = reader.find(name);
  require(info, ErrorCode::format, kWhere, "expected {} beside the other parts of a quantised matrix but got none ({})",
          name, reader.path().string());
  require(info->shape == shape, ErrorCode::shape, kWhere,
          "expected {} to be [{}], as quantization_config says, but got [{}] "
          "({}); config.json and weights do not belong together",
          name, fmt::join(shape, ", "), fmt::join(info->shape, ", "), reader.path().string());
  return *info;
}

at::Tensor floats(const TensorReader& reader, const std::string& name) {
  return reader.read(name).to(at::kFloat).contiguous();
}
at::Tensor integers(const TensorReader& reader, const std::string& name) {
  return reader.read(name).to(at::kInt).contiguous();
}

// ---- GPTQ and AWQ: w[out][in] = scale[group][out] * (q - zero[group][out]).

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
  require(m.group_of.min().item<int>() >= 0 && m.group_of.max().item<int>() < groups, ErrorCode::format, kWhere,
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
  constexpr std::int64_t kBytes = 2 + kBlock;
  at::Tensor out = at::empty({m.out * m.in / kBlock * kBytes}, at::kByte);
  auto* bytes = out.data_ptr<std::uint8_t>();
  core::detail::run_shares(m.out, 16, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t o = from; o < to; ++o) {
      std::uint8_t* block = bytes + o * (m.in / kBlock) * kBytes;
      for (std::int64_t first = 0; first < m.in; first += kBlock, block += kBytes) {
        const c10::Half scale(m.scale(o, first));
        std::memcpy(block, &scale.x, 2);
        for (std::int64_t i = 0; i < kBlock; ++i)
          block[2 + i] = static_cast<std::uint8_t>(static_cast<std::int8_t>(m.value(o, first + i)));
      }
    }
  });
  return out;
}

/// Whether every 32 inputs in a row share a group.
bool groups_of_blocks(const TensorReader& reader, const std::string& name, std::int64_t in, std::int64_t group) {
  if (in % kBlock != 0 || (group > 0 && group % kBlock != 0)) return false;
  if (!reader.contains(name + ".g_idx")) return true;
  const at::Tensor blocks = integers(reader, name + ".g_idx").reshape({-1, kBlock});
  return at::equal(blocks, blocks.narrow(1, 0, 1).expand_as(blocks));
}

Plain four_bits(const TensorReader& reader, const TensorInfo& weight, const std::string& name, const StoredWeights& s) {
  const bool awq = s.kind == StoredKind::awq;
  require(weight.shape.size() == 2 && weight.storage == "I32", ErrorCode::shape, kWhere,
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
                blocks ? out * in / kBlock * (2 + kBlock) : out * in * 4};
  plain.rows = [&reader, name, out, in, s](std::int64_t begin, std::int64_t end) {
    return decode(read_four_bits(reader, name, out, in, s), begin, end);
  };
  if (blocks) plain.raw = [&reader, name, out, in, s] { return as_q8_0(read_four_bits(reader, name, out, in, s)); };
  return plain;
}

// ---- FP8: a matrix of f8 times the scale of its block, of its row, or of all.

Plain scaled(const TensorReader& reader, const TensorInfo& weight, const std::string& scale_name,
             const StoredWeights& s) {
  const TensorInfo& scale = reader.info(scale_name);
  require(weight.shape.size() == 2, ErrorCode::shape, kWhere, "expected {} to be a matrix but got {} dimensions",
          weight.name, weight.shape.size());
  const std::int64_t out = weight.shape[0], in = weight.shape[1];
  const bool blocks = s.block_rows > 0 && scale_name.ends_with("_scale_inv");
  const std::int64_t high = blocks ? s.block_rows : out, wide = blocks ? s.block_columns : in;
  std::int64_t count = 1;
  for (auto size : scale.shape) count *= size;
  const std::int64_t down = (out + high - 1) / high, across = (in + wide - 1) / wide;
  require(blocks ? scale.shape == std::vector{down, across} : count == 1 || count == out, ErrorCode::shape, kWhere,
          "expected {} to have a scale for each block of {} by {} of {} but got [{}] ({})", scale_name, high, wide,
          weight.name, fmt::join(scale.shape, ", "), reader.path().string());
  Plain plain;
  plain.info = {weight.name, weight.shape, "FP8", at::kFloat, out * in * 4};
  plain.rows = [&reader, name = weight.name, scale_name, blocks, high, wide, in, count](std::int64_t begin,
                                                                                        std::int64_t end) {
    at::Tensor values = reader.read_rows(name, begin, end).to(at::kFloat);
    const at::Tensor scales = floats(reader, scale_name);
    if (!blocks) {
      const at::Tensor flat = scales.reshape({-1});
      return values.mul_(count == 1 ? flat : flat.narrow(0, begin, end - begin).unsqueeze(1));
    }
    const at::Tensor row_of = at::arange(begin, end, at::kLong).div(high, "floor"),
                     column_of = at::arange(in, at::kLong).div(wide, "floor");
    return values.mul_(scales.index_select(0, row_of).index_select(1, column_of));
  };
  return plain;
}

// ---- bitsandbytes.

Plain four_bit_blocks(const TensorReader& reader, const TensorInfo& weight, const std::string& state_name) {
  const at::Tensor raw = reader.raw(state_name);
  const auto state =
      io::detail::parse_json({static_cast<const char*>(raw.const_data_ptr()), static_cast<std::size_t>(raw.numel())},
                             kWhere, fmt::format("{} of {}", state_name, reader.path().string()));
  std::vector<std::int64_t> shape;
  std::int64_t block = 0, nested_block = 256;
  double offset = 0;
  try {
    shape = state.at("shape").get<std::vector<std::int64_t>>();
    block = state.at("blocksize").get<std::int64_t>();
    nested_block = state.value("nested_blocksize", nested_block);
    offset = state.value("nested_offset", offset);
  } catch (const nlohmann::json::exception&) {
    fail(ErrorCode::format, kWhere, "expected a JSON object with shape and blocksize in {} but got {} ({})", state_name,
         io::detail::brief(state), reader.path().string());
  }
  require(shape.size() == 2 && shape[0] > 0 && shape[1] > 0 && shape[0] < (1 << 30) && shape[1] < (1 << 30) &&
              block > 0 && weight.bytes * 2 == shape[0] * shape[1],
          ErrorCode::shape, kWhere, "expected {} to hold half a byte for each of [{}] but got {} bytes ({})",
          weight.name, fmt::join(shape, ", "), weight.bytes, reader.path().string());
  const std::int64_t count = shape[0] * shape[1], blocks = (count + block - 1) / block;
  const std::string name = weight.name;
  part(reader, name + ".absmax", {blocks});
  part(reader, name + ".quant_map", {16});
  const bool nested = reader.contains(name + ".nested_absmax");
  if (nested) {
    require(nested_block > 0, ErrorCode::format, kWhere, "expected a nested_blocksize above 0 in {}", state_name);
    part(reader, name + ".nested_quant_map", {256});
    part(reader, name + ".nested_absmax", {(blocks + nested_block - 1) / nested_block});
  }
  Plain plain;
  plain.info = {name, shape, "bitsandbytes", at::kFloat, count * 4};
  plain.rows = [=, &reader, width = shape[1]](std::int64_t begin, std::int64_t end) {
    at::Tensor largest = floats(reader, name + ".absmax");
    if (nested) {
      const at::Tensor map = floats(reader, name + ".nested_quant_map"),
                       outer = floats(reader, name + ".nested_absmax");
      const at::Tensor which = at::arange(blocks, at::kLong).div(nested_block, "floor");
      largest = map.index_select(0, largest.to(at::kLong)) * outer.index_select(0, which) + offset;
    }
    const at::Tensor map = floats(reader, name + ".quant_map"), bytes = reader.raw(name);
    const auto* packed = static_cast<const std::uint8_t*>(bytes.const_data_ptr());
    const float *values = map.const_data_ptr<float>(), *scale = largest.const_data_ptr<float>();
    at::Tensor out = at::empty({end - begin, width}, at::kFloat);
    auto* to = out.data_ptr<float>();
    core::detail::run_shares((end - begin) * width, 1 << 15, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = begin * width + first; i < begin * width + last; ++i)  // the high half comes first
        to[i - begin * width] = values[i % 2 ? packed[i / 2] & 15 : packed[i / 2] >> 4] * scale[i / block];
    });
    return out;
  };
  return plain;
}

/// 8 bits: rows of int8 times the row's largest value over 127.
Plain eight_bit_rows(const TensorReader& reader, const TensorInfo& weight, const std::string& scale_name) {
  require(weight.shape.size() == 2, ErrorCode::shape, kWhere, "expected {} to be a matrix", weight.name);
  part(reader, scale_name, {weight.shape[0]});
  Plain plain;
  plain.info = {weight.name, weight.shape, "bitsandbytes", at::kFloat, weight.shape[0] * weight.shape[1] * 4};
  plain.rows = [&reader, name = weight.name, scale_name](std::int64_t begin, std::int64_t end) {
    const at::Tensor scale = floats(reader, scale_name).narrow(0, begin, end - begin) / 127;
    return reader.read_rows(name, begin, end).to(at::kFloat) * scale.unsqueeze(1);
  };
  return plain;
}

// ---- MXFP4: blocks of 32 values of 4 bits (1 sign, 2 exponent, 1 mantissa) and a power of two.

constexpr std::array<float, 16> kFp4 = {0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};

/// The last tensor that was repacked: its parts are asked for one after another, and share its memory.
struct Repacked {
  std::string name;
  at::Tensor bytes;
};

/// As GGUF's MXFP4: the power, then 16 bytes whose low halves are values 0 to 15. Here they are the even ones.
at::Tensor as_ggml_mxfp4(const at::Tensor& packed, const at::Tensor& powers) {
  const std::int64_t blocks = powers.numel();
  at::Tensor out = at::empty({blocks * (1 + kBlock / 2)}, at::kByte);
  const auto *from = packed.const_data_ptr<std::uint8_t>(), *power = powers.const_data_ptr<std::uint8_t>();
  auto* to = out.data_ptr<std::uint8_t>();
  core::detail::run_shares(blocks, 1 << 12, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      const std::uint8_t* in = from + b * (kBlock / 2);
      std::uint8_t* made = to + b * (1 + kBlock / 2);
      *made++ = power[b];
      const auto value = [&](std::int64_t i) { return i % 2 ? in[i / 2] >> 4 : in[i / 2] & 15; };
      for (std::int64_t i = 0; i < kBlock / 2; ++i)
        made[i] = static_cast<std::uint8_t>(value(i) | value(i + kBlock / 2) << 4);
    }
  });
  return out;
}

/// Experts' matrices, stored [experts, out, in / 32, 16], shown [experts, out, in] (unpacked files have them
/// transposed).
Plain mxfp4(const TensorReader& reader, const TensorInfo& blocks, const std::string& name,
            const std::shared_ptr<Repacked>& last) {
  require(blocks.shape.size() == 4 && blocks.shape[3] == kBlock / 2 && blocks.storage == "U8", ErrorCode::shape, kWhere,
          "expected {} to be [experts, out, in / 32, 16] of U8 but got [{}] of {} ({})", blocks.name,
          fmt::join(blocks.shape, ", "), blocks.storage, reader.path().string());
  const std::int64_t experts = blocks.shape[0], out = blocks.shape[1], across = blocks.shape[2], in = across * kBlock;
  part(reader, name + "_scales", {experts, out, across});
  Plain plain;
  plain.info = {name, {experts, out, in}, "MXFP4", at::kBFloat16, experts * out * across * (1 + kBlock / 2)};
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
        for (std::int64_t i = 0; i < kBlock / 2; ++i) {
          const std::uint8_t two = bytes[b * (kBlock / 2) + i];
          to[b * kBlock + 2 * i] = at::BFloat16(std::ldexp(kFp4[two & 15], exponent));
          to[b * kBlock + 2 * i + 1] = at::BFloat16(std::ldexp(kFp4[two >> 4], exponent));
        }
      }
    });
    return made;
  };
  return plain;
}

/// The name without an ending, or nothing.
std::optional<std::string> without(const std::string& name, std::string_view ending) {
  if (!name.ends_with(ending)) return {};
  return name.substr(0, name.size() - ending.size());
}

}  // namespace

StoredWeights read_quantisation(const nlohmann::json& config) {
  require(config.is_object(), ErrorCode::config, kWhere, "expected quantization_config to be an object but got {}",
          io::detail::brief(config));
  const auto text = [&](const char* key) {
    return config.contains(key) && config[key].is_string() ? config[key].get<std::string>() : std::string();
  };
  const auto integer = [&](const char* key, std::int64_t missing) {
    if (!config.contains(key) || config[key].is_null()) return missing;
    if (!config[key].is_number_integer()) refuse(fmt::format("{} = {}", key, io::detail::brief(config[key])));
    return config[key].get<std::int64_t>();
  };
  std::string method = text("quant_method");
  StoredWeights out;
  if (method == "compressed-tensors") {
    if (text("format") != "float-quantized") refuse("compressed-tensors of format \"" + text("format") + "\"");
    out.kind = StoredKind::fp8;
    return out;
  }
  if (method.empty()) refuse("no quant_method, as MLX writes it");
  const auto kind = find_enum<StoredKind>(method);
  if (!kind || *kind == StoredKind::plain) refuse("quant_method = \"" + method + "\"");
  out.kind = *kind;
  if (out.kind == StoredKind::gptq || out.kind == StoredKind::awq) {
    if (integer("bits", integer("w_bit", 4)) != 4)
      refuse(method + " of " + std::to_string(integer("bits", 0)) + " bits");
    out.group = integer("group_size", integer("q_group_size", 128));
    if (out.group < 1 && out.group != -1)  // -1: a column is one group
      refuse("group_size = " + std::to_string(out.group));
    out.zeros_less_one = text("checkpoint_format") != "gptq_v2";
    const std::string version = text("version");
    if (out.kind == StoredKind::awq && !version.empty() && version != "gemm" && version != "GEMM")
      refuse("awq of version \"" + version + "\"");
  }
  if (out.kind == StoredKind::fp8 && config.contains("weight_block_size") && !config["weight_block_size"].is_null()) {
    const auto& block = config["weight_block_size"];
    if (!block.is_array() || block.size() != 2 || !block[0].is_number_integer() || !block[1].is_number_integer() ||
        block[0].get<std::int64_t>() < 1 || block[1].get<std::int64_t>() < 1)
      refuse("weight_block_size = " + io::detail::brief(block));
    out.block_rows = block[0].get<std::int64_t>();
    out.block_columns = block[1].get<std::int64_t>();
  }
  return out;
}

std::shared_ptr<const TensorReader> plain_tensors(const TensorReader& reader, const StoredWeights& stored) {
  std::vector<Plain> plain;
  std::set<std::string> parts;
  const auto last = std::make_shared<Repacked>();
  bool any = false;
  const auto add = [&](Plain tensor, std::initializer_list<std::string> of) {
    any = true;
    for (const auto& name : of) parts.insert(name);
    plain.push_back(std::move(tensor));
  };
  for (const auto& info : reader.tensors()) {
    const std::string& name = info.name;
    if (const auto base = without(name, "_blocks"); base && reader.contains(*base + "_scales")) {
      add(mxfp4(reader, info, *base, last), {name, *base + "_scales"});
    } else if (const auto matrix = without(name, ".qweight");
               matrix && (stored.kind == StoredKind::gptq || stored.kind == StoredKind::awq)) {
      add(four_bits(reader, info, *matrix, stored),
          {name, *matrix + ".qzeros", *matrix + ".scales", *matrix + ".g_idx"});
    } else if (stored.kind == StoredKind::fp8 && info.storage.starts_with("F8")) {
      const std::string base = without(name, "weight").value_or(name + ".");
      for (const std::string& scale : {name + "_scale_inv", name + "_scale"})
        if (reader.contains(scale)) {
          add(scaled(reader, info, scale, stored), {name, scale, base + "input_scale", base + "activation_scale"});
          break;
        }
    } else if (stored.kind == StoredKind::bitsandbytes) {
      for (const char* type : {"nf4", "fp4"})
        if (const std::string state = name + ".quant_state.bitsandbytes__" + type; reader.contains(state))
          add(four_bit_blocks(reader, info, state), {name, state, name + ".absmax", name + ".quant_map",
                                                     name + ".nested_absmax", name + ".nested_quant_map"});
      if (const auto base = without(name, "weight"); base && reader.contains(*base + "SCB"))
        add(eight_bit_rows(reader, info, *base + "SCB"), {name, *base + "SCB", *base + "weight_format"});
    }
  }
  require(
      any || stored.kind == StoredKind::plain, ErrorCode::unsupported, kWhere,
      "expected quantised matrices, since quantization_config says {}, but got none ({}); remove quantization_config "
      "if the weights are plain",
      to_string(stored.kind), reader.path().string());
  if (!any) return {};
  for (const auto& info : reader.tensors())
    if (!parts.contains(info.name)) plain.push_back(io::detail::tensor_of(io::detail::unowned(reader), info));
  return io::detail::view_of_tensors(reader, std::move(plain));
}

}  // namespace steer::model::detail
