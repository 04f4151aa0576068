// What a model would say after each layer: the residual stream at the last token, sent through the final norm and the
// unembedding (the logit lens), and how far that is from what it says in the end.
//
//   logit_lens MODEL_FOLDER_OR_GGUF "In the land of Pelia, what is the"
#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>

#include <CLI/CLI.hpp>
#include <steer/core/error.hpp>
#include <steer/model/session.hpp>

int main(int argc, char** argv) {
  CLI::App app("What a model would say after each layer (the logit lens)");
  std::string path = "examples/data/demo", text = "In the land of Pelia, what is the";
  app.add_option("model", path, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("text", text, "what it reads")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const auto model = steer::Model::load(path);
    for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
    steer::Session session(model);
    const auto cache = session.run_with_cache(model.tokenizer().encode(text), {"blocks.*.hook_resid_post"});
    const auto last = at::log_softmax(cache.logits[-1], -1);  // what the model says
    for (const auto& [point, residual] : cache.all()) {
      const auto lens = at::log_softmax(model.unembed(residual), -1)[-1];  // [vocab]: what this layer would say
      const auto [value, id] = lens.topk(3);
      fmt::print("layer {:>2}  KL {:6.3f} nats ", point.layer, (last.exp() * (last - lens)).sum().item<double>());
      for (std::int64_t k = 0; k < 3; ++k)
        fmt::print("  \"{}\" {:.2f}", model.tokenizer().decode(std::array{id[k].item<std::int64_t>()}),
                   value[k].exp().item<double>());
      fmt::print("\n");
    }
  } catch (const steer::Error& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
