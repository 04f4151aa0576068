// Rows that come and go on a live engine: submitted while others generate, steered each in its own way, sampled,
// cancelled, audited.
//
//   live_engine [MODEL SAE]

#include <CLI/CLI.hpp>
#include <map>
#include <steer/core/error.hpp>
#include <steer/generate/engine.hpp>
#include <steer/sae/sae.hpp>

int main(int argc, char** argv) {
  CLI::App app("Rows that come and go on a live engine: steered, sampled, cancelled, audited");
  std::string path = "examples/data/demo", sae_path = "examples/data/demo/sae.safetensors";
  app.add_option("MODEL", path, "a Hugging Face folder or a GGUF file")->capture_default_str();
  app.add_option("SAE", sae_path, "a file or folder of any layout in docs/sae-formats.md")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    const auto model = steer::Model::load(path);
    const auto sae = steer::Sae::load(sae_path);
    const auto prompt = [&](const char* text) { return model.chat().render({{steer::Role::user, text}}).ids; };

    steer::Engine engine(model, {.max_rows = 8, .max_cache_bytes = 64 << 20, .step_tokens = 64});
    std::map<steer::RowId, std::string> names;
    const auto submit = [&](std::string name, steer::EngineRequest request) {
      const auto samples = request.samples;
      const steer::RowId first = engine.submit(std::move(request));
      for (std::int64_t i = 0; i < samples; ++i)
        names[first + i] = samples == 1 ? name : fmt::format("{} {}", name, i + 1);
      return first;
    };

    const auto ids = prompt("In the land of Pelia, what is the feast?");
    submit("plain", {.ids = ids, .max_tokens = 24});
    steer::Steering imaginative;
    imaginative.nudge(sae, 330, +6.0);
    submit("steered", {.ids = ids, .steering = imaginative, .max_tokens = 24});
    const auto endless = submit("cancelled", {.ids = ids, .max_tokens = 100});

    bool left = true;
    for (int step = 1; left; ++step) {
      left = engine.step([&](const steer::EngineEvent& e) {
        if (!e.result) return;
        for (const auto& warning : e.result->warnings) fmt::print(stderr, "mind: {}\n", warning);
        fmt::print("step {:3}  {:10} {:10} {:2} tokens, {:2} edited: {}\n", step, names[e.row],
                   steer::to_string(e.result->finish), e.result->ids.size(), e.result->audit.edited(), e.result->text);
      });
      if (step == 4) {  // two that join later: their prompt is there already
        submit("sample", {.ids = ids, .sampling = {.temperature = 1}, .max_tokens = 24, .seed = 7, .samples = 2});
        left = true;
      }
      if (step == 8) engine.cancel(endless);
    }
    const auto load = engine.load();
    fmt::print("{} prompt tokens computed, {} shared, {} rows set back, {} bytes of cache kept\n", load.prompt_tokens,
               load.shared_tokens, load.set_back, load.cache_bytes);
  } catch (const steer::Error& error) {
    return fmt::print(stderr, "{}\n", error.what()), 1;
  }
}
