// A model that several processes compute together, each with a part of every layer, and steered as one. Every process
// runs this program; the first one prints.
//
//   torchrun --nproc-per-node 2 --no-python model_in_parts MODEL_FOLDER_OR_GGUF "What is the feast?" --device cuda
#include <ATen/TensorOperators.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <steer/core/error.hpp>
#include <steer/generate/generate.hpp>
#include <steer/model/session.hpp>
#include <steer/steering/steering.hpp>

int main(int argc, char** argv) {
  CLI::App app("Generates with a model that several processes compute together (started by torchrun or its kin)");
  std::string path = "examples/data/demo", text = "In the land of Pelia, what is the feast?", device = "cpu";
  app.add_option("MODEL", path, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("TEXT", text, "the user's message")->capture_default_str();
  app.add_option("--device", device, "cpu, or cuda: each process takes the card of its LOCAL_RANK")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const auto workers = steer::Workers::from_environment();
    steer::LoadOptions options;
    if (workers.count > 1) options.parallel = steer::connect(workers);
    const char* local = std::getenv("LOCAL_RANK");
    if (device == "cuda") options.device = steer::parse_device(std::string("cuda:") + (local ? local : "0"));
    const auto model = steer::Model::load(path, options);

    // A direction from the activations of two texts. Hooks and what is recorded are whole in each process.
    const auto point = steer::HookPoint{steer::Site::resid_post, model.config().n_layers / 2};
    steer::Session session(model);
    const auto mean_of = [&](const char* words) {
      return session.run_with_cache(model.tokenizer().encode(words), {point.name()})[point.name()].mean(0);
    };
    steer::Steering glad;
    glad.add(mean_of("What a wonderful, glorious feast!") - mean_of("There is a feast."), point, 1.0);

    const std::vector<steer::Message> chat{{steer::Role::user, text}};
    const auto before = steer::generate(model, chat, {.max_tokens = 32});
    const auto after = steer::generate(model, chat, {.max_tokens = 32, .steering = glad});
    if (workers.rank != 0) return 0;
    for (const auto& warning : model.warnings()) fmt::print(stderr, "note: {}\n", warning);
    fmt::print("{} processes, {:.1f} MiB of weights in this one\nbefore: {}\nafter: {}\n", model.processes(),
               static_cast<double>(model.weight_bytes()) / (1 << 20), before.text, after.text);
  } catch (const steer::Error& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
