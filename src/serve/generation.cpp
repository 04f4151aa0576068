#include "serve/generation.hpp"

#include <algorithm>

#include "serve/service.hpp"

namespace steer::serve::detail {

using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::milliseconds(100);  ///< between two looks at the client

struct Generation::Mailbox {
  struct Letter {
    RowId row = 0;
    RowEvent event;
    std::exception_ptr error{};
  };
  std::mutex mutex;
  std::condition_variable arrived;
  std::deque<Letter> letters;

  void put(const EngineEvent& event, bool live) {
    if (!live && !event.result) return;
    Letter letter{.row = event.row,
                  .event = {.id = event.id,
                            .text = std::string(event.text),
                            .log_probability = event.log_probability,
                            .top = TopTokens(event.top.begin(), event.top.end()),
                            .result = event.result},
                  .error = event.error};
    {
      const std::lock_guard lock(mutex);
      letters.push_back(std::move(letter));
    }
    arrived.notify_one();
  }

  std::optional<Letter> take(Clock::time_point until) {
    std::unique_lock lock(mutex);
    if (!arrived.wait_until(lock, until, [&] { return !letters.empty(); })) return {};
    Letter letter = std::move(letters.front());
    letters.pop_front();
    return letter;
  }
};

Generation::Generation(Service& service, bool live)
    : service_(service),
      mailbox_(std::make_shared<Mailbox>()),
      until_(Clock::now() +
             std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(service.options.max_seconds))),
      asked_(Clock::now()),
      live_(live) {}

Generation::~Generation() {
  if (done_ == choices_) return;
  for (const Order& order : orders_)
    for (std::int64_t i = 0; i < order.count; ++i)
      service_.loop.cancel(order.first + i, "nobody waits for it any more");
}

void Generation::submit(EngineRequest request) {
  request.on_event = [mailbox = mailbox_, live = live_](const EngineEvent& event) { mailbox->put(event, live); };
  const std::int64_t count = request.samples;
  orders_.push_back({service_.loop.submit(std::move(request)), count, choices_});
  choices_ += count;
}

std::optional<RowEvent> Generation::next(const std::function<bool()>& gone) {
  while (done_ < choices_) {
    // Also while tokens come one after another: a client that has closed its side alone takes all that is written.
    const auto now = Clock::now();
    if (now - asked_ >= kPatience) {
      asked_ = now;
      if (gone()) throw ApiError(499, "the client has gone");
      if (now >= until_) throw ApiError(504, "the answer took longer than this server allows");
    }
    if (auto letter = mailbox_->take(std::min(now + kPatience, until_))) {
      if (letter->error) std::rethrow_exception(letter->error);
      RowEvent& event = letter->event;
      const auto order = std::ranges::find_if(
          orders_, [&](const Order& o) { return letter->row >= o.first && letter->row < o.first + o.count; });
      event.choice = order->choice + letter->row - order->first;
      if (event.result && event.result->finish == FinishReason::aborted && service_.stopping)
        throw ApiError(503, "the server has stopped");
      done_ += event.result != nullptr;
      return std::move(event);
    }
    if (Clock::now() >= until_) asked_ = {};
  }
  return {};
}

}  // namespace steer::serve::detail
