// Reads a layer's activations, then edits them, and shows what the edit does to the next token.
//   read_activations examples/data/demo "What is the river of Pelia? The river of Pelia is"
#include <ATen/TensorOperators.h>

#include <CLI/CLI.hpp>
#include <steer/core/error.hpp>
#include <steer/model/session.hpp>

int main(int argc, char** argv) {
  CLI::App app("Reads a layer's activations, then edits them, and shows what that does to the next token");
  std::string path = "examples/data/demo", text = "What is the river of Pelia? The river of Pelia is";
  app.add_option("model", path, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("text", text, "what it reads")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const auto model = steer::Model::load(path);
    for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
    const auto ids = model.tokenizer().encode(text);
    const auto point = steer::HookPoint{steer::Site::resid_post, model.config().n_layers / 2};
    steer::Session session(model);

    // Read: every activation whose name matches, [tokens, width] each.
    const auto cache = session.run_with_cache(ids, {"blocks.*.hook_resid_post"});
    for (const auto& [recorded, value] : cache.all())
      fmt::print("{:<28} mean norm {:.2f}\n", recorded.name(), value.norm(2, -1).mean().item<float>());

    // Edit: add a direction at every token, prompt and generated alike, while the handle lives.
    const auto direction = cache[point.name()][-1] - cache[point.name()].mean(0);
    const auto next = [&](const at::Tensor& logits) {
      return model.tokenizer().decode(std::array{logits[-1].argmax().item<std::int64_t>()});
    };
    const auto off = session.hook(point, [&](steer::HookContext& at) { at.value.sub_(direction); });
    fmt::print("next token \"{}\", edited \"{}\"\n", next(cache.logits), next(session.forward(ids)));
  } catch (const steer::Error& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
