#include <algorithm>
#include <limits>

#include <steer/core/error.hpp>

#include "generate/engine_impl.hpp"
#include "generate/row_rules.hpp"
#include "model/cpu_attention.hpp"
#include "model/hook_table.hpp"
#include "model/rope.hpp"

namespace steer {
namespace {

constexpr auto kEngine = "Engine";

}  // namespace

Engine::Impl::Impl(std::unique_ptr<Session> mine, Session& used, const EngineOptions& o)
    : owned(std::move(mine)),
      session(&used),
      model(session->model()),
      options(o),
      max_cache_bytes(o.max_cache_bytes > 0 ? o.max_cache_bytes : session->options().max_cache_bytes),
      recurrent(std::ranges::any_of(model.config().layers,
                                    [](const LayerConfig& l) { return l.mixer == MixerKind::delta_net; })),
      prefixes(*session, recurrent, static_cast<std::size_t>(o.max_rows)),
      observers(*session) {
  const SequenceId empty = session->open();
  first_bytes = session->cache_bytes(empty, 1);
  block_bytes = session->cache_bytes(empty, model::detail::cpu::kBlock + 1) - first_bytes;
  session->close(empty);
}

Engine::Impl::~Impl() {
  for (Row& row : active) shut(row);
  while (prefixes.drop_oldest()) {
  }
}

RowId Engine::Impl::submit(EngineRequest request) {
  check(request);
  const auto order = order_of(std::move(request));
  const EngineRequest& r = order->request;
  Rows rows;
  for (std::int64_t i = 0; i < r.samples; ++i) {
    Rng rng(i == 0 ? r.seed : derive_seed(r.seed, "sample", static_cast<std::uint64_t>(i)));
    if (r.sampling.temperature > 0)
      for (std::size_t given = 0; given < r.given.size(); ++given) rng.uniform();  // what drawing them took
    Row& row = rows.emplace_back(Row{.id = 0,
                                     .order = order,
                                     .rng = rng,
                                     .decoder = {},
                                     .stops = generation::detail::StopMatcher(r.stop),
                                     .ids = r.ids});
    row.ids.insert(row.ids.end(), r.given.begin(), r.given.end());
    row.result->warnings = order->warnings;
    if (model.has_tokenizer()) row.decoder.emplace(model.tokenizer(), DecodeOptions{.skip_special = true});
  }
  const std::lock_guard lock(inbox.mutex);
  require(!inbox.closed, ErrorCode::cancelled, kEngine, "expected an open engine but it takes no further rows");
  const std::int64_t waits = std::ssize(inbox.alive) - inbox.load.running;
  require(
      waits + r.samples <= options.max_waiting, ErrorCode::argument, kEngine,
      "expected at most {} waiting rows (EngineOptions::max_waiting) but there are {} and {} more came; submit again "
      "when some have ended",
      options.max_waiting, waits, r.samples);
  const RowId first = inbox.next;
  for (Row& row : rows) {
    row.id = inbox.next++;
    inbox.alive.insert(row.id);
  }
  inbox.submitted.splice(inbox.submitted.end(), rows);
  inbox.arrived.notify_all();
  return first;
}

std::shared_ptr<Engine::Impl::Order> Engine::Impl::order_of(EngineRequest request) {
  auto order = std::make_shared<Order>();
  order->stop_ids = request.ignore_eos ? std::set(request.stop_ids.begin(), request.stop_ids.end())
                                       : generation::detail::stop_ids(model, request.stop_ids);
  order->ends.assign(order->stop_ids.begin(), order->stop_ids.end());
  order->steering = request.steering;
  order->warnings = session->prepare(order->steering);
  if (generation::detail::looks_at_prompt(request.steering)) order->touched = request.steering;
  // Ropes that depend on the prompt's length turn a longer prompt's beginning in another way.
  order->keeps = options.keep_prefixes && !request.after &&
                 !generation::detail::counts_from_prompt_end(request.steering) &&
                 std::ssize(request.ids) <= model::detail::length_free_tokens(model.config());
  const bool told = std::ranges::any_of(request.observers, &Observer::prompt);
  // A row needs a token of its own to give logits.
  if (order->keeps && !told)
    order->takes = (request.score_from >= 1 ? request.score_from : std::ssize(request.ids)) - 1;
  order->told.assign(request.observers.size(), 0);
  order->request = std::move(request);
  return order;
}

void Engine::Impl::check(const EngineRequest& r) const {
  generation::detail::check_row(model, {r.ids, r.given, r.sampling, r.max_tokens, r.min_tokens, r.top, r.stop},
                                "this row", kEngine);
  const std::int64_t prompt = std::ssize(r.ids), vocabulary = model.config().vocab_size;
  require(r.samples >= 1 && r.samples <= options.max_waiting, ErrorCode::argument, kEngine,
          "expected 1 to {} samples but got {}", options.max_waiting, r.samples);
  require(r.samples == 1 || (r.given.empty() && !r.keep_sequence), ErrorCode::argument, kEngine,
          "expected one sample of a row with given tokens or a kept sequence but got {}; submit them one by one",
          r.samples);
  require(r.score_from == -1 || (r.score_from >= 1 && r.score_from < prompt), ErrorCode::argument, kEngine,
          "expected score_from in [1, {}) or -1 but got {}", prompt, r.score_from);
  require(r.prompt_top >= 0 && r.prompt_top <= vocabulary && (r.prompt_top == 0 || r.score_from >= 1),
          ErrorCode::argument, kEngine, "expected prompt_top in [0, {}], and 0 without score_from, but got {}",
          vocabulary, r.prompt_top);
  for (const Observer& observer : r.observers) {
    require(static_cast<bool>(observer.on_tokens), ErrorCode::argument, kEngine,
            "expected observers with a function but the one of {} has none", observer.point.name());
    const std::string why_not = model::detail::why_not_computed(model.config(), observer.point);
    require(why_not.empty(), ErrorCode::argument, kEngine,
            "expected observers of points this model computes but got {}: {}", observer.point.name(), why_not);
  }
  if (max_cache_bytes == 0) return;
  const std::int64_t length = prompt + std::min(r.max_tokens, model.config().context - prompt);
  const std::int64_t bytes = first_bytes + (length - 1) / model::detail::cpu::kBlock * block_bytes;
  require(
      bytes <= max_cache_bytes, ErrorCode::argument, kEngine,
      "expected a row that fits into the cache of {} bytes alone but {} prompt and {} new tokens take {}; allow more "
      "(EngineOptions::max_cache_bytes) or ask for fewer tokens",
      max_cache_bytes, prompt, r.max_tokens, bytes);
}

bool Engine::Impl::cancel(RowId id, std::string reason) {
  const std::lock_guard lock(inbox.mutex);
  if (!inbox.alive.contains(id)) return false;
  inbox.cancelled.emplace_back(id, std::move(reason));
  inbox.cancels = true;
  inbox.arrived.notify_all();
  return true;
}

void Engine::Impl::cancel_all(const std::string& reason) {
  const std::lock_guard lock(inbox.mutex);
  for (const RowId id : inbox.alive) inbox.cancelled.emplace_back(id, reason);
  inbox.cancels = true;
  inbox.arrived.notify_all();
}

/// Takes in what came since.
void Engine::Impl::receive() {
  Rows rows;
  {
    const std::lock_guard lock(inbox.mutex);
    rows.swap(inbox.submitted);
  }
  while (!rows.empty()) {
    places[rows.front().id] = rows.begin();
    insert(waiting, rows, rows.begin());
  }
  receive_cancellations();
}

void Engine::Impl::receive_cancellations() {
  if (!inbox.cancels.load(std::memory_order_relaxed)) return;
  std::vector<std::pair<RowId, std::string>> cancelled;
  {
    const std::lock_guard lock(inbox.mutex);
    const auto early = std::partition(inbox.cancelled.begin(), inbox.cancelled.end(), [&](const auto& c) {
      return inbox.alive.contains(c.first) && !places.contains(c.first);  // not taken in yet
    });
    cancelled.assign(std::make_move_iterator(early), std::make_move_iterator(inbox.cancelled.end()));
    inbox.cancelled.erase(early, inbox.cancelled.end());
    inbox.cancels = !inbox.cancelled.empty();
  }
  for (auto& [id, reason] : cancelled) {
    const auto place = places.find(id);
    if (place == places.end() || place->second->done || place->second->cancelled) continue;
    const auto row = place->second;
    row->cancelled = true;
    row->result->abort_reason = std::move(reason);
    if (!row->running()) insert(active, waiting, row);  // to have its last event
  }
}

void Engine::Impl::publish() {
  done.cache_bytes = session->cache_bytes();
  done.running = std::ranges::count_if(active, &Row::running);
  const std::lock_guard lock(inbox.mutex);
  inbox.load = done;
}

/// Moves a row to its place in another list.
void Engine::Impl::insert(Rows& into, Rows& from, Rows::iterator row) {
  const auto before = [](const Row& a, const Row& b) {
    const int x = a.order->request.priority, y = b.order->request.priority;
    return x != y ? x > y : a.id < b.id;
  };
  auto place = into.end();
  while (place != into.begin() && before(*row, *std::prev(place))) --place;
  into.splice(place, from, row);
}

namespace {

void check_options(const EngineOptions& o) {
  require(o.max_rows >= 1 && o.step_tokens >= 1 && o.max_waiting >= 1 && o.max_cache_bytes >= 0, ErrorCode::argument,
          kEngine,
          "expected max_rows, step_tokens and max_waiting of at least 1 and max_cache_bytes of at least 0 but got {}, "
          "{}, {} and {}",
          o.max_rows, o.step_tokens, o.max_waiting, o.max_cache_bytes);
}

}  // namespace

Engine::Engine(Model model, const EngineOptions& o) {
  check_options(o);
  auto session = std::make_unique<Session>(std::move(model),
                                           SessionOptions{.batch_invariant = o.batch_invariant,
                                                          .prompt_chunk = std::numeric_limits<std::int32_t>::max(),
                                                          .max_cache_bytes = o.max_cache_bytes,
                                                          .cache = o.cache,
                                                          .on_warning = o.on_warning});
  Session& used = *session;
  impl_ = std::make_unique<Impl>(std::move(session), used, o);
}
Engine::Engine(Session& session, const EngineOptions& o) {
  check_options(o);
  impl_ = std::make_unique<Impl>(nullptr, session, o);
}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

RowId Engine::submit(EngineRequest request) { return impl_->submit(std::move(request)); }
bool Engine::step(const EngineEventFunction& on_event) { return impl_->step(on_event); }
bool Engine::cancel(RowId row, std::string reason) { return impl_->cancel(row, std::move(reason)); }
Session& Engine::session() { return *impl_->session; }

void Engine::cancel_all(std::string reason) { impl_->cancel_all(reason); }

void Engine::close() {
  const std::lock_guard lock(impl_->inbox.mutex);
  impl_->inbox.closed = true;
  impl_->inbox.arrived.notify_all();
}

bool Engine::closed() const {
  const std::lock_guard lock(impl_->inbox.mutex);
  return impl_->inbox.closed;
}

bool Engine::wait(std::chrono::milliseconds time) const {
  const auto& inbox = impl_->inbox;
  std::unique_lock lock(inbox.mutex);
  inbox.arrived.wait_for(lock, time, [&] { return !inbox.alive.empty() || inbox.closed; });
  return !inbox.alive.empty();
}

Engine::Load Engine::load() const {
  const std::lock_guard lock(impl_->inbox.mutex);
  Load load = impl_->inbox.load;
  load.waiting = std::ssize(impl_->inbox.alive) - load.running;
  return load;
}

}  // namespace steer
