#include "model/lora.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>
#include <fmt/ranges.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>

#include "io/bytes.hpp"
#include "io/mapped_file.hpp"
#include "io/strict_json.hpp"
#include "io/view_reader.hpp"
#include "text/regex.hpp"

namespace steer::model::detail {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Settings that say nothing about the numbers, whatever their value.
constexpr std::string_view kHarmless[] = {"auto_mapping",
                                          "base_model_name_or_path",
                                          "bias",
                                          "corda_config",
                                          "eva_config",
                                          "exclude_modules",
                                          "fan_in_fan_out",
                                          "inference_mode",
                                          "layers_pattern",
                                          "layers_to_transform",
                                          "loftq_config",
                                          "lora_alpha",
                                          "lora_dropout",
                                          "megatron_config",
                                          "megatron_core",
                                          "modules_to_save",
                                          "peft_type",
                                          "peft_version",
                                          "qalora_group_size",
                                          "r",
                                          "rank_pattern",
                                          "alpha_pattern",
                                          "revision",
                                          "runtime_config",
                                          "target_modules",
                                          "task_type",
                                          "use_rslora",
                                          "init_lora_weights",
                                          "ensure_weight_tying"};

/// What adapter_config.json says.
class AdapterConfig {
 public:
  AdapterConfig(const fs::path& folder, std::string_view where) : path_(folder / "adapter_config.json"), where_(where) {
    config_ = io::detail::read_json(path_, where);
    require(config_.is_object(), ErrorCode::format, where_, "expected a JSON object but got {} ({})",
            config_.type_name(), path_.string());
    refuse_unless("peft_type", {"LORA"});
    // The others change the base's weights before training: their sum with an unchanged base is another model.
    if (config_.contains("init_lora_weights") && config_["init_lora_weights"].is_string())
      refuse_unless("init_lora_weights", {"gaussian", "eva", "orthogonal"});
    if (config_.contains("bias")) refuse_unless("bias", {"none", "all", "lora_only"});
    for (const auto& [key, value] : config_.items()) {
      const bool off = value.is_null() || value == false || (value.is_structured() && value.empty());
      if (off || std::find(std::begin(kHarmless), std::end(kHarmless), key) != std::end(kHarmless)) continue;
      fail(ErrorCode::unsupported, where_,
           "expected a plain low-rank adapter but {} = {} asks for more ({}); merge it into its base in Python", key,
           io::detail::brief(value), path_.string());
    }
    alphas_ = patterns("alpha_pattern");
    ranks_ = patterns("rank_pattern");
  }

  bool transposed() const { return flag("fan_in_fan_out"); }

  /// The rank that a module was trained with, and the factor of its B A.
  double rank(const std::string& module) const { return of(module, ranks_, number("r", 8)); }
  double scale(const std::string& module) const {
    const double alpha = of(module, alphas_, number("lora_alpha", 8)), r = rank(module);
    return alpha / (flag("use_rslora") ? std::sqrt(r) : r);
  }

 private:
  using Patterns = std::vector<std::pair<text::detail::Regex, double>>;

  /// The number of the first pattern that the module's name ends with, or else what all have.
  static double of(const std::string& module, const Patterns& patterns, double all) {
    for (const auto& [pattern, value] : patterns) {
      text::detail::Regex::Matcher matcher(pattern);
      text::detail::ByteRange match;
      if (matcher.find(module, 0, match)) return value;
    }
    return all;
  }
  Patterns patterns(const char* key) const {
    Patterns out;
    const auto all = object(key);
    for (const auto& [pattern, value] : all.items()) {
      require(value.is_number(), ErrorCode::config, where_, "expected numbers in {} but got {} ({})", key,
              io::detail::brief(value), path_.string());
      out.emplace_back(text::detail::Regex("^(?:.*\\.)?(?:" + pattern + ")$", path_.string()), value.get<double>());
    }
    return out;
  }
  void refuse_unless(const char* key, std::initializer_list<std::string_view> allowed) const {
    const auto found = config_.find(key);
    const auto value = found != config_.end() && found->is_string() ? found->get<std::string>() : std::string();
    require(std::find(allowed.begin(), allowed.end(), value) != allowed.end(), ErrorCode::unsupported, where_,
            "expected {} = {} but got {} ({}); merge the adapter into its base in Python", key,
            fmt::join(allowed, " or "), found == config_.end() ? "none" : io::detail::brief(*found), path_.string());
  }
  bool flag(const char* key) const {
    const auto found = config_.find(key);
    if (found == config_.end() || found->is_null()) return false;
    require(found->is_boolean(), ErrorCode::config, where_, "expected {} as true or false but got {} ({})", key,
            io::detail::brief(*found), path_.string());
    return found->get<bool>();
  }
  double number(const char* key, double missing) const {
    const auto found = config_.find(key);
    if (found == config_.end() || found->is_null()) return missing;
    require(found->is_number() && std::isfinite(found->get<double>()), ErrorCode::config, where_,
            "expected {} as a number but got {} ({})", key, io::detail::brief(*found), path_.string());
    return found->get<double>();
  }
  json object(const char* key) const {
    const auto found = config_.find(key);
    if (found == config_.end() || found->is_null()) return json::object();
    require(found->is_object(), ErrorCode::config, where_, "expected {} as an object but got {} ({})", key,
            io::detail::brief(*found), path_.string());
    return *found;
  }

  fs::path path_;
  std::string_view where_;
  json config_;
  Patterns alphas_, ranks_;
};

/// What the adapter does to one tensor of the base.
struct Change {
  std::string a, b;         ///< the adapter's tensors, [rank, in] and [out, rank]; or
  std::string whole;        ///< the one that takes its place
  double scale = 0;         ///< of B A
  bool transposed = false;  ///< (B A)^T is added
};

using Reader = std::shared_ptr<const TensorReader>;

/// A tensor of the base plus what the adapter adds to it.
io::detail::ViewTensor merged(const Reader& base, const Reader& adapter, const TensorInfo& info, const Change& change) {
  io::detail::ViewTensor tensor{info, {}, {}};
  if (info.storage != "F16" && info.storage != "BF16") {
    tensor.info.storage = "F32";
    tensor.info.dtype = at::kFloat;
    tensor.info.bytes = 4;
    for (const auto size : info.shape) tensor.info.bytes *= size;
  }
  tensor.rows = [base, adapter, name = info.name, type = tensor.info.dtype, change](std::int64_t begin,
                                                                                    std::int64_t end) {
    const auto a = adapter->read(change.a).to(at::kFloat), b = adapter->read(change.b).to(at::kFloat);
    const auto delta = change.transposed ? at::mm(a.narrow(1, begin, end - begin).t(), b.t())
                                         : at::mm(b.narrow(0, begin, end - begin), a);
    return (base->read_rows(name, begin, end).to(at::kFloat) + delta * change.scale).to(type);
  };
  return tensor;
}

fs::path weights_of(const fs::path& folder, std::string_view where) {
  for (const auto* name : {"adapter_model.safetensors", "adapter_model.bin"})
    if (std::error_code ignored; fs::exists(folder / name, ignored)) return folder / name;
  fail(ErrorCode::io, where,
       "expected adapter_model.safetensors or adapter_model.bin in {} but got neither; download it", folder.string());
}

/// "…q_proj.lora_A.weight" and "…q_proj.lora_A.default.weight": the module before `part`, if the name has it.
std::optional<std::string> module_before(std::string_view name, std::string_view part) {
  const auto at = name.find(part);
  if (at == std::string_view::npos) return {};
  return std::string(name.substr(0, at));
}

class Collector {
 public:
  Collector(const TensorReader& base, const TensorReader& adapter, const AdapterConfig& config, std::string_view where)
      : base_(base), adapter_(adapter), config_(config), where_(where) {}

  std::map<std::string, Change> collect() {
    for (const auto& info : adapter_.tensors()) take(info);
    for (auto& [tensor, change] : changes_)
      if (change.whole.empty()) check(tensor, change);
    require(!changes_.empty(), ErrorCode::format, where_, "expected an adapter's tensors but got none ({})",
            adapter_.path().string());
    return std::move(changes_);
  }

 private:
  void take(const TensorInfo& info) {
    std::string_view name = info.name;
    for (const std::string_view prefix : {"base_model.model.", "base_model."})
      if (name.starts_with(prefix)) {
        name.remove_prefix(prefix.size());
        break;
      }
    if (const auto module = module_before(name, ".lora_A.")) {
      changes_[*module + ".weight"].a = info.name;
      changes_[*module + ".weight"].transposed = config_.transposed();
    } else if (const auto module_b = module_before(name, ".lora_B.")) {
      require(!name.ends_with(".bias"), ErrorCode::unsupported, where_,
              "expected no biases of lora_B but got {} ({}); merge the adapter into its base in Python",
              io::detail::quote(info.name), adapter_.path().string());
      changes_[*module_b + ".weight"].b = info.name;
    } else if (const auto embedding = module_before(name, ".lora_embedding_A")) {
      changes_[*embedding + ".weight"].a = info.name;
      changes_[*embedding + ".weight"].transposed = true;
    } else if (const auto embedding_b = module_before(name, ".lora_embedding_B")) {
      changes_[*embedding_b + ".weight"].b = info.name;
    } else {
      take_whole(info, std::string(name));
    }
  }

  // modules_to_save, and biases where the configuration says that they were trained.
  void take_whole(const TensorInfo& info, std::string name) {
    for (const std::string_view part : {".modules_to_save.default", ".modules_to_save", ".base_layer"})
      if (const auto at = name.find(part); at != std::string::npos) name.erase(at, part.size());
    const auto* there = base_.find(name);
    require(there || name == "lm_head.weight", ErrorCode::format, where_,
            "expected tensors of the base but got {} ({}); the adapter was made for another base",
            io::detail::quote(info.name), adapter_.path().string());
    require(!there || there->shape == info.shape, ErrorCode::shape, where_,
            "expected {} of shape {}, as in the base, but got {} ({}); the adapter was made for another base",
            io::detail::quote(name), io::detail::shape_text(there->shape), io::detail::shape_text(info.shape),
            adapter_.path().string());
    changes_[name].whole = info.name;
  }

  void check(const std::string& tensor, Change& change) const {
    require(!change.a.empty() && !change.b.empty(), ErrorCode::format, where_,
            "expected lora_A and lora_B of {} but got one of them ({}); download the adapter again",
            io::detail::quote(tensor), adapter_.path().string());
    const auto* there = base_.find(tensor);
    require(there != nullptr, ErrorCode::format, where_,
            "expected the base to have {} but it does not ({}); the adapter was made for another base",
            io::detail::quote(tensor), base_.path().string());
    const auto& a = adapter_.info(change.a).shape;
    const auto& b = adapter_.info(change.b).shape;
    const bool matrices = a.size() == 2 && b.size() == 2 && a[0] == b[1] && a[0] > 0;
    const auto made_for = !matrices           ? std::vector<std::int64_t>{}
                          : change.transposed ? std::vector{a[1], b[0]}
                                              : std::vector{b[0], a[1]};
    require(matrices && there->shape == made_for, ErrorCode::shape, where_,
            "expected an adapter for {} of shape {}, as in the base, but got lora_A {} and lora_B {}, for {} ({}); it "
            "was made for another base",
            io::detail::quote(tensor), io::detail::shape_text(there->shape), io::detail::shape_text(a),
            io::detail::shape_text(b), io::detail::shape_text(made_for), adapter_.path().string());
    const auto module = tensor.substr(0, tensor.size() - std::string_view(".weight").size());
    const double rank = config_.rank(module);
    require(static_cast<double>(a[0]) == rank, ErrorCode::shape, where_,
            "expected {} of rank {}, as adapter_config.json says, but got {} ({}); take both files of one adapter",
            io::detail::quote(tensor), rank, a[0], adapter_.path().string());
    change.scale = config_.scale(module);
  }

  const TensorReader &base_, &adapter_;
  const AdapterConfig& config_;
  std::string_view where_;
  std::map<std::string, Change> changes_;
};

}  // namespace

bool is_adapter(const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / "adapter_config.json", ignored) && !fs::exists(folder / "config.json", ignored);
}

void refuse_adapter_alone(const fs::path& folder, std::string_view where) {
  const auto config = io::detail::read_json(folder / "adapter_config.json", where);
  const auto base = config.is_object() ? config.value("base_model_name_or_path", json()) : json();
  fail(ErrorCode::unsupported, where,
       "expected a model but got an adapter for the base {} ({}); load the base and give this folder as "
       "LoadOptions::adapter (--adapter in the programs)",
       base.is_string() ? io::detail::quote(base.get<std::string>()) : "it was trained on", folder.string());
}

std::shared_ptr<const TensorReader> merge_adapter(std::shared_ptr<const TensorReader> base, const fs::path& folder,
                                                  std::string_view where) {
  std::error_code ignored;
  require(fs::exists(folder / "adapter_config.json", ignored), ErrorCode::io, where,
          "expected the folder of an adapter, with adapter_config.json, but got none in {}; check the path",
          folder.string());
  require(base->format() != "gguf", ErrorCode::unsupported, where,
          "expected a base in the Hugging Face layout to merge an adapter into but got GGUF ({}); load the folder that "
          "the file was made from",
          base->path().string());
  const AdapterConfig config(folder, where);
  const auto adapter = open_tensors(weights_of(folder, where));
  auto changes = Collector(*base, *adapter, config, where).collect();
  std::vector<io::detail::ViewTensor> tensors;
  const auto take = [&](const std::string& name, const Change& change) {
    tensors.push_back(change.whole.empty() ? merged(base, adapter, base->info(name), change)
                                           : io::detail::tensor_of(adapter, adapter->info(change.whole), name));
  };
  for (const auto& info : base->tensors()) {
    if (const auto change = changes.extract(info.name))
      take(info.name, change.mapped());
    else
      tensors.push_back(io::detail::tensor_of(base, info));
  }
  // Whole tensors that the base does not have, as an untied head.
  for (const auto& [name, change] : changes) take(name, change);
  return io::detail::view_of_tensors(*base, std::move(tensors));
}

}  // namespace steer::model::detail
