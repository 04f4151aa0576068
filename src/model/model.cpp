#include <steer/model/model.hpp>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <charconv>

#include <steer/core/error.hpp>
#include <steer/io/tensor_reader.hpp>

#include "model/assemble.hpp"
#include "model/backend.hpp"
#include "model/kv_cache.hpp"
#include "model/model_files.hpp"
#include "model/split.hpp"
#include "model/transformer.hpp"

namespace steer {
namespace {

void set_chat(model::detail::Transformer& model, const LoadOptions& options) {
  if (!model.tokenizer) return;
  try {
    model.chat =
        options.chat_format ? ChatTemplate(*options.chat_format, *model.tokenizer) : ChatTemplate(*model.tokenizer);
  } catch (const Error& error) {
    model.chat_problem = error.what();  // the model itself is fine: only chat() refuses
  }
}

}  // namespace

at::Device parse_device(std::string_view name) {
  int index = 0;
  const char* const end = name.data() + name.size();
  const bool cuda = name.starts_with("cuda:") && name.size() > 5 && name.size() < 9;
  const bool valid = cuda && std::from_chars(name.data() + 5, end, index).ptr == end && index >= 0;
  require(name == "cpu" || (valid && index < 128), ErrorCode::argument, "parse_device",
          "expected the device cpu or cuda:N but got \"{}\"; correct it", name);
  return valid ? at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index)) : at::Device(at::kCPU);
}

Model Model::load(const std::filesystem::path& path, const LoadOptions& options) {
  auto files = model::detail::open_model_files(path, options);
  auto model = model::detail::build(files.config, *files.tensors, options);
  model->tokenizer = std::move(files.tokenizer);
  set_chat(*model, options);
  return Model(std::move(model));
}

Model Model::from_tensors(const ModelConfig& config, const TensorReader& tensors, const LoadOptions& options,
                          std::optional<Tokenizer> tokenizer) {
  model::detail::check_options(options);
  auto model = model::detail::build(model::detail::limited(config, options), tensors, options);
  if (auto warning = model::detail::tokenizer_warning(config, tokenizer))
    model->warnings.push_back(std::move(*warning));
  model->tokenizer = std::move(tokenizer);
  set_chat(*model, options);
  return Model(std::move(model));
}

const ModelConfig& Model::config() const { return impl_->config; }
bool Model::has_tokenizer() const { return impl_->tokenizer.has_value(); }

const Tokenizer& Model::tokenizer() const {
  require(has_tokenizer(), ErrorCode::config, "Model::tokenizer",
          "expected a model with a tokenizer but its files hold none; put tokenizer.json beside the weights");
  return *impl_->tokenizer;
}

const ChatTemplate& Model::chat() const {
  require(has_tokenizer(), ErrorCode::config, "Model::chat",
          "expected a model with a tokenizer but its files hold none; put tokenizer.json beside the weights");
  if (chat_) return *chat_;
  require(
      impl_->chat.has_value(), ErrorCode::unsupported, "Model::chat",
      "expected a chat template that steer can run but the model's files have another: {}; choose a format by hand, "
      "LoadOptions::chat_format or model.with_chat(ChatTemplate(ChatFormat::chatml, model.tokenizer())), or work with "
      "ids",
      impl_->chat_problem);
  return *impl_->chat;
}

Model Model::with_chat(ChatTemplate chat) const {
  Model out = *this;
  out.chat_ = std::make_shared<const ChatTemplate>(std::move(chat));
  return out;
}

std::vector<std::int64_t> Model::stop_ids() const {
  std::vector<std::int64_t> out = impl_->config.eos_ids;
  const auto add = [&](std::int64_t id) {
    if (std::find(out.begin(), out.end(), id) == out.end()) out.push_back(id);
  };
  if (chat_ || impl_->chat) {
    for (const std::int64_t id : chat().end_of_turn()) add(id);
  } else if (impl_->tokenizer) {
    if (const auto id = impl_->tokenizer->end_of_turn()) add(*id);
  }
  return out;
}

at::Device Model::device() const { return impl_->device; }
std::int64_t Model::processes() const { return impl_->split ? impl_->split->processes() : 1; }
std::int64_t Model::weight_bytes() const { return impl_->weight_bytes; }
const std::string& Model::hash() const { return impl_->hash; }
const std::vector<std::string>& Model::warnings() const { return impl_->warnings; }

at::Tensor Model::unembed(const at::Tensor& h) const {
  using namespace model::detail;
  constexpr auto where = "Model::unembed";
  require(h.defined() && at::isFloatingType(h.scalar_type()), ErrorCode::argument, where,
          "expected activations of a float dtype but got {}", h.defined() ? h.toString() : "none");
  require(h.dim() == 2 && h.size(1) == config().d_model, ErrorCode::shape, where,
          "expected activations of the residual stream [tokens, {}] but got [{}]", config().d_model,
          fmt::join(h.sizes(), ", "));
  const at::Tensor x = h.to(device(), at::kFloat).contiguous();
  KvCache nothing(config(), device(), CacheFormat::f32, 0);
  const auto run = [&](Backend&& backend) {
    backend.begin(x.size(0), 0);
    return backend.unembed(backend.norm(x, impl_->final_norm, /*with_gain=*/true), {});
  };
  const bool gradient = at::GradMode::is_enabled() && x.requires_grad();
  if (device().is_cpu() && !gradient) return run(CpuBackend(*impl_, nothing, /*batch_invariant=*/true));
  return run(AtenBackend(*impl_, nothing, /*batch_invariant=*/true));
}

at::Tensor Model::unembedding() const { return impl_->unembed.to_f32(); }
at::Tensor Model::final_norm_gain() const { return impl_->final_norm.gain; }

}  // namespace steer
