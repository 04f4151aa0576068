#include "model/stored_weights.hpp"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "io/strict_json.hpp"
#include "model/stored/formats.hpp"

namespace steer::model::detail {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  fail(ErrorCode::unsupported, kStoredWhere,
       "expected a quantization_config that steer reads (GPTQ and AWQ of 4 bits, FP8, bitsandbytes, MXFP4) but got {}; "
       "convert the model to bf16 safetensors or to GGUF",
       what);
}

/// The name without an ending, or nothing.
std::optional<std::string> without(const std::string& name, std::string_view ending) {
  if (!name.ends_with(ending)) return {};
  return name.substr(0, name.size() - ending.size());
}

}  // namespace

const TensorInfo& part(const TensorReader& reader, const std::string& name, const std::vector<std::int64_t>& shape) {
  const TensorInfo* info = reader.find(name);
  require(info, ErrorCode::format, kStoredWhere,
          "expected {} beside the other parts of a quantised matrix but got none ({})", name, reader.path().string());
  require(info->shape == shape, ErrorCode::shape, kStoredWhere,
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

StoredWeights read_quantisation(const nlohmann::json& config) {
  require(config.is_object(), ErrorCode::config, kStoredWhere,
          "expected quantization_config to be an object but got {}", io::detail::brief(config));
  const auto text = [&](const char* key) {
    return config.contains(key) && config[key].is_string() ? config[key].get<std::string>() : std::string();
  };
  const auto integer = [&](const char* key, std::int64_t missing) {
    if (!config.contains(key) || config[key].is_null()) return missing;
    if (!config[key].is_number_integer()) refuse(format_text("{} = {}", key, io::detail::brief(config[key])));
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
      any || stored.kind == StoredKind::plain, ErrorCode::unsupported, kStoredWhere,
      "expected quantised matrices, since quantization_config says {}, but got none ({}); remove quantization_config "
      "if the weights are plain",
      to_string(stored.kind), reader.path().string());
  if (!any) return {};
  for (const auto& info : reader.tensors())
    if (!parts.contains(info.name)) plain.push_back(io::detail::tensor_of(io::detail::unowned(reader), info));
  return io::detail::view_of_tensors(reader, std::move(plain));
}

}  // namespace steer::model::detail
