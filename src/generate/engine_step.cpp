// Who is computed in a step, and who waits.
#include <algorithm>
#include <limits>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "generate/engine_impl.hpp"

namespace steer {
namespace {

/// Logits of one step, beside one row each: 64 MiB.
constexpr std::int64_t kLogits = std::int64_t{1} << 24;

}  // namespace

bool Engine::Impl::step(const OnEvent& on_event) {
  const auto publishing = [this](void*) { publish(); };
  const std::unique_ptr<void, decltype(publishing)> at_end(this, publishing);
  receive();
  deliver(on_event);  // what a callback that threw has left, and cancelled rows
  admit();
  const std::vector<Row*> chosen = choose();
  if (!chosen.empty()) {
    compute(chosen);
  } else if (const auto stuck = std::ranges::find_if(active, &Row::running); stuck != active.end()) {
    stuck->failure = std::make_exception_ptr(
        Error(ErrorCode::argument, format_text("[steer::Engine] expected room in the cache of {} bytes for one row but "
                                               "other sequences of the session hold {}; close some",
                                               max_cache_bytes, session->cache_bytes())));
  }
  receive_cancellations();
  deliver(on_event);
  const std::lock_guard lock(inbox.mutex);
  return !inbox.alive.empty();
}

/// Lets rows begin that wait, in order, while there is room; one of higher priority takes the place of one of lower.
void Engine::Impl::admit() {
  std::int64_t passed_over = 0;
  for (auto next = waiting.begin(); next != waiting.end();) {
    const auto row = next++;
    if (waits_for_prefix(*row)) {
      if (++passed_over > 2 * options.max_rows) break;
      continue;
    }
    if (std::ssize(active) >= options.max_rows) {
      if (active.back().order->request.priority >= row->order->request.priority) break;
      wait_again(std::prev(active.end()));
    }
    try {
      open(*row);
    } catch (...) {
      row->failure = std::current_exception();
    }
    insert(active, waiting, row);
    if (row->failure || std::ssize(active) == 1 || has_room()) continue;
    shut(*row);
    insert(waiting, active, row);
    break;  // none behind it overtakes
  }
}

/// Whether a row that computes its prompt now will leave a clearly longer prefix of this one's than there is.
bool Engine::Impl::waits_for_prefix(const Row& row) {
  const Order& order = *row.order;
  const auto own = std::span(order.request.ids).first(static_cast<std::size_t>(order.takes));
  std::int64_t known = -1;
  for (const Row& other : active) {
    if (!other.running() || other.over() || other.computed >= other.prompt()) continue;
    if (other.order == row.order) return true;  // a sample: it will fork
    if (order.takes < generation::detail::kShortestShared || !other.order->keeps ||
        other.order->touched != order.touched)
      continue;
    const std::int64_t common = generation::detail::common_prefix(own, other.order->request.ids);
    const bool usable = (order.touched.empty() && !recurrent) || common == other.prompt();
    if (!usable || common < generation::detail::kShortestShared) continue;
    if (known < 0) known = prefixes.longest(own, order.touched);
    if (common >= known + generation::detail::kShortestShared && !session->has_editing_hook()) return true;
  }
  return false;
}

/// Whether all that the running rows have to compute now fits.
bool Engine::Impl::has_room() {
  if (max_cache_bytes == 0) return true;
  std::int64_t needed = 0;
  for (const Row& other : active)
    if (other.running()) needed += session->cache_bytes(other.sequence, other.pending() + 1);
  while (needed > free_bytes())
    if (!prefixes.drop_oldest()) return false;
  return true;
}

void Engine::Impl::open(Row& row) {
  const Order& order = *row.order;
  const EngineRequest& request = order.request;
  row.computed = row.unseen = row.held = 0;
  if (request.after) {
    row.sequence = session->fork(*request.after, {.next_turn = true, .steering = order.steering});
    row.held = session->length(row.sequence);
    if (row.held + std::ssize(row.ids) > model.config().context) {
      shut(row);
      fail(ErrorCode::shape, "Engine",
           "expected prompts that fit into the context of {} tokens but {} follow a sequence of {}; shorten it",
           model.config().context, row.ids.size(), row.held);
    }
  } else if (const auto prefix =
                 order.takes > 0 && !session->has_editing_hook()
                     ? prefixes.find(std::span(request.ids).first(static_cast<std::size_t>(order.takes)), order.touched)
                     : std::nullopt) {
    const bool touched = !order.touched.empty();
    row.sequence = touched ? session->fork(prefix->sequence)  // with its steering, memory and audit
                           : session->fork(prefix->sequence,
                                           {.length = prefix->length, .next_turn = true, .steering = order.steering});
    row.computed = prefix->length;
    row.unseen = touched ? 0 : row.computed;
    done.shared_tokens += row.computed;
  } else {
    row.sequence = session->open({.steering = order.steering});
  }
  observers.add(row);
}

void Engine::Impl::shut(Row& row) {
  if (!row.running()) return;
  observers.remove(row);
  session->close(row.sequence);
  row.sequence = -1;
  row.computed = 0;
}

/// What its steering has done so far, for a row that ends or is set back: it may be cancelled while it waits.
void Engine::Impl::keep_audit(Row& row) {
  if (row.computed < row.audited) return;  // it was set back, and is not yet as far as it was
  row.audited = row.computed;
  row.result->audit = session->audit(row.sequence);
  for (auto& edit : row.result->audit.edits) edit.seen += row.unseen;  // they passed the point when they were computed
}

/// Takes a row's cache away.
Engine::Impl::Rows::iterator Engine::Impl::wait_again(Rows::iterator row) {
  const auto next = std::next(row);
  if (row->running()) keep_audit(*row);
  shut(*row);
  ++done.set_back;
  insert(waiting, active, row);
  return next;
}

/// The rows of this step with at least one token each, in order; `tokens` beside them.
std::vector<Engine::Impl::Row*> Engine::Impl::choose() {
  std::vector<Row*> chosen;
  tokens.clear();
  std::int64_t prompt_room =
      std::max<std::int64_t>(options.step_tokens - std::ranges::count_if(active, &Row::decodes), 1);
  std::int64_t logit_room = std::max<std::int64_t>(kLogits / model.config().vocab_size, 1);
  std::int64_t taken = 0;  // bytes promised to rows before
  for (Row& row : active) {
    if (!row.running() || row.over()) continue;
    const std::int64_t count = next_tokens(row, prompt_room, logit_room);
    if (count == 0 || !make_room(row, count, taken)) continue;
    if (max_cache_bytes > 0) taken += session->cache_bytes(row.sequence, count);
    chosen.push_back(&row);
    tokens.push_back(count);
  }
  return chosen;
}

std::int64_t Engine::Impl::next_tokens(const Row& row, std::int64_t& prompt_room, std::int64_t& logit_room) const {
  if (row.decodes()) return 1;
  std::int64_t count = std::min(row.pending(), prompt_room);
  // A prompt is kept for others where it ends: what is given after it comes in the next pass. A condition on the
  // distribution is told of each one, also when a row that was set back is computed anew.
  const bool each = session->needs_logits(row.sequence);
  if (const std::int64_t left = row.prompt() - row.computed; left > 0 && (row.order->keeps || each))
    count = std::min(count, left);
  else if (each)
    count = std::min<std::int64_t>(count, 1);
  const std::int64_t unread = std::max<std::int64_t>(row.first_read() - row.computed, 0);
  if (count > unread + 1) {  // several tokens are scored
    count = std::min(count, unread + std::max<std::int64_t>(logit_room, 1));
    logit_room -= count - unread;
  }
  prompt_room -= count;
  return count;
}

/// Makes room for a row's next tokens, at the cost of prefixes and of rows behind it. @return whether there is.
bool Engine::Impl::make_room(Row& row, std::int64_t count, std::int64_t taken) {
  if (max_cache_bytes == 0) return true;
  while (session->cache_bytes(row.sequence, count) > free_bytes() - taken) {
    if (prefixes.drop_oldest()) continue;
    const auto last = std::find_if(active.rbegin(), active.rend(), [](const Row& r) { return r.running(); });
    if (&*last == &row) return false;
    wait_again(std::prev(last.base()));
  }
  return true;
}

std::int64_t Engine::Impl::free_bytes() const { return max_cache_bytes - session->cache_bytes(); }

/// One pass over the chosen rows. If it throws, each row by itself, to find whose fault it is: from its beginning,
/// since what steerings have counted in that pass cannot be taken back.
void Engine::Impl::compute(const std::vector<Row*>& chosen) {
  const auto run = [&](std::span<Row* const> rows) {
    at::Tensor logits;
    try {
      logits = pass(rows);
    } catch (...) {
      if (rows.size() == 1) rows.front()->failure = std::current_exception();
      return false;
    }
    ++done.steps;
    read(rows, logits);
    return true;
  };
  if (run(chosen) || chosen.size() == 1) return;
  for (Row* row : chosen) {
    shut(*row);
    try {
      open(*row);
    } catch (...) {
      row->failure = std::current_exception();
    }
    while (!row->over() && row->pending() > 0) {
      std::int64_t prompt_room = options.step_tokens, logit_room = 1;
      tokens = {next_tokens(*row, prompt_room, logit_room)};
      run(std::span(&row, 1));
    }
  }
}

/// @return logits [tokens read, vocab] of all rows, in order; undefined for none.
at::Tensor Engine::Impl::pass(std::span<Row* const> chosen) {
  std::vector<StepInput> inputs;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const Row& row = *chosen[i];
    const std::int64_t begin = row.computed, end = begin + tokens[i], prompt = row.prompt(),
                       split = std::clamp(prompt, begin, end), read = row.first_read();
    const auto add = [&](std::int64_t from, std::int64_t to, Phase phase, std::int64_t left) {
      if (from < to)
        inputs.push_back(
            {row.sequence,
             std::span(row.ids).subspan(static_cast<std::size_t>(from), static_cast<std::size_t>(to - from)), phase,
             left, std::max<std::int64_t>(to - std::max(from, read), 0)});
    };
    add(begin, split, Phase::prompt, prompt - split);
    add(split, end, Phase::generated, 0);
    done.prompt_tokens += row.decodes() ? 0 : tokens[i];
  }
  return session->step(inputs, Logits::last);
}

}  // namespace steer
