#include "serve/engine_loop.hpp"

#include <fmt/format.h>

#include <future>

#include "serve/api_error.hpp"

namespace steer::serve::detail {

using Clock = std::chrono::steady_clock;

void Mailbox::put(RowEvent event) {
  {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
  }
  arrived_.notify_one();
}

void Mailbox::fail(std::exception_ptr why) {
  {
    const std::lock_guard lock(mutex_);
    failure_ = std::move(why);
  }
  arrived_.notify_one();
}

std::optional<RowEvent> Mailbox::take(Clock::time_point until) {
  std::unique_lock lock(mutex_);
  arrived_.wait_until(lock, until, [&] { return !events_.empty() || failure_; });
  if (!events_.empty()) {
    RowEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }
  if (failure_) std::rethrow_exception(failure_);
  return {};
}

EngineLoop::EngineLoop(Model model, const EngineOptions& options, std::int64_t max_waiting)
    : engine_(std::move(model), options), max_waiting_(max_waiting) {
  thread_ = std::thread([this] { run(); });
}

EngineLoop::~EngineLoop() { end(); }

void EngineLoop::end() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = ended_ = true;
  }
  wanted_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void EngineLoop::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

void EngineLoop::between_steps(std::function<void()> work) {
  std::promise<void> done;
  {
    const std::lock_guard lock(mutex_);
    if (ended_) throw ApiError(503, "the server is stopping");
    work_.push_back([&] {
      try {
        work();
        done.set_value();
      } catch (...) {
        done.set_exception(std::current_exception());
      }
    });
  }
  wanted_.notify_one();
  done.get_future().get();
}

std::vector<RowId> EngineLoop::submit(EngineRequest request, const std::shared_ptr<Mailbox>& mailbox,
                                      std::int64_t choice) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) throw ApiError(503, "the server is stopping");
  }
  std::vector<RowId> rows;
  between_steps([&] {
    const std::int64_t samples = request.samples;
    if (std::ssize(owners_) + samples > max_waiting_)
      throw ApiError(429, fmt::format("the queue is full: {} rows are under way or wait, of {} at most; try again",
                                      owners_.size(), max_waiting_));
    const RowId first = engine_.submit(std::move(request));
    for (std::int64_t i = 0; i < samples; ++i) {
      owners_[first + i] = {mailbox, choice + i};
      rows.push_back(first + i);
    }
  });
  return rows;
}

void EngineLoop::cancel(const std::vector<RowId>& rows) {
  try {
    between_steps([&] {
      for (const RowId row : rows)
        if (owners_.erase(row)) engine_.cancel(row);
    });
  } catch (const ApiError&) {  // the loop has ended, and its rows with it
  }
}

void EngineLoop::run() {
  bool busy = false;
  while (true) {
    std::deque<std::function<void()>> work;
    {
      std::unique_lock lock(mutex_);
      wanted_.wait(lock, [&] { return busy || ended_ || !work_.empty(); });
      work.swap(work_);
      if (ended_ && work.empty()) break;
    }
    for (auto& item : work) item();
    busy = !owners_.empty() && (step(), true);
    const auto load = engine_.load();
    const std::lock_guard lock(mutex_);
    load_ = load;
    busy = load.running + load.waiting > 0;
  }
  fail_all(std::make_exception_ptr(ApiError(503, "the server has stopped")));
}

void EngineLoop::step() {
  const auto start = Clock::now();
  const auto before = generated_;
  try {
    engine_.step([this](const EngineEvent& event) { on_event(event); });
  } catch (...) {
    fail_all(std::current_exception());
  }
  if (generated_ == before) return;
  const std::lock_guard lock(mutex_);
  step_seconds_ = std::chrono::duration<double>(Clock::now() - start).count();
}

void EngineLoop::on_event(const EngineEvent& event) {
  if (event.id >= 0) {
    const std::lock_guard lock(mutex_);
    ++generated_;
  }
  const auto owner = owners_.find(event.row);
  if (owner == owners_.end()) return;
  RowEvent out{.choice = owner->second.choice,
               .id = event.id,
               .text = std::string(event.text),
               .log_probability = event.log_probability};
  if (event.result) out.result = *event.result;
  if (event.result || owner->second.mailbox->live) owner->second.mailbox->put(std::move(out));
  if (event.result) owners_.erase(owner);
}

void EngineLoop::fail_all(const std::exception_ptr& why) {
  for (auto& [row, owner] : owners_) {
    engine_.cancel(row);
    owner.mailbox->fail(why);
  }
  owners_.clear();
}

Engine::Load EngineLoop::load() const {
  const std::lock_guard lock(mutex_);
  return load_;
}
std::int64_t EngineLoop::generated_tokens() const {
  const std::lock_guard lock(mutex_);
  return generated_;
}
double EngineLoop::step_seconds() const {
  const std::lock_guard lock(mutex_);
  return step_seconds_;
}

Generation::Generation(EngineLoop& loop, bool live, double limit_s)
    : loop_(loop),
      mailbox_(std::make_shared<Mailbox>(live)),
      until_(Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(limit_s))) {}

Generation::~Generation() {
  if (done_ < choices_) loop_.cancel(rows_);
}

void Generation::submit(EngineRequest request) {
  const auto added = loop_.submit(std::move(request), mailbox_, choices_);
  rows_.insert(rows_.end(), added.begin(), added.end());
  choices_ += std::ssize(added);
}

std::optional<RowEvent> Generation::next(const std::function<bool()>& gone) {
  while (done_ < choices_) {
    const auto now = Clock::now();
    if (auto event = mailbox_->take(std::min(now + std::chrono::milliseconds(100), until_))) {
      done_ += event->result.has_value();
      return event;
    }
    if (gone()) throw ApiError(499, "the client has gone");
    if (Clock::now() >= until_) throw ApiError(504, "the answer took longer than this server allows");
  }
  return {};
}

}  // namespace steer::serve::detail
