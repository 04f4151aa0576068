#include <steer/model/session.hpp>

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include <atomic>
#include <limits>

#include <steer/core/error.hpp>

#include "model/forward.hpp"
#include "model/hook_table.hpp"
#include "model/kv_cache.hpp"

namespace steer {
namespace {

/// Whether a glob pattern (`*` any text, `?` any character) matches all of `text`.
bool glob_match(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace

struct Session::Impl {
  Impl(Model m, const SessionOptions& o)
      : model(std::move(m)),
        options(o),
        hooks(std::make_shared<model::detail::HookTable>(model.config())),
        cache(model.config(), model.device(), options.cache, options.max_cache_bytes),
        forward(model.impl(), *hooks, cache, options) {}

  Model model;
  SessionOptions options;
  std::shared_ptr<model::detail::HookTable> hooks;
  model::detail::KvCache cache;
  model::detail::Forward forward;
  std::atomic_flag busy = ATOMIC_FLAG_INIT;

  /// Held by every call that reads or changes the session.
  class Use {
   public:
    Use(Impl& impl, const char* where) : impl_(impl) {
      require(
          !impl_.busy.test_and_set(std::memory_order_acquire), ErrorCode::argument, where,
          "expected one thread at a time but got a second call while one runs (from another thread or from one of the "
          "session's own hooks); give each thread a Session of its own, they share the model");
    }
    ~Use() { impl_.busy.clear(std::memory_order_release); }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    Impl& impl_;
  };

  /// What a step changes of a sequence, for taking it back.
  struct Before {
    model::detail::SequenceCache* state;
    std::int64_t length, prompt_length;
    bool generated;
    std::vector<std::int64_t> filled;
  };

  struct Plan {
    std::vector<std::int64_t> ids;
    std::vector<TokenRun> runs;
    std::vector<model::detail::SequenceCache*> states;  // of each run
    std::vector<Before> before;                         // of each sequence
    std::int64_t first, last;
  };

  Plan plan(std::span<const StepInput> inputs, const LayerRange& layers);
  at::Tensor step(std::span<const StepInput> inputs, Logits logits, const LayerRange& layers, std::int64_t chunk);
  at::Tensor run_chunks(const Plan& plan, Logits logits, const LayerRange& layers, std::int64_t chunk);
};

Session::Impl::Plan Session::Impl::plan(std::span<const StepInput> inputs, const LayerRange& layers) {
  constexpr auto kWhere = "Session::step";
  const ModelConfig& config = model.config();
  Plan plan;
  plan.first = layers.first;
  plan.last = layers.last < 0 ? config.n_layers : layers.last;
  require(layers.first >= 0 && layers.last >= -1 && plan.first < plan.last && plan.last <= config.n_layers,
          ErrorCode::argument, kWhere, "expected layers within [0, {}) but got [{}, {})", config.n_layers, layers.first,
          layers.last);
  require(!inputs.empty(), ErrorCode::argument, kWhere,
          "expected at least one input but got none; give the tokens to append");
  const auto first = static_cast<std::size_t>(plan.first), last = static_cast<std::size_t>(plan.last);
  struct Grown {
    std::int64_t end, length, prompt_length;
    bool generated;
  };
  std::map<SequenceId, Grown> grown;  // as they will be after the inputs so far
  for (const auto& input : inputs) {
    require(
        !input.ids.empty(), ErrorCode::argument, kWhere,
        "expected at least one token for sequence {} but got none; an empty prompt has no next token (start with BOS)",
        input.sequence);
    for (auto id : input.ids)
      require(id >= 0 && id < config.vocab_size, ErrorCode::argument, kWhere,
              "expected token ids in [0, {}) but got {}; encode the text with this model's tokenizer",
              config.vocab_size, id);
    auto& state = cache.at(input.sequence, kWhere);
    const auto [entry, is_new] = grown.try_emplace(
        input.sequence, Grown{state.layers[first].filled, state.length, state.prompt_length, state.generated});
    auto& g = entry->second;
    if (is_new) {
      for (std::size_t layer = first; layer < last; ++layer)
        require(state.layers[layer].filled == g.end, ErrorCode::argument, kWhere,
                "expected layers {} to {} of sequence {} to hold equally many tokens but layer {} holds {} and layer "
                "{} {}; fill "
                "the upper layers with a step over LayerRange{{.first = {}}} before going on",
                first, last - 1, input.sequence, first, g.end, layer, state.layers[layer].filled, layer);
      Before before{&state, state.length, state.prompt_length, state.generated, {}};
      for (const auto& layer : state.layers) before.filled.push_back(layer.filled);
      plan.before.push_back(std::move(before));
    }
    const auto count = static_cast<std::int64_t>(input.ids.size());
    require(count <= config.context - g.end, ErrorCode::shape, kWhere,
            "expected sequence {} to stay within the context of {} tokens but got {} + {}; shorten the prompt or ask "
            "for fewer "
            "tokens",
            input.sequence, config.context, g.end, count);
    const auto begin = static_cast<std::int64_t>(plan.ids.size());
    plan.ids.insert(plan.ids.end(), input.ids.begin(), input.ids.end());
    plan.runs.push_back({input.sequence, begin, begin + count, g.end, 0, input.phase});
    plan.states.push_back(&state);
    g.end += count;
    if (g.end > g.length) {  // tokens new to the sequence, not only to these layers
      require(input.phase == Phase::generated || !g.generated, ErrorCode::argument, kWhere,
              "expected generated tokens after generated ones in sequence {} but got prompt tokens; open or fork a "
              "sequence for a "
              "new prompt",
              input.sequence);
      g.length = g.end;
      if (input.phase == Phase::prompt)
        g.prompt_length = g.end;
      else
        g.generated = true;
    }
  }
  for (auto& run : plan.runs) run.prompt_length = grown.at(run.sequence).prompt_length;
  require(plan.first == 0 ? !layers.residual.defined() : layers.residual.defined(), ErrorCode::argument, kWhere,
          "expected a residual exactly when the layers start above 0 but got {} for first = {}",
          layers.residual.defined() ? "one" : "none", plan.first);
  if (layers.residual.defined()) {
    const auto& r = layers.residual;
    const auto tokens = static_cast<std::int64_t>(plan.ids.size());
    require(r.dim() == 2 && r.size(0) == tokens && r.size(1) == config.d_model, ErrorCode::shape, kWhere,
            "expected a residual of [{}, {}] but got [{}]; one row for each token", tokens, config.d_model,
            fmt::join(r.sizes(), ", "));
    require(r.scalar_type() == at::kFloat && r.device() == model.device(), ErrorCode::argument, kWhere,
            "expected a residual of f32 on {} but got {} on {}; move it there", model.device().str(),
            at::toString(r.scalar_type()), r.device().str());
  }
  for (const auto& before : plan.before) {
    const auto& g =
        grown.at(plan.runs[static_cast<std::size_t>(std::find(plan.states.begin(), plan.states.end(), before.state) -
                                                    plan.states.begin())]
                     .sequence);
    before.state->length = g.length;
    before.state->prompt_length = g.prompt_length;
    before.state->generated = g.generated;
  }
  return plan;
}

at::Tensor Session::Impl::run_chunks(const Plan& plan, Logits logits, const LayerRange& layers, std::int64_t chunk) {
  const auto tokens = static_cast<std::int64_t>(plan.ids.size());
  const bool ends = plan.last == model.config().n_layers;
  std::vector<at::Tensor> parts;
  std::size_t run = 0;
  for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
    const std::int64_t end = std::min(tokens, begin + chunk);
    std::vector<TokenRun> runs;
    std::vector<model::detail::SequenceCache*> states;
    model::detail::LogitRows rows{.all = ends && logits == Logits::all, .rows = {}};
    for (; run < plan.runs.size() && plan.runs[run].begin < end; ++run) {
      TokenRun piece = plan.runs[run];
      const std::int64_t skipped = std::max<std::int64_t>(begin - piece.begin, 0);
      const bool whole = piece.end <= end;
      piece.position += skipped;
      piece.begin = piece.begin + skipped - begin;
      piece.end = std::min(piece.end, end) - begin;
      runs.push_back(piece);
      states.push_back(plan.states[run]);
      if (whole && ends && logits == Logits::last) rows.rows.push_back(piece.end - 1);
      if (!whole) break;
    }
    const BatchView batch{
        std::span(plan.ids).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)), runs};
    const at::Tensor residual =
        layers.residual.defined() ? layers.residual.narrow(0, begin, end - begin) : at::Tensor();
    const at::Tensor out = forward.run(batch, states, plan.first, plan.last, residual, rows);
    if (out.defined()) parts.push_back(out);
    for (std::size_t i = 0; i < runs.size(); ++i)
      for (std::int64_t layer = plan.first; layer < plan.last; ++layer)
        states[i]->layers[static_cast<std::size_t>(layer)].filled = runs[i].position + runs[i].end - runs[i].begin;
  }
  if (parts.empty()) return {};
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

at::Tensor Session::Impl::step(std::span<const StepInput> inputs, Logits logits, const LayerRange& layers,
                               std::int64_t chunk) {
  const Plan work = plan(inputs, layers);
  hooks->begin_step();
  try {
    at::Tensor out = run_chunks(work, logits, layers, chunk);
    hooks->end_step();
    for (const auto& before : work.before)
      for (auto& layer : before.state->layers) model::detail::KvCache::settle(layer);
    return out;
  } catch (...) {
    hooks->end_step();
    for (const auto& before : work.before) {
      before.state->length = before.length;
      before.state->prompt_length = before.prompt_length;
      before.state->generated = before.generated;
      for (std::size_t layer = 0; layer < before.filled.size(); ++layer)
        model::detail::KvCache::truncate(before.state->layers[layer], before.filled[layer]);
    }
    throw;
  }
}

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

HookHandle Session::hook(std::string_view point, HookFunction function, const HookOptions& options) {
  return hook(HookPoint::parse(point), std::move(function), options);
}

HookHandle Session::hook(const HookPoint& point, HookFunction function, const HookOptions& options) {
  const Impl::Use use(*impl_, "Session::hook");
  return HookHandle(impl_->hooks->add(point, std::move(function), options));
}

SequenceId Session::open() {
  const Impl::Use use(*impl_, "Session::open");
  return impl_->cache.open();
}

SequenceId Session::fork(SequenceId source, const ForkOptions& options) {
  const Impl::Use use(*impl_, "Session::fork");
  return impl_->cache.fork(source, options);
}

void Session::close(SequenceId sequence) {
  const Impl::Use use(*impl_, "Session::close");
  impl_->cache.close(sequence);
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
  return impl_->step(inputs, logits, layers, impl_->options.prompt_chunk);
}

at::Tensor Session::forward(std::span<const std::int64_t> ids) {
  return run_with_cache(ids, std::span<const std::string>()).logits;
}

ActivationCache Session::run_with_cache(std::span<const std::int64_t> ids,
                                        std::initializer_list<std::string_view> patterns,
                                        std::int64_t stop_after_layer) {
  return run_with_cache(ids, std::vector<std::string>(patterns.begin(), patterns.end()), stop_after_layer);
}

ActivationCache Session::run_with_cache(std::span<const std::int64_t> ids, std::span<const std::string> patterns,
                                        std::int64_t stop_after_layer) {
  constexpr auto kWhere = "Session::run_with_cache";
  const Impl::Use use(*impl_, kWhere);
  const std::int64_t n_layers = model().config().n_layers;
  require(stop_after_layer >= -1 && stop_after_layer < n_layers, ErrorCode::argument, kWhere,
          "expected stop_after_layer in [0, {}) or -1 but got {}", n_layers, stop_after_layer);
  const std::int64_t last = stop_after_layer < 0 ? n_layers : stop_after_layer + 1;

  std::vector<HookPoint> reached = impl_->hooks->points();
  std::erase_if(reached,
                [&](const HookPoint& p) { return p.layer >= last || (p.site == Site::ln_final && last < n_layers); });
  std::map<std::string, std::vector<at::Tensor>, std::less<>> recorded;
  std::vector<std::shared_ptr<HookHandle::Registration>> recorders;
  bool whole = at::GradMode::is_enabled() && impl_->hooks->any_editing();  // a gradient does not cross chunks
  const auto remove_all = [&](void*) {
    for (const auto& recorder : recorders) impl_->hooks->remove(*recorder);
  };
  const std::unique_ptr<void, decltype(remove_all)> removal(&recorders, remove_all);
  for (const auto& pattern : patterns) {
    bool found = false;
    for (const auto& point : reached) {
      const std::string name = point.name();
      if (!glob_match(pattern, name)) continue;
      found = true;
      if (point.site == Site::attn_pattern) whole = true;
      const auto [entry, is_new] = recorded.try_emplace(name);
      if (!is_new) continue;
      auto* values = &entry->second;
      recorders.push_back(impl_->hooks->add(point, [values](HookContext& at) { values->push_back(at.value.clone()); },
                                            {.read_only = true, .order = std::numeric_limits<int>::max()}));
    }
    require(found, ErrorCode::argument, kWhere,
            "expected a pattern that matches a point of this model{} but got \"{}\"; names look like "
            "blocks.0.hook_resid_post",
            last < n_layers ? fmt::format(" up to layer {}", stop_after_layer) : std::string(), pattern);
  }

  const SequenceId sequence = impl_->cache.open();
  const auto close = [&](void*) { impl_->cache.close(sequence); };
  const std::unique_ptr<void, decltype(close)> closing(&recorders, close);
  const StepInput input{sequence, ids, Phase::prompt};
  ActivationCache cache;
  cache.logits = impl_->step({&input, 1}, Logits::all, {.last = last},
                             whole ? std::numeric_limits<std::int32_t>::max() : impl_->options.prompt_chunk);
  for (auto& [name, values] : recorded) cache.values_.emplace(name, values.size() == 1 ? values[0] : at::cat(values));
  return cache;
}

const at::Tensor& ActivationCache::operator[](std::string_view name) const {
  if (const auto found = values_.find(name); found != values_.end()) return found->second;
  std::string names;
  for (const auto& [recorded, value] : values_) names += (names.empty() ? "" : ", ") + recorded;
  fail(ErrorCode::argument, "ActivationCache",
       "expected one of the recorded activations ({}) but got \"{}\"; add it to the patterns",
       names.empty() ? "none" : names, name);
}

bool ActivationCache::contains(std::string_view name) const { return values_.find(name) != values_.end(); }

}  // namespace steer
