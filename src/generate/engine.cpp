#include <steer/generate/engine.hpp>

#include <ATen/Functions.h>

#include <algorithm>
#include <limits>
#include <list>
#include <set>

#include <steer/core/error.hpp>
#include <steer/core/random.hpp>

#include "generate/prefix_store.hpp"
#include "generate/row_rules.hpp"
#include "generate/sampler.hpp"
#include "generate/stop_matcher.hpp"
#include "model/rope.hpp"

namespace steer {
namespace {

constexpr auto kWhere = "Engine";

/// What the samples of one request have in common.
struct Order {
  EngineRequest request;
  std::set<std::int64_t> stop_ids;
  Steering touched;    ///< the steering, if it acts on or remembers prompt tokens: else the prompt can be anyone's
  bool shares = true;  ///< what is computed of the prompt holds for longer prompts too
  std::int64_t prompt() const { return std::ssize(request.ids); }
};

struct EngineRow {
  RowId id;
  std::shared_ptr<const Order> order;
  Rng rng;
  std::optional<StreamDecoder> decoder;
  generation::detail::StopMatcher stops;
  std::vector<std::int64_t> ids;  ///< prompt and drawn tokens
  GenerateResult result;

  SequenceId sequence = -1;   ///< none while it waits
  std::int64_t computed = 0;  ///< tokens of `ids` in the cache
  std::int64_t unseen = 0;    ///< of them computed before they were this row's: its audit does not have them
  bool done = false;

  bool running() const { return sequence >= 0; }
  std::int64_t pending() const { return std::ssize(ids) - computed; }
  /// Has one token to compute: the one drawn last.
  bool decodes() const { return running() && computed >= order->prompt() && pending() == 1; }
};

}  // namespace

struct Engine::Impl {
  using OnEvent = std::function<void(const EngineEvent&)>;

  Impl(Model m, const EngineOptions& o)
      : model(std::move(m)),
        options(o),
        session(model, {.batch_invariant = o.batch_invariant,
                        .prompt_chunk = std::numeric_limits<std::int32_t>::max(),
                        .max_cache_bytes = o.max_cache_bytes}),
        recurrent(std::ranges::any_of(model.config().layers,
                                      [](const LayerConfig& l) { return l.mixer == MixerKind::delta_net; })),
        prefixes(session, recurrent) {}

  RowId submit(EngineRequest request);
  void check(const EngineRequest& request);
  bool step(const OnEvent& on_event);
  std::optional<GenerateResult> cancel(RowId id);

  void admit();
  bool waits_for_prefix(const EngineRow& row) const;
  bool has_room();
  void open(EngineRow& row);
  void shut(EngineRow& row);
  void set_back(EngineRow& row);

  std::vector<EngineRow*> choose();
  std::int64_t next_tokens(const EngineRow& row, std::int64_t& prompt_room) const;
  bool make_room(EngineRow& row, std::int64_t tokens, std::int64_t taken);
  std::vector<at::Tensor> compute(std::span<EngineRow* const> chosen);

  void draw(EngineRow& row, const at::Tensor& logits, const OnEvent& on_event);
  void draw_token(EngineRow& row, const at::Tensor& logits, const OnEvent& on_event);
  void fork_samples(const EngineRow& row, std::vector<EngineRow*>& forked);
  void end(EngineRow& row, FinishReason reason, const OnEvent& on_event);

  std::int64_t free_bytes() const {
    if (options.max_cache_bytes == 0) return std::numeric_limits<std::int64_t>::max();
    return options.max_cache_bytes - session.cache_bytes();
  }

  Model model;
  EngineOptions options;
  Session session;
  bool recurrent;  ///< layers that keep a state, which cannot go back
  generation::detail::PrefixStore prefixes;
  std::list<EngineRow> rows;         ///< by priority, then by id
  std::vector<std::int64_t> tokens;  ///< of each chosen row, in this step
  RowId next = 0;
  Load load;
};

RowId Engine::Impl::submit(EngineRequest request) {
  check(request);
  auto order = std::make_shared<Order>();
  order->stop_ids = generation::detail::stop_ids(model, request.stop_ids);
  if (generation::detail::looks_at_prompt(request.steering)) order->touched = request.steering;
  // Ropes that depend on the prompt's length turn a longer prompt's beginning in another way.
  order->shares = options.keep_prefixes && !generation::detail::counts_from_prompt_end(request.steering) &&
                  std::ssize(request.ids) <= model::detail::length_free_tokens(model.config());
  order->request = std::move(request);
  const auto& r = order->request;
  const RowId first = next;
  const auto before =
      std::ranges::find_if(rows, [&](const EngineRow& row) { return row.order->request.priority < r.priority; });
  for (std::int64_t i = 0; i < r.samples; ++i) {
    EngineRow row{.id = next,
                  .order = order,
                  .rng = Rng(i == 0 ? r.seed : derive_seed(r.seed, "sample", static_cast<std::uint64_t>(i))),
                  .decoder = {},
                  .stops = generation::detail::StopMatcher(r.stop),
                  .ids = r.ids,
                  .result = {}};
    if (model.has_tokenizer()) row.decoder.emplace(model.tokenizer(), DecodeOptions{.skip_special = true});
    rows.insert(before, std::move(row));
    ++next;
  }
  return first;
}

void Engine::Impl::check(const EngineRequest& request) {
  generation::detail::check_row(model, {request.ids, request.sampling, request.max_tokens, request.stop}, "this row",
                                kWhere);
  session.close(session.open({.steering = request.steering}));  // one that does not fit is an error now
  require(request.samples >= 1, ErrorCode::argument, kWhere, "expected at least 1 sample but got {}", request.samples);
  if (options.max_cache_bytes == 0) return;
  const std::int64_t length = std::min(std::ssize(request.ids) + request.max_tokens, model.config().context);
  const SequenceId empty = session.open();
  const std::int64_t bytes = session.cache_bytes(empty, length);
  session.close(empty);
  require(
      bytes <= options.max_cache_bytes, ErrorCode::argument, kWhere,
      "expected a row that fits into the cache of {} bytes alone but {} prompt and {} new tokens take {}; allow more "
      "(EngineOptions::max_cache_bytes) or ask for fewer tokens",
      options.max_cache_bytes, request.ids.size(), request.max_tokens, bytes);
}

bool Engine::Impl::step(const OnEvent& on_event) {
  admit();
  const auto chosen = choose();
  if (!chosen.empty()) {
    std::size_t next_row = 0;
    try {
      const std::vector<at::Tensor> logits = compute(chosen);
      for (; next_row < chosen.size(); ++next_row) {
        EngineRow& row = *chosen[next_row];
        row.computed += tokens[next_row];
        if (!row.done && row.pending() == 0) draw(row, logits[next_row], on_event);
      }
    } catch (...) {
      // The session holds tokens that the rows behind know nothing of, and their logits are lost: computed again.
      for (; next_row < chosen.size(); ++next_row) set_back(*chosen[next_row]);
      for (auto& row : rows)
        if (row.pending() == 0) set_back(row);
      std::erase_if(rows, [](const EngineRow& row) { return row.done; });
      throw;
    }
  }
  std::erase_if(rows, [](const EngineRow& row) { return row.done; });
  return !rows.empty();
}

/// Lets rows begin that wait, in order, while there is room; one of higher priority takes the place of one of lower.
void Engine::Impl::admit() {
  std::int64_t running = std::ranges::count_if(rows, &EngineRow::running);
  for (auto& row : rows) {
    if (row.running() || row.done || waits_for_prefix(row)) continue;
    if (running == options.max_rows) {
      const auto last = std::find_if(rows.rbegin(), rows.rend(), [](const EngineRow& r) { return r.running(); });
      if (last->order->request.priority >= row.order->request.priority) break;
      set_back(*last);
      --running;
    }
    open(row);
    if (running > 0 && !has_room()) {
      shut(row);
      break;  // none behind it overtakes
    }
    ++running;
  }
}

/// Whether a row that computes its prompt now will leave a longer prefix of this one's than there is.
bool Engine::Impl::waits_for_prefix(const EngineRow& row) const {
  const auto prompt = std::span(row.order->request.ids);
  const auto own = prompt.first(prompt.size() - 1);
  for (const auto& other : rows) {
    if (!other.running() || other.computed >= other.order->prompt()) continue;
    if (other.order == row.order) return true;  // a sample: it will fork
    if (!row.order->shares || !other.order->shares || other.order->touched != row.order->touched) continue;
    const auto common = generation::detail::common_prefix(own, other.order->request.ids);
    const bool usable = (row.order->touched.empty() && !recurrent) || common == other.order->prompt();
    if (usable && common >= generation::detail::kShortestShared) return true;
  }
  return false;
}

/// Whether all that the running rows have to compute now fits.
bool Engine::Impl::has_room() {
  if (options.max_cache_bytes == 0) return true;
  std::int64_t needed = 0;
  for (const auto& other : rows)
    if (other.running()) needed += session.cache_bytes(other.sequence, other.pending() + 1);
  while (needed > free_bytes())
    if (!prefixes.drop_oldest()) return false;
  return true;
}

void Engine::Impl::open(EngineRow& row) {
  const auto& request = row.order->request;
  const bool touched = !row.order->touched.empty();
  // A row needs a token of its own to give logits.
  const auto prefix = row.order->shares
                          ? prefixes.find(std::span(request.ids).first(request.ids.size() - 1), row.order->touched)
                          : std::nullopt;
  if (!prefix)
    row.sequence = session.open({.steering = request.steering});
  else if (touched)
    row.sequence = session.fork(prefix->sequence);  // with its steering, memory and audit
  else
    row.sequence = session.fork(prefix->sequence, {.length = prefix->length, .steering = request.steering});
  row.computed = prefix ? prefix->length : 0;
  row.unseen = touched ? 0 : row.computed;
  load.shared_tokens += row.computed;
}

void Engine::Impl::shut(EngineRow& row) {
  if (!row.running()) return;
  session.close(row.sequence);
  row.sequence = -1;
  row.computed = 0;
}

void Engine::Impl::set_back(EngineRow& row) {
  if (!row.running()) return;
  shut(row);
  ++load.set_back;
}

/// The rows of this step with at least one token each, in order; `tokens` beside them.
std::vector<EngineRow*> Engine::Impl::choose() {
  std::vector<EngineRow*> chosen;
  tokens.clear();
  std::int64_t prompt_room =
      std::max<std::int64_t>(options.step_tokens - std::ranges::count_if(rows, &EngineRow::decodes), 1);
  std::int64_t taken = 0;  // bytes promised to rows before
  for (auto& row : rows) {
    if (!row.running()) continue;
    const std::int64_t count = next_tokens(row, prompt_room);
    if (count == 0 || !make_room(row, count, taken)) continue;
    taken += session.cache_bytes(row.sequence, count);
    chosen.push_back(&row);
    tokens.push_back(count);
  }
  return chosen;
}

std::int64_t Engine::Impl::next_tokens(const EngineRow& row, std::int64_t& prompt_room) const {
  if (row.decodes()) return 1;
  std::int64_t count = std::min(row.pending(), prompt_room);
  // A condition on the distribution is told of each one, also when a row that was set back is computed anew.
  if (session.needs_logits(row.sequence)) {
    const std::int64_t prompt = row.order->prompt();
    count = std::min(count, row.computed < prompt ? prompt - row.computed : 1);
  }
  prompt_room -= count;
  return count;
}

/// Makes room for a row's next tokens, at the cost of prefixes and of rows behind it. @return whether there is.
bool Engine::Impl::make_room(EngineRow& row, std::int64_t count, std::int64_t taken) {
  while (session.cache_bytes(row.sequence, count) > free_bytes() - taken) {
    if (prefixes.drop_oldest()) continue;
    const auto last = std::find_if(rows.rbegin(), rows.rend(), [](const EngineRow& r) { return r.running(); });
    if (&*last == &row) return false;
    set_back(*last);
  }
  return true;
}

/// One pass. @return logits [vocab] after the last token of each row that has come to its prompt's end; undefined for
///                   others.
std::vector<at::Tensor> Engine::Impl::compute(std::span<EngineRow* const> chosen) {
  std::vector<StepInput> inputs;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const EngineRow& row = *chosen[i];
    const std::int64_t begin = row.computed, end = begin + tokens[i], prompt = row.order->prompt(),
                       split = std::clamp(prompt, begin, end);
    const auto part = [&](std::int64_t from, std::int64_t to) {
      return std::span(row.ids).subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(to - from));
    };
    if (begin < split)
      inputs.push_back(
          {row.sequence, part(begin, split), Phase::prompt, prompt - split, split == end && end == prompt});
    if (split < end) inputs.push_back({row.sequence, part(split, end), Phase::generated});
    load.prompt_tokens += row.decodes() ? 0 : tokens[i];
  }
  const at::Tensor logits = session.step(inputs, Logits::last);
  std::vector<at::Tensor> out(chosen.size());
  for (std::int64_t i = 0, wanted = 0; i < std::ssize(chosen); ++i)
    if (const auto at = static_cast<std::size_t>(i); chosen[at]->computed + tokens[at] >= chosen[at]->order->prompt())
      out[at] = logits[wanted++];
  return out;
}

/// Goes on with a row of which all tokens are computed.
void Engine::Impl::draw(EngineRow& row, const at::Tensor& logits, const OnEvent& on_event) {
  std::vector<EngineRow*> alike{&row};
  if (row.result.ids.empty()) {  // the prompt's end
    if (row.order->shares) prefixes.keep(row.sequence, row.order->request.ids, row.order->touched);
    fork_samples(row, alike);
  }
  for (EngineRow* each : alike)
    if (!each->done) draw_token(*each, logits, on_event);
}

/// Lets the other samples of a row's prompt begin where it is, as far as there is room.
void Engine::Impl::fork_samples(const EngineRow& row, std::vector<EngineRow*>& forked) {
  std::int64_t running = std::ranges::count_if(rows, &EngineRow::running);
  for (auto& other : rows) {
    if (running == options.max_rows) return;
    if (other.order != row.order || other.running() || other.done || !other.result.ids.empty()) continue;
    other.sequence = session.fork(row.sequence);
    other.computed = row.computed;
    other.unseen = row.unseen;
    load.shared_tokens += other.computed;
    forked.push_back(&other);
    ++running;
  }
}

void Engine::Impl::draw_token(EngineRow& row, const at::Tensor& logits, const OnEvent& on_event) {
  const auto& request = row.order->request;
  if (auto reason = session.abort_reason(row.sequence)) {
    row.result.abort_reason = *std::move(reason);
    return end(row, FinishReason::aborted, on_event);
  }
  const generation::detail::DrawRows one(logits.unsqueeze(0), request.sampling);
  const auto drawn = generation::detail::draw_token(one[0], row.ids, request.sampling, row.rng);
  const auto id = drawn.id;
  const double log_probability = drawn.log_probability;
  if (row.order->stop_ids.contains(id)) return end(row, FinishReason::stop_token, on_event);

  row.ids.push_back(id);
  row.result.ids.push_back(id);
  row.result.log_probabilities.push_back(log_probability);
  const std::string text = row.decoder ? row.stops.push(row.decoder->push(id)) : "";
  if (on_event) on_event({.row = row.id, .id = id, .text = text, .log_probability = log_probability});
  if (row.done) return;  // cancelled meanwhile
  if (row.stops.stopped()) return end(row, FinishReason::stop_string, on_event);
  if (std::ssize(row.result.ids) >= request.max_tokens) return end(row, FinishReason::length, on_event);
  if (std::ssize(row.ids) >= model.config().context) return end(row, FinishReason::context, on_event);
}

void Engine::Impl::end(EngineRow& row, FinishReason reason, const OnEvent& on_event) {
  GenerateResult& result = row.result;
  result.finish = reason;
  std::string rest;
  if (row.decoder && !row.stops.stopped()) {
    rest = row.stops.push(row.decoder->finish());
    if (!row.stops.stopped()) rest += row.stops.finish();
  }
  result.text = row.stops.text();
  if (row.running()) result.audit = session.audit(row.sequence);
  for (auto& edit : result.audit.edits) edit.seen += row.unseen;  // they passed the point when they were computed
  result.warnings = session.warnings();
  row.done = true;
  shut(row);
  if (on_event) on_event({.row = row.id, .text = rest, .result = &result});
}

std::optional<GenerateResult> Engine::Impl::cancel(RowId id) {
  const auto row = std::ranges::find(rows, id, &EngineRow::id);
  if (row == rows.end() || row->done) return {};
  row->result.abort_reason = "cancelled";
  end(*row, FinishReason::aborted, {});
  return std::move(row->result);  // the row itself goes with the next step
}

Engine::Engine(Model model, const EngineOptions& options) {
  require(options.max_rows >= 1 && options.step_tokens >= 1 && options.max_cache_bytes >= 0, ErrorCode::argument,
          kWhere,
          "expected max_rows and step_tokens of at least 1 and max_cache_bytes of at least 0 but got {}, {} and {}",
          options.max_rows, options.step_tokens, options.max_cache_bytes);
  impl_ = std::make_unique<Impl>(std::move(model), options);
}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

RowId Engine::submit(EngineRequest request) { return impl_->submit(std::move(request)); }
bool Engine::step(const std::function<void(const EngineEvent&)>& on_event) { return impl_->step(on_event); }
std::optional<GenerateResult> Engine::cancel(RowId row) { return impl_->cancel(row); }
Session& Engine::session() { return impl_->session; }

Engine::Load Engine::load() const {
  Load load = impl_->load;
  load.running = std::ranges::count_if(impl_->rows, [](const auto& row) { return row.running(); });
  load.waiting = std::ranges::count_if(impl_->rows, [](const auto& row) { return !row.running() && !row.done; });
  load.cache_bytes = impl_->session.cache_bytes();
  return load;
}

}  // namespace steer
