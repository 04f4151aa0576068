// Runs one text through our kernels and through libtorch's operators, and prints the first hook point where they
// differ: the proof of a new model family or kernel, and the way to what is wrong with it.
//
//   compare_backends examples/data/demo "In the land of Pelia"

#include <CLI/CLI.hpp>
#include <steer/core/error.hpp>
#include <steer/model/compare.hpp>

int main(int argc, char** argv) {
  CLI::App app("The first point where two ways to compute a model differ");
  std::string path = "examples/data/demo",
              text = "In the land of Pelia, what is the feast? It is the last in the list.";
  steer::CompareOptions options;
  steer::CacheFormat cache = steer::CacheFormat::f32;
  app.add_option("model", path, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("text", text, "what it reads")->capture_default_str();
  app.add_option("--tolerance", options.tolerance, "share of a point's largest value")->capture_default_str();
  app.add_flag("--layers-alone", options.layers_alone, "give each layer the reference's input");
  app.add_option_function<std::string>(
      "--cache",
      [&](const std::string& name) { cache = steer::parse_enum<steer::CacheFormat>(name, "compare_backends"); },
      "keys and values of the tested session: f32, bf16 or f16; the reference has f32");
  CLI11_PARSE(app, argc, argv);
  try {
    const auto model = steer::Model::load(path);
    steer::Session tested(model, {.cache = cache}), reference(model, {.backend = steer::BackendKind::aten});
    const auto result = steer::compare_backends(tested, reference, model.tokenizer().encode(text), options);
    fmt::print("{}", result.text());
    return result.first_difference() ? 1 : 0;
  } catch (const std::exception& error) {
    return fmt::print(stderr, "{}\n", error.what()), 2;
  }
}
