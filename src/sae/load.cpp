// Finds the files of an SAE, decides by their keys and configuration which layout they are of, and checks the result.
#include <ATen/TensorOperators.h>
#include <fmt/ranges.h>

#include <array>
#include <charconv>
#include <system_error>
#include <vector>

#include "core/ascii.hpp"
#include "core/format_text.hpp"
#include "io/strict_json.hpp"
#include "io/unwrap.hpp"
#include "sae/impl.hpp"
#include "sae/layouts.hpp"
#include "sae/simple_yaml.hpp"

namespace steer {
namespace sae::detail {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Names the publishers give to the tensors of one SAE, and to the configuration beside them.
constexpr std::array kWeightNames = {
    "sae_weights.safetensors",       "sae.safetensors",  "params.safetensors", "params.npz", "ae.pt",
    "checkpoints/final.safetensors", "final.safetensors"};
constexpr std::array kConfigNames = {"cfg.json", "hyperparams.json", "config.json"};

bool is_tensor_file(const fs::path& path) {
  const auto ext = path.extension();
  return ext == ".safetensors" || ext == ".npz" || ext == ".pt" || ext == ".pth";
}

fs::path find_weights(const fs::path& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  require(fs::exists(status), ErrorCode::io, kLoad, "expected a file or folder but found nothing at {}", path.string());
  if (!fs::is_directory(status)) return path;
  for (const auto* name : kWeightNames)
    if (fs::exists(path / name)) return path / name;
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(path, error))
    if (is_tensor_file(entry.path())) found.push_back(entry.path().filename().string());
  std::sort(found.begin(), found.end());
  require(!found.empty(), ErrorCode::io, kLoad, "expected a folder with one of {} but {} has no tensor file",
          fmt::join(kWeightNames, ", "), path.string());
  require(!fs::exists(path / "W_enc_0.safetensors"), ErrorCode::unsupported, kLoad,
          "expected one SAE but got a cross-layer transcoder ({}); load it with CrossLayerTranscoder::load",
          path.string());
  require(found.size() == 1, ErrorCode::argument, kLoad,
          "expected one SAE but {} holds {} of them; name the file, such as {}", path.string(), found.size(),
          (path / found.front()).string());
  return path / found.front();
}

/// Settings as training scripts leave them: those of the set before those of the run.
void find_yaml(SaeFiles& files, const fs::path& folder) {
  for (const auto* name : {"wanb-config.yaml", "wandb-config.yaml", "config.yaml"}) {
    if (!fs::exists(folder / name)) continue;
    auto settings = read_simple_yaml(folder / name, kLoad);
    for (auto& value : settings)  // wandb writes {desc, value}
      if (value.is_object() && value.contains("value")) value = json(value["value"]);
    if (files.config.is_null()) files.config = json::object();
    files.config.update(settings);
    files.config_path = folder / name;
  }
}

/// The configuration: the file's own metadata (what Sae::save puts into a single file), else what lies beside it.
void find_config(SaeFiles& files) {
  const auto& metadata = files.tensors->metadata();
  if (const auto cfg = metadata.find("cfg"); files.tensors->format() == "safetensors" && cfg != metadata.end()) {
    files.config_path = files.path;
    files.config = io::detail::parse_json(cfg->get_ref<const std::string&>(), kLoad,
                                          "the metadata \"cfg\" of " + files.path.string());
    return;
  }
  auto folder = files.path.parent_path();
  if (folder.filename() == "checkpoints") folder = folder.parent_path();
  const auto own = files.path.stem().string() + "_cfg.json";
  for (const std::string& name :
       {own, std::string(kConfigNames[0]), std::string(kConfigNames[1]), std::string(kConfigNames[2])}) {
    const auto path = folder / name;
    if (!fs::exists(path)) continue;
    auto config = io::detail::read_json(path, kLoad);
    require(config.is_object(), ErrorCode::format, kLoad, "expected a JSON object in {} but got {}", path.string(),
            config.type_name());
    if (config.contains("model_type") || config.contains("architectures")) continue;  // of a language model
    files.config = std::move(config);
    files.config_path = path;
    return;
  }
  find_yaml(files, folder);
}

}  // namespace

bool SaeFiles::has_all(std::initializer_list<std::string_view> names) const {
  for (const auto name : names)
    if (!has(name)) return false;
  return true;
}

at::Tensor SaeFiles::read_any(std::initializer_list<std::string_view> names) const {
  for (const auto name : names)
    if (has(name)) return read(name);
  fail(ErrorCode::format, kLoad, "expected a tensor {} but {} has none", fmt::join(names, " or "), path.string());
}

double SaeFiles::scalar(std::string_view name) const {
  const auto t = read(name);
  require(t.numel() == 1, ErrorCode::shape, kLoad, "expected {} of one element but got [{}] ({})", name,
          fmt::join(t.sizes(), ", "), path.string());
  return t.to(at::kDouble).item<double>();
}

void SaeFiles::throw_type(std::string_view key, const json& value) const {
  fail(ErrorCode::config, kLoad, "key \"{}\" has the unexpected value {} ({})", key, io::detail::brief(value),
       config_path.string());
}

std::optional<HookPoint> hook_of(std::string_view name) {
  if (name.empty()) return {};
  try {
    return HookPoint::parse(name);
  } catch (const Error&) {
    return {};  // a place that steer has no site for, such as hook_mlp_in: the SAE is usable all the same
  }
}

HookPoint residual_after(std::int64_t layer) { return {Site::resid_post, layer}; }

std::optional<std::int64_t> number_in_path(const fs::path& path, std::string_view prefix) {
  std::optional<std::int64_t> result;
  for (const auto& component : path) {
    const auto text = component.string();
    for (auto at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at + 1)) {
      std::int64_t value;
      const auto* begin = text.data() + at + prefix.size();
      if (std::from_chars(begin, text.data() + text.size(), value).ec == std::errc()) result = value;
    }
  }
  return result;
}

void fold_expected_average(LoadedSae& sae, double s) {
  require(s > 0 && std::isfinite(s), ErrorCode::config, kLoad, "expected a positive norm scaling factor but got {}", s);
  auto& w = sae.weights;
  if (sae.config.activation == SaeActivation::matching_pursuit) {
    sae.config.residual_threshold /= s;  // encoder and decoder are one matrix: the two factors cancel
  } else {
    w.W_enc = w.W_enc.to(at::kFloat) * s;
    w.W_dec = w.W_dec.to(at::kFloat) / s;
  }
  w.b_dec = w.b_dec.to(at::kFloat) / s;
}

void fold_decoder_norms(LoadedSae& sae) {
  auto& w = sae.weights;
  const auto norm = w.W_dec.to(at::kFloat).norm(2, {1}).clamp_min(1e-8);
  w.W_dec = w.W_dec.to(at::kFloat) / norm.unsqueeze(1);
  w.W_enc = w.W_enc.to(at::kFloat) * norm;
  if (w.b_enc.defined()) w.b_enc = w.b_enc.to(at::kFloat) * norm;
}

void refuse_other_dictionaries(const SaeFiles& files) {
  const auto refuse = [&](std::string_view key, std::string_view value, const fs::path& where) {
    fail(ErrorCode::unsupported, kLoad,
         "expected an SAE or a transcoder but {} = {} says otherwise ({}); load cross-layer transcoders with "
         "CrossLayerTranscoder::load and temporal SAEs with TemporalSae::load; crosscoders and dictionaries that "
         "replace "
         "attention are not supported",
         key, value, where.string());
  };
  constexpr std::array kRefused = {"crosscoder", "clt", "cross_layer_transcoder", "lorsa", "molt", "temporal", "lca"};
  const auto check = [&](const json& object, std::string_view prefix, const char* key) {
    if (!object.is_object() || !object.contains(key) || !object[key].is_string()) return;
    const std::string value = ascii_lower(object[key].get_ref<const std::string&>());
    for (const std::string_view kind : kRefused)
      if (value == kind || (kind.size() > 4 && value.find(kind) != std::string::npos) ||
          value.starts_with(std::string(kind) + "_"))
        refuse(format_text("key \"{}{}\"", prefix, key), object[key].get<std::string>(), files.config_path);
  };
  for (const auto* key : {"sae_type", "architecture", "type", "dict_class"}) check(files.config, "", key);
  if (files.config.is_object() && files.config.contains("trainer"))
    check(files.config["trainer"], "trainer.", "dict_class");
  for (const auto& info : files.tensors->tensors()) {
    const std::string_view name = info.name;
    const bool matrix = name == "W_enc" || name == "W_dec" || name == "w_enc" || name == "w_dec" || name == "W_E" ||
                        name == "W_D" || name == "encoder.weight" || name == "decoder.weight";
    if (matrix && info.shape.size() == 3)
      refuse(format_text("tensor \"{}\" of shape", name), format_text("[{}]", fmt::join(info.shape, ", ")), files.path);
    // A file for each layer of a cross-layer transcoder names the layer in its keys: W_enc_5, b_enc_5.
    if ((name.starts_with("W_enc_") || name.starts_with("W_dec_") || name.starts_with("W_E.") ||
         name.starts_with("W_D.")) &&
        name.find_first_not_of("0123456789", 6) == std::string_view::npos)
      refuse("tensor", format_text("\"{}\"", name), files.path);
    if (name.starts_with("attn_layers.") || name == "W_Q" || name.starts_with("W_O."))
      refuse("tensor", format_text("\"{}\"", name), files.path);
  }
}

}  // namespace sae::detail

Sae Sae::load(const std::filesystem::path& path, const SaeLoadOptions& options) {
  using namespace sae::detail;
  SaeFiles files;
  files.path = find_weights(path);
  files.tensors = io::detail::without_wrappers(open_tensors(files.path));
  files.options = options;
  find_config(files);
  refuse_other_dictionaries(files);
  // Layouts that a configuration names come before those known by their keys alone.
  constexpr SaeLayout layouts[] = {
      load_dictionary_learning, load_openmoss,    load_saelens,  load_hook_z,     load_sparsify,
      load_circuit_tracer,      load_gemma_scope, load_goodfire, load_qwen_scope, load_plain_linear};
  for (const auto layout : layouts) {
    auto loaded = layout(files);
    if (!loaded) continue;
    apply_trained_stream(files, *loaded);
    try {
      const bool files_say_all = !options.norm_scaling_factor && !options.k && !options.saelens_llama_scope;
      std::error_code nowhere;  // a folder that is gone: an empty path, no reason not to load
      auto sae = from_weights(std::move(loaded->config), std::move(loaded->weights),
                              files_say_all ? std::filesystem::absolute(path, nowhere) : std::filesystem::path());
      return sae.to(options.device);
    } catch (const Error& e) {
      // The same complaint, with the file's name.
      const std::string_view text = e.what();
      const auto body = text.find("] ");
      throw Error(e.code(),
                  format_text("[steer::{}] {} ({})", kLoad, text.substr(body == std::string_view::npos ? 0 : body + 2),
                              files.path.string()));
    }
  }
  std::vector<std::string> keys;
  for (const auto& info : files.tensors->tensors()) {
    if (keys.size() == 8) {
      keys.push_back("...");
      break;
    }
    keys.push_back(format_text("{} [{}]", info.name, fmt::join(info.shape, ", ")));
  }
  fail(ErrorCode::unsupported, kLoad, "expected an SAE of a known layout but {} holds {}{}", files.path.string(),
       fmt::join(keys, ", "),
       files.config.is_null() ? " and has no configuration beside it"
                              : format_text(" (configuration {})", files.config_path.string()));
}

}  // namespace steer
