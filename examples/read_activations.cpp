// Reads a layer's activations, then edits them, and shows what the edit does to the next token.
//   read_activations MODEL_FOLDER_OR_GGUF "The Eiffel Tower is in"
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <steer/core/error.hpp>
#include <steer/model/session.hpp>

int main(int argc, char** argv) {
  if (argc != 3) return fmt::print(stderr, "usage: {} MODEL TEXT\n", argv[0]), 2;
  try {
    const auto model = steer::Model::load(argv[1]);
    for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
    const auto ids = model.tokenizer().encode(argv[2]);
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
