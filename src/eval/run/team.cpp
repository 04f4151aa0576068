#include "eval/run/team.hpp"

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <steer/core/error.hpp>

#include "core/format_text.hpp"
#include "core/meeting.hpp"
#include "io/journal_settings.hpp"

namespace steer::eval::detail {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

std::string first_line(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }
std::vector<std::uint8_t> bytes(std::string_view text) { return {text.begin(), text.end()}; }

}  // namespace

/// Every rank's heart is a counter that it moves every second; a rank whose counter stood still for `timeout_s` is
/// dead.
struct Team::Impl {
  Workers workers;
  c10::intrusive_ptr<c10d::TCPStore> store;
  std::map<std::string, std::pair<std::int64_t, std::optional<Clock::time_point>>> hearts;
  std::jthread heart;  // last: stops before the store goes

  Impl(const Workers& given, const std::string& identity)
      : workers(given), store(core::detail::meet(given, "run_experiment")) {
    guarded([&] { beat(); });
    compare(identity);
    heart = std::jthread([this](std::stop_token stop) {
      std::mutex mutex;
      std::condition_variable_any wake;
      std::unique_lock lock(mutex);
      while (!wake.wait_for(lock, stop, 1s, [&] { return stop.stop_requested(); })) {
        try {
          beat();
        } catch (const std::exception&) {
          return;  // rank 0 is gone; the main thread meets the same error
        }
      }
    });
  }

  /// Processes of different settings would mix their results.
  void compare(const std::string& identity) {
    const std::string key = "steer/identity";
    if (workers.rank == 0) return guarded([&] { store->set(key, bytes(identity)); });
    const auto raw = guarded([&] { return store->get(key); });
    const std::string first(raw.begin(), raw.end());
    require(first == identity, ErrorCode::config, "run_experiment",
            "expected rank {} to have rank 0's settings but: {}; start all processes with the same ones", workers.rank,
            io::detail::differing_settings(nlohmann::ordered_json::parse(first, nullptr, false),
                                           nlohmann::ordered_json::parse(identity, nullptr, false)));
  }

  static std::string heart_key(std::string_view rank) { return format_text("steer/heart/{}", rank); }
  void beat() { store->add(heart_key(std::to_string(workers.rank)), 1); }

  /// Whether this point in time lies `timeout_s` back; the first call sets it.
  bool long_since(std::optional<Clock::time_point>& since) const {
    if (!since) since = Clock::now();
    return Clock::now() - *since > std::chrono::duration<double>(workers.timeout_s);
  }

  bool dead(const std::string& rank) {
    auto& [count, since] = hearts[rank];
    const std::int64_t now = store->add(heart_key(rank), 0);
    if (now != count) {
      count = now;
      since.reset();
    }
    return long_since(since);
  }

  /// Runs a call on the store; its failure means that rank 0 is lost.
  template <class F>
  auto guarded(F&& call) -> decltype(call()) {
    try {
      return call();
    } catch (const std::exception& error) {
      fail(ErrorCode::io, "run_experiment",
           "expected rank 0 at {}:{} to answer but got: {}; the journals hold what was done, start all processes again",
           workers.address, workers.port, first_line(error.what()));
    }
  }
};

Team::Team(const Workers& workers, const std::string& identity) : impl_(std::make_unique<Impl>(workers, identity)) {}
Team::~Team() = default;
const Workers& Team::workers() const { return impl_->workers; }

void Team::leave() {
  impl_->guarded([&] {
    impl_->store->add("steer/left", 1);
    if (workers().rank != 0) return;
    while (impl_->store->add("steer/left", 0) < workers().count) {
      bool anyone = false;
      for (std::int64_t rank = 1; rank < workers().count; ++rank) anyone |= !impl_->dead(std::to_string(rank));
      if (!anyone) return;
      std::this_thread::sleep_for(50ms);
    }
  });
}

namespace {

class Alone : public Claims {
 public:
  explicit Alone(std::int64_t batches) : batches_(batches) {}
  std::optional<std::int64_t> next() override { return next_ < batches_ ? std::optional(next_++) : std::nullopt; }
  void done(std::int64_t) override {}

 private:
  std::int64_t batches_, next_ = 0;
};

/// `<stage>/next` hands batches 0 to n - 1 out once; `<stage>/done/<batch>` marks them. A dead rank's batch goes to the
/// first that raises the batch's takeover counter for that owner.
class Shared : public Claims {
 public:
  Shared(Team& team, std::string stage, std::int64_t batches)
      : team_(team.impl()), stage_(std::move(stage)), batches_(batches), me_(std::to_string(team.workers().rank)) {}

  std::optional<std::int64_t> next() override {
    return team_.guarded([&]() -> std::optional<std::int64_t> {
      if (!handed_out_) {
        const std::int64_t batch = team_.store->add(key("next"), 1) - 1;
        if (batch < batches_) {
          sign(batch);
          return batch;
        }
        handed_out_ = true;
      }
      while (true) {  // all are claimed: wait for the others, and take over from the dead
        bool all_done = true;
        for (std::int64_t batch = first_open_; batch < batches_; ++batch) {
          if (team_.store->check({key("done", batch)})) {
            if (batch == first_open_) ++first_open_;
            continue;
          }
          all_done = false;
          if (const auto mine = take_over(batch)) return mine;
        }
        if (all_done) return std::nullopt;
        std::this_thread::sleep_for(50ms);
      }
    });
  }

  void done(std::int64_t batch) override {
    team_.guarded([&] { team_.store->set(key("done", batch), bytes("1")); });
  }

 private:
  std::string key(std::string_view what) const { return format_text("steer/{}/{}", stage_, what); }
  std::string key(std::string_view what, std::int64_t batch) const {
    return format_text("steer/{}/{}/{}", stage_, what, batch);
  }
  void sign(std::int64_t batch) { team_.store->set(key("owner", batch), bytes(me_)); }

  /// The batch, if its owner is dead and we are the first to notice.
  std::optional<std::int64_t> take_over(std::int64_t batch) {
    std::string owner = "nobody";  // claimed a moment ago, or by a rank that died between claiming and signing
    if (team_.store->check({key("owner", batch)})) {
      const auto raw = team_.store->get(key("owner", batch));
      owner.assign(raw.begin(), raw.end());
      if (owner == me_ || !team_.dead(owner)) return std::nullopt;
    } else if (!team_.long_since(unsigned_[batch])) {
      return std::nullopt;
    }
    if (team_.store->add(key("take/" + owner, batch), 1) != 1) return std::nullopt;
    sign(batch);
    return batch;
  }

  Team::Impl& team_;
  std::string stage_;
  std::int64_t batches_;
  std::string me_;
  bool handed_out_ = false;
  std::int64_t first_open_ = 0;
  std::map<std::int64_t, std::optional<Clock::time_point>> unsigned_;
};

}  // namespace

std::unique_ptr<Claims> claims_on(Team* team, const std::string& stage, std::int64_t batches) {
  if (team) return std::make_unique<Shared>(*team, stage, batches);
  return std::make_unique<Alone>(batches);
}

}  // namespace steer::eval::detail
