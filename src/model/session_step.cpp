// How a step runs: what it appends, which logits it needs, its chunks, and taking it back when it fails.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

#include <algorithm>

#include "model/session_impl.hpp"

namespace steer {

using model::detail::KvCache;
using model::detail::LogitRows;
using model::detail::SequenceCache;

Session::Impl::Plan Session::Impl::plan(std::span<const StepInput> inputs, const LayerRange& layers) {
  constexpr auto kWhere = "Session::step";
  const ModelConfig& config = model.config();
  Plan plan;
  plan.first = layers.first;
  plan.last = layers.last < 0 ? config.n_layers : layers.last;
  require(layers.first >= 0 && layers.last >= -1 && plan.first < plan.last && plan.last <= config.n_layers,
          ErrorCode::argument, kWhere, "expected layers within [0, {}) but got [{}, {}){}", config.n_layers,
          layers.first, layers.last,
          layers.first == config.n_layers ? "; the last layer's residual becomes logits by Model::unembed" : "");
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
    require(input.prompt_left >= 0 && (input.prompt_left == 0 || input.phase == Phase::prompt), ErrorCode::argument,
            kWhere, "expected prompt_left of 0 or more, and 0 for generated tokens, but got {} for sequence {}",
            input.prompt_left, input.sequence);
    const auto count = static_cast<std::int64_t>(input.ids.size());
    require(input.logits >= 0 && input.logits <= count, ErrorCode::argument, kWhere,
            "expected logits of 0 to {} of an input's tokens but got {} for sequence {}", count, input.logits,
            input.sequence);
    require(count <= config.context - g.end, ErrorCode::shape, kWhere,
            "expected sequence {} to stay within the context of {} tokens but got {} + {}; shorten the prompt or ask "
            "for fewer "
            "tokens",
            input.sequence, config.context, g.end, count);
    const auto begin = static_cast<std::int64_t>(plan.ids.size());
    plan.ids.insert(plan.ids.end(), input.ids.begin(), input.ids.end());
    plan.runs.push_back({input.sequence, begin, begin + count, g.end, 0, input.phase});
    plan.states.push_back(&state);
    plan.asked.push_back(input.logits);
    plan.complete.push_back(input.prompt_left == 0);
    g.end += count;
    if (g.end > g.length) {  // tokens new to the sequence, not only to these layers
      require(input.phase == Phase::generated || !g.generated, ErrorCode::argument, kWhere,
              "expected generated tokens after generated ones in sequence {} but got prompt tokens; open or fork a "
              "sequence for a "
              "new prompt",
              input.sequence);
      g.length = g.end;
      if (input.phase == Phase::prompt)
        g.prompt_length = g.end + input.prompt_left;
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
  for (std::size_t i = 0; i < plan.runs.size(); ++i) {
    std::vector<std::int64_t>& known = plan.states[i]->ids;
    const TokenRun& run = plan.runs[i];
    for (std::int64_t t = run.begin + static_cast<std::int64_t>(known.size()) - run.position; t < run.end; ++t)
      known.push_back(plan.ids[static_cast<std::size_t>(t)]);
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

void Session::Impl::want(Plan& plan, Logits logits, std::span<const std::int64_t> positions) const {
  if (plan.last < model.config().n_layers) return;
  std::map<std::int64_t, Wanted> wanted;
  const auto add = [&](std::int64_t token) { wanted.try_emplace(token, Wanted{token, /*returned=*/true}); };
  if (logits == Logits::all)
    for (std::int64_t token = 0; token < static_cast<std::int64_t>(plan.ids.size()); ++token) add(token);
  if (logits == Logits::last)
    for (std::size_t i = 0; i < plan.runs.size(); ++i)
      for (std::int64_t token = std::max(plan.runs[i].begin, plan.runs[i].end - plan.asked[i]);
           token < plan.runs[i].end; ++token)
        add(token);
  for (std::int64_t token : positions) add(token);
  for (std::size_t i = 0; i < plan.runs.size(); ++i) {
    SequenceCache* const state = plan.states[i];
    if (!state->program || !state->program->needs_logits()) continue;
    const bool final = std::find(plan.states.begin() + static_cast<std::ptrdiff_t>(i) + 1, plan.states.end(), state) ==
                       plan.states.end();
    if (!final || !plan.complete[i]) continue;
    Wanted& w = wanted.try_emplace(plan.runs[i].end - 1, Wanted{plan.runs[i].end - 1, false}).first->second;
    w.observer = state;
    w.sequence = plan.runs[i].sequence;
  }
  for (const auto& [token, entry] : wanted) plan.wanted.push_back(entry);
}

at::Tensor Session::Impl::run_chunks(const Plan& plan, const LayerRange& layers, std::int64_t chunk) {
  const auto tokens = static_cast<std::int64_t>(plan.ids.size());
  std::vector<at::Tensor> parts;
  std::vector<std::int64_t> returned;  // rows of `parts` together
  std::size_t run = 0, wanted = 0;
  std::int64_t computed = 0;
  for (std::int64_t begin = 0; begin < tokens; begin += chunk) {
    const std::int64_t end = std::min(tokens, begin + chunk);
    std::vector<TokenRun> runs;
    std::vector<SequenceCache*> states;
    for (; run < plan.runs.size() && plan.runs[run].begin < end; ++run) {
      TokenRun piece = plan.runs[run];
      const std::int64_t skipped = std::max<std::int64_t>(begin - piece.begin, 0);
      const bool whole = piece.end <= end;
      piece.position += skipped;
      piece.begin = piece.begin + skipped - begin;
      piece.end = std::min(piece.end, end) - begin;
      runs.push_back(piece);
      states.push_back(plan.states[run]);
      if (!whole) break;
    }
    const std::size_t first_wanted = wanted;
    LogitRows rows;
    for (; wanted < plan.wanted.size() && plan.wanted[wanted].token < end; ++wanted) {
      rows.rows.push_back(plan.wanted[wanted].token - begin);
      if (plan.wanted[wanted].returned) returned.push_back(computed);
      ++computed;
    }
    rows.all = static_cast<std::int64_t>(rows.rows.size()) == end - begin;
    const BatchView batch{
        std::span(plan.ids).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)), runs};
    const at::Tensor residual =
        layers.residual.defined() ? layers.residual.narrow(0, begin, end - begin) : at::Tensor();
    for (std::size_t i = 0; i < runs.size(); ++i)
      if (states[i]->memory)
        states[i]->memory->see(runs[i].position,
                               batch.ids.subspan(static_cast<std::size_t>(runs[i].begin),
                                                 static_cast<std::size_t>(runs[i].end - runs[i].begin)));
    group(runs, states);
    const at::Tensor out = forward.run(batch, states, plan.first, plan.last, residual, rows, replay(batch));
    if (out.defined()) parts.push_back(out);
    for (std::size_t i = 0; i < runs.size(); ++i)
      for (std::int64_t layer = plan.first; layer < plan.last; ++layer)
        states[i]->layers[static_cast<std::size_t>(layer)].filled = runs[i].position + runs[i].end - runs[i].begin;
    for (std::size_t w = first_wanted; w < wanted; ++w)
      if (const Wanted& entry = plan.wanted[w]; entry.observer)
        entry.observer->memory->observe(entry.sequence, entry.observer->length,
                                        out[static_cast<std::int64_t>(w - first_wanted)]);
  }
  if (returned.empty()) return {};
  at::Tensor all = parts.size() == 1 ? parts[0] : at::cat(parts);
  if (static_cast<std::int64_t>(returned.size()) == computed) return all;
  return all.index_select(0, at::tensor(returned).to(all.device()));
}

at::Tensor Session::Impl::step(std::span<const StepInput> inputs, Logits logits, const LayerRange& layers,
                               std::int64_t chunk, std::span<const std::int64_t> positions) {
  Plan work = plan(inputs, layers);
  want(work, logits, positions);
  hooks->begin_step();
  const auto end = [&](void*) {
    hooks->end_step();
    groups.clear();
  };
  const std::unique_ptr<void, decltype(end)> ending(this, end);
  try {
    at::Tensor out = run_chunks(work, layers, chunk);
    for (const auto& before : work.before)
      for (auto& layer : before.state->layers) KvCache::settle(layer);
    return out;
  } catch (...) {
    for (const auto& before : work.before) {
      before.state->length = before.length;
      before.state->prompt_length = before.prompt_length;
      before.state->generated = before.generated;
      before.state->ids.resize(static_cast<std::size_t>(before.length));
      if (before.state->memory) before.state->memory->truncate(before.length);
      for (std::size_t layer = 0; layer < before.filled.size(); ++layer)
        KvCache::truncate(before.state->layers[layer], before.filled[layer]);
    }
    throw;
  }
}

}  // namespace steer
