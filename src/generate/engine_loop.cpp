#include <steer/generate/engine_loop.hpp>

#include <mutex>
#include <thread>

#include <steer/core/error.hpp>

namespace steer {

struct EngineLoop::Impl {
  Impl(Model model, const EngineOptions& options) : engine(std::move(model), options), thread([this] { run(); }) {}

  void run() {
    for (;;) {
      const bool ending = engine.closed();
      try {
        if (engine.step()) continue;
      } catch (const std::exception& error) {  // no row's own fault: out of memory
        engine.cancel_all(error.what());
        continue;
      }
      if (ending) return;
      engine.wait(std::chrono::hours(1));
    }
  }

  void join() {
    require(thread.get_id() != std::this_thread::get_id(), ErrorCode::argument, "EngineLoop",
            "expected finish and stop from another thread but got a call from a callback; cancel rows instead");
    const std::lock_guard lock(joining);
    if (thread.joinable()) thread.join();
  }

  void stop() {
    engine.close();
    engine.cancel_all("the engine was stopped");
    join();
  }

  Engine engine;
  std::mutex joining;
  std::thread thread;
};

EngineLoop::EngineLoop(Model model, const EngineOptions& options) {
  require(model.processes() == 1, ErrorCode::unsupported, "EngineLoop",
          "expected a model in one process but {} compute it together (LoadOptions::parallel): rows that come at any "
          "time would come at another one in each; step an Engine, or call generate, in all of them",
          model.processes());
  impl_ = std::make_unique<Impl>(std::move(model), options);
}
EngineLoop::~EngineLoop() { impl_->stop(); }

RowId EngineLoop::submit(EngineRequest request) { return impl_->engine.submit(std::move(request)); }
bool EngineLoop::cancel(RowId row, std::string reason) { return impl_->engine.cancel(row, std::move(reason)); }
Engine::Load EngineLoop::load() const { return impl_->engine.load(); }
void EngineLoop::stop() { impl_->stop(); }

void EngineLoop::finish() {
  impl_->engine.close();
  impl_->join();
}

}  // namespace steer
