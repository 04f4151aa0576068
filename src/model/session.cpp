#include <steer/model/session.hpp>

#include <algorithm>

#include "model/session_impl.hpp"

namespace steer {

using model::detail::SequenceCache;

Session::Session(Model model, const SessionOptions& options) {
  require(options.prompt_chunk >= 1, ErrorCode::argument, "Session", "expected a prompt_chunk of at least 1 but got {}",
          options.prompt_chunk);
  require(options.max_cache_bytes >= 0, ErrorCode::argument, "Session",
          "expected max_cache_bytes of at least 0 but got {}; 0 means no limit", options.max_cache_bytes);
  impl_ = std::make_unique<Impl>(std::move(model), options);
}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

const Model& Session::model() const { return impl_->model; }
const SessionOptions& Session::options() const { return impl_->options; }

HookHandle Session::hook(const HookPoint& point, HookFunction function, const HookOptions& options) {
  const Impl::Use use(*impl_, "Session::hook");
  return HookHandle(impl_->hooks->add(point, std::move(function), options));
}

bool Session::has_editing_hook() const {
  const auto own = std::ranges::count_if(impl_->wired, [](const auto& entry) { return entry.second.first; });
  return impl_->hooks->count_editing() > own;
}

std::vector<std::string> Session::prepare(const InterventionPtr& intervention) {
  const auto program = impl_->program_of(intervention);
  return program ? program->warnings() : std::vector<std::string>{};
}

SequenceId Session::open(const OpenOptions& options) {
  const Impl::Use use(*impl_, "Session::open");
  return impl_->open(options.steering);
}

SequenceId Session::fork(SequenceId source, const ForkOptions& options) {
  const Impl::Use use(*impl_, "Session::fork");
  auto program = options.steering ? impl_->program_of(*options.steering) : nullptr;
  const SequenceId sequence = impl_->cache.fork(source, options);
  SequenceCache& state = impl_->cache.at(sequence, "Session::fork");
  if (options.steering) {
    impl_->begin(state, *options.steering);
  } else {
    const SequenceCache& from = impl_->cache.at(source, "Session::fork");
    state.program = from.program;
    if (from.memory) {
      state.memory = from.memory->clone();
      state.memory->truncate(state.length);
    }
  }
  impl_->count_user(state.program.get(), 1);
  return sequence;
}

void Session::close(SequenceId sequence) {
  const Impl::Use use(*impl_, "Session::close");
  impl_->close(sequence);
}

SteeringAudit Session::audit(SequenceId sequence) const {
  const Impl::Use use(*impl_, "Session::audit");
  const SequenceCache& state = impl_->cache.at(sequence, "Session::audit");
  return state.memory ? state.memory->audit() : SteeringAudit{};
}

std::optional<std::string> Session::abort_reason(SequenceId sequence) const {
  const Impl::Use use(*impl_, "Session::abort_reason");
  const SequenceCache& state = impl_->cache.at(sequence, "Session::abort_reason");
  return state.memory ? state.memory->abort_reason() : std::nullopt;
}

bool Session::needs_logits(SequenceId sequence) const {
  const Impl::Use use(*impl_, "Session::needs_logits");
  const SequenceCache& state = impl_->cache.at(sequence, "Session::needs_logits");
  return state.program && state.program->needs_logits();
}

const std::vector<std::string>& Session::warnings() const { return impl_->warnings; }

std::vector<std::string> Session::warnings(SequenceId sequence) const {
  const Impl::Use use(*impl_, "Session::warnings");
  const SequenceCache& state = impl_->cache.at(sequence, "Session::warnings");
  return state.program ? state.program->warnings() : std::vector<std::string>{};
}

std::int64_t Session::length(SequenceId sequence) const {
  const Impl::Use use(*impl_, "Session::length");
  return impl_->cache.at(sequence, "Session::length").length;
}

std::int64_t Session::cache_bytes() const {
  const Impl::Use use(*impl_, "Session::cache_bytes");
  return impl_->cache.bytes();
}

std::int64_t Session::cache_bytes(SequenceId sequence, std::int64_t tokens) const {
  const Impl::Use use(*impl_, "Session::cache_bytes");
  return impl_->cache.bytes_for(impl_->cache.at(sequence, "Session::cache_bytes"), tokens);
}

at::Tensor Session::step(std::span<const StepInput> inputs, Logits logits, const LayerRange& layers) {
  const Impl::Use use(*impl_, "Session::step");
  require(logits != Logits::positions, ErrorCode::argument, "Session::step",
          "expected Logits none, last or all but got positions, which Session::forward takes");
  return impl_->step(inputs, logits, layers, impl_->options.prompt_chunk);
}

}  // namespace steer
