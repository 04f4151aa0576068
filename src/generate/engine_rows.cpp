// What becomes of a row's logits: tokens read or drawn, events, ends.
#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>

#include <steer/core/error.hpp>

#include "core/crew.hpp"
#include "generate/device_draws.hpp"
#include "generate/engine_impl.hpp"

namespace steer {

using generation::detail::Draw;

namespace {

/// One token to be read from logits, or drawn.
struct Reading {
  generation::detail::EngineRow* row;
  std::int64_t at;        ///< row of the logits
  std::int64_t position;  ///< of the token in the row's ids
  std::int64_t known;     ///< the token; -1: to be drawn
  std::int64_t top;
  Draw draw{};
};

void fail_with(GenerateResult& result, const std::exception_ptr& failure) {
  result.finish = FinishReason::failed;
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& error) {
    result.abort_reason = error.what();
  } catch (...) {
    result.abort_reason = "something that is no std::exception was thrown";
  }
}

/// Whether somebody wants to see the logits, not only a token of them.
bool wants_logits(const Reading& r) {
  return r.top > 0 || (r.row->order->request.on_logits && r.position >= r.row->prompt());
}

/// The rows of logits that are read on the host. Those on a card come over where somebody wants to see them.
class HostLogits {
 public:
  HostLogits(const at::Tensor& logits, std::span<const Reading> readings) {
    if (!logits.defined()) return;
    vocabulary_ = logits.size(1);
    places_.assign(static_cast<std::size_t>(logits.size(0)), -1);
    if (logits.is_cpu() && !generation::detail::draws_on_device_for_testing) {
      rows_ = logits.to(at::kFloat).contiguous();
      std::iota(places_.begin(), places_.end(), 0);
      return;
    }
    std::vector<std::int64_t> wanted;
    for (const auto& r : readings) {
      std::int64_t& place = places_[static_cast<std::size_t>(r.at)];
      if (place >= 0 || !wants_logits(r)) continue;
      place = std::ssize(wanted);
      wanted.push_back(r.at);
    }
    if (wanted.empty()) return;
    const at::Tensor index = at::tensor(at::ArrayRef<std::int64_t>(wanted)).to(logits.device());
    rows_ = logits.index_select(0, index).to(at::TensorOptions(at::kCPU).dtype(at::kFloat)).contiguous();
  }
  bool has(std::int64_t row) const { return places_[static_cast<std::size_t>(row)] >= 0; }
  std::span<const float> operator[](std::int64_t row) const {
    return {rows_.const_data_ptr<float>() + places_[static_cast<std::size_t>(row)] * vocabulary_,
            static_cast<std::size_t>(vocabulary_)};
  }

 private:
  std::int64_t vocabulary_ = 0;
  std::vector<std::int64_t> places_;  ///< of each row of the logits, in `rows_`; -1: not here
  at::Tensor rows_;
};

/// The tokens that a row may not draw yet.
std::span<const std::int64_t> barred(const Reading& r) {
  const auto& order = *r.row->order;
  const bool early = std::ssize(r.row->ids) - r.row->prompt() < order.request.min_tokens;
  return early ? std::span<const std::int64_t>(order.ends) : std::span<const std::int64_t>();
}

std::span<const std::int64_t> generated(const Reading& r) {
  return std::span(r.row->ids).subspan(static_cast<std::size_t>(r.row->prompt()));
}

void read_on_host(Reading& r, std::span<const float> logits) {
  if (r.known >= 0)
    r.draw = generation::detail::read_token(logits, r.known, r.top);
  else
    r.draw = generation::detail::draw_token(
        {.logits = logits, .seen = r.row->ids, .generated = generated(r), .barred = barred(r), .top = r.top},
        r.row->order->request.sampling, r.row->rng);
}

/// All of `readings` whose logits are not on the host, where they are.
void read_on_device(std::span<Reading> readings, const at::Tensor& logits, const HostLogits& host,
                    std::span<std::exception_ptr> failures) {
  std::vector<std::size_t> places;
  std::vector<generation::detail::DeviceReading> some;
  for (std::size_t i = 0; i < readings.size(); ++i) {
    Reading& r = readings[i];
    if (host.has(r.at)) continue;
    const SamplingOptions& sampling = r.row->order->request.sampling;
    places.push_back(i);
    some.push_back({.row = r.at,
                    .known = r.known,
                    .sampling = &sampling,
                    .uniform = r.known < 0 && sampling.temperature > 0 ? r.row->rng.uniform() : 0,
                    .seen = r.row->ids,
                    .generated = generated(r),
                    .barred = barred(r)});
  }
  const generation::detail::DeviceDraws draws(logits, some);
  for (std::size_t i = 0; i < places.size(); ++i) {
    try {
      readings[places[i]].draw = draws.at(i);
    } catch (...) {
      failures[places[i]] = std::current_exception();
    }
  }
}

}  // namespace

/// Reads and draws, each row's from its own logits alone: on all threads, or on the card where the logits are.
/// @param logits  as `pass` returns them for these rows.
void Engine::Impl::read(std::span<Row* const> chosen, const at::Tensor& logits) {
  std::int64_t next = 0;  // row of the logits
  std::vector<Reading> readings;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    Row& row = *chosen[i];
    const std::int64_t begin = row.computed, first = std::max(begin, row.first_read());
    row.computed += tokens[i];
    const bool prompt_done = begin < row.prompt() && row.computed >= row.prompt();
    if (prompt_done && row.order->keeps && !session->has_editing_hook() && row.computed == row.prompt())
      prefixes.keep(row.sequence, row.order->request.ids, row.order->touched);
    if (row.failure) {  // an observer's
      next += std::max<std::int64_t>(row.computed - first, 0);
      continue;
    }
    const std::size_t own = readings.size();
    for (std::int64_t p = first; p < row.computed; ++p, ++next) {
      const bool scored = p + 1 < row.prompt();
      if (p + 1 < std::ssize(row.ids)) {
        (scored ? row.scored : row.taken) += 1;
        readings.push_back({&row, next, p + 1, row.ids[static_cast<std::size_t>(p + 1)],
                            scored ? row.order->request.prompt_top : row.order->request.top});
        continue;
      }
      if (row.max_tokens() == 0) continue;
      std::vector<Row*> alike{&row};
      if (p + 1 == row.prompt()) fork_samples(row, alike);
      const std::size_t scores = readings.size();
      for (Row* each : alike) {
        for (std::size_t s = own; s < scores && each != &row; ++s) {
          readings.push_back(readings[s]);
          readings.back().row = each;
        }
        if (auto reason = session->abort_reason(each->sequence)) {
          each->result->abort_reason = *std::move(reason);
          each->ending = FinishReason::aborted;
        } else {
          readings.push_back({each, next, p + 1, -1, row.order->request.top});
        }
      }
    }
    if (row.max_tokens() == 0 && row.pending() == 0) row.ending = FinishReason::length;
  }

  const HostLogits host(logits, readings);
  const std::int64_t grain = std::max<std::int64_t>(1, 65536 / model.config().vocab_size);
  std::vector<std::exception_ptr> failures(readings.size());
  core::detail::run_shares(std::ssize(readings), grain, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      Reading& r = readings[i];
      try {
        if (host.has(r.at)) read_on_host(r, host[r.at]);
      } catch (...) {
        failures[i] = std::current_exception();
      }
    }
  });
  read_on_device(readings, logits, host, failures);
  for (std::size_t i = 0; i < readings.size(); ++i) {
    Reading& r = readings[i];
    try {
      if (failures[i]) std::rethrow_exception(failures[i]);
      if (const auto& told = r.row->order->request.on_logits; told && r.position >= r.row->prompt())
        told({.row = r.row->id, .position = r.row->held + r.position, .logits = host[r.at]});
    } catch (...) {
      if (!r.row->failure) r.row->failure = std::current_exception();
    }
    if (!r.row->failure) r.row->ready.push_back(std::move(r.draw));
  }
}

/// Lets the other samples of a row's prompt begin where it is, as far as there is room.
void Engine::Impl::fork_samples(const Row& row, std::vector<Row*>& forked) {
  if (row.order->request.samples == 1) return;
  for (auto next = waiting.begin(); next != waiting.end();) {
    const auto other = next++;
    if (std::ssize(active) >= options.max_rows) return;
    if (other->order != row.order || other->ids.size() > row.ids.size()) continue;
    other->sequence = session->fork(row.sequence);
    other->computed = row.computed;
    other->unseen = row.unseen;
    other->held = row.held;
    other->scored = row.scored;
    other->result->prompt_log_probabilities = row.result->prompt_log_probabilities;
    other->result->prompt_top = row.result->prompt_top;
    done.shared_tokens += other->computed;
    insert(active, waiting, other);
    observers.add(*other);
    forked.push_back(&*other);
  }
}

void Engine::Impl::deliver(const OnEvent& on_event) {
  for (auto next = active.begin(); next != active.end();) {
    const auto row = next++;
    deliver(*row, on_event);
    if (!row->done) continue;
    places.erase(row->id);
    active.erase(row);
  }
}

void Engine::Impl::deliver(Row& row, const OnEvent& on_event) {
  while (!row.done) {
    if (row.cancelled || (row.ready.empty() && (row.failure || row.ending))) return end(row, on_event);
    if (row.ready.empty()) return;
    Draw draw = std::move(row.ready.front());
    row.ready.pop_front();
    take(row, std::move(draw), on_event);
    receive_cancellations();
  }
}

/// The next token of a row: one of the prompt that was scored, or a generated one.
void Engine::Impl::take(Row& row, Draw draw, const OnEvent& on_event) {
  GenerateResult& result = *row.result;
  const EngineRequest& request = row.order->request;
  if (request.score_from >= 1 && request.score_from + std::ssize(result.prompt_log_probabilities) < row.prompt()) {
    result.prompt_log_probabilities.push_back(draw.log_probability);
    if (request.prompt_top > 0) result.prompt_top.push_back(std::move(draw.top));
    return;
  }
  const bool given = result.ids.size() < request.given.size();
  if (!given && row.order->stop_ids.contains(draw.id)) {
    row.ending = FinishReason::stop_token;
    return;
  }
  if (!given) {
    row.ids.push_back(draw.id);
    ++row.taken;
    ++done.tokens;
  }
  result.ids.push_back(draw.id);
  result.log_probabilities.push_back(draw.log_probability);
  if (request.top > 0) result.top.push_back(draw.top);
  // A model may have more ids than its tokenizer.
  const bool spelled = row.decoder && draw.id < model.tokenizer().vocab_size();
  const std::string text = spelled ? row.stops.push(row.decoder->push(draw.id)) : "";
  const std::int64_t count = std::ssize(result.ids);
  if (row.stops.stopped()) {
    row.ending = FinishReason::stop_string;
    result.stop = row.stops.matched();
    row.ready.clear();
  } else if (count >= request.max_tokens) {
    row.ending = FinishReason::length;
  } else if (row.held + row.prompt() + count >= model.config().context) {
    row.ending = FinishReason::context;
  }
  tell(row, {.row = row.id, .id = draw.id, .text = text, .log_probability = draw.log_probability, .top = draw.top},
       on_event);
}

void Engine::Impl::end(Row& row, const OnEvent& on_event) {
  GenerateResult& result = *row.result;
  row.done = true;
  if (row.failure) {
    fail_with(result, row.failure);
  } else {
    result.finish = row.cancelled ? FinishReason::aborted : *row.ending;
  }
  std::string rest;
  if (row.decoder && !row.stops.stopped()) {
    rest = row.stops.push(row.decoder->finish());
    if (!row.stops.stopped()) rest += row.stops.finish();
  }
  result.text = row.stops.text();
  if (row.running()) {
    keep_audit(row);
    try {
      hand_over(row);
    } catch (...) {
      fail_with(result, row.failure = std::current_exception());
      shut(row);
    }
  }
  {
    const std::lock_guard lock(inbox.mutex);
    inbox.alive.erase(row.id);
  }
  tell(row, {.row = row.id, .text = rest, .result = row.result, .error = row.failure}, on_event);
}

/// Leaves a row's sequence to the caller or to rows that go on from its end, or closes it.
void Engine::Impl::hand_over(Row& row) {
  const Order& order = *row.order;
  if (order.request.keep_sequence && !row.failure) {
    const std::int64_t missing = std::ssize(row.ids) - row.computed;  // the last one drawn was not computed
    const std::int64_t prompt = std::max<std::int64_t>(row.prompt() - row.computed, 0);
    if (missing > 0 && prompt == 0)
      session->step({{row.sequence, std::span(row.ids).last(static_cast<std::size_t>(missing)), Phase::generated}},
                    Logits::none);
    if (prompt == 0) {
      observers.remove(row);
      row.result->sequence = std::exchange(row.sequence, -1);
      return;
    }
  }
  if (order.keeps && !order.steering && row.computed > row.prompt() && !row.failure && options.keep_answers &&
      !session->has_editing_hook())
    prefixes.keep(row.sequence, std::span(row.ids).first(static_cast<std::size_t>(row.computed)), {});
  shut(row);
}

/// A request's own function first. What it throws ends its row.
void Engine::Impl::tell(Row& row, const EngineEvent& event, const OnEvent& on_event) {
  if (row.order->request.on_event) {
    try {
      row.order->request.on_event(event);
    } catch (...) {
      if (!row.done && !row.failure) {
        row.failure = std::current_exception();
        row.ready.clear();
      }
    }
  }
  if (on_event) on_event(event);
}

}  // namespace steer
