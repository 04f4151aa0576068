#include "eval/run/work.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <thread>

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <steer/core/error.hpp>
#include <steer/io/journal.hpp>

#include "io/journal_settings.hpp"

namespace steer {

Workers Workers::from_environment() {
  const auto number = [](const char* name) -> std::optional<std::int64_t> {
    const char* value = std::getenv(name);
    if (!value || !*value) return std::nullopt;
    char* end = nullptr;
    const long long parsed = std::strtoll(value, &end, 10);
    require(*end == 0 && parsed >= 0, ErrorCode::config, "Workers::from_environment",
            "expected a whole number in {} but got \"{}\"", name, value);
    return parsed;
  };
  Workers workers;
  workers.count = number("WORLD_SIZE").value_or(1);
  require(workers.count >= 1, ErrorCode::config, "Workers::from_environment", "expected WORLD_SIZE of at least 1");
  if (workers.count == 1) return workers;
  const auto rank = number("RANK"), port = number("MASTER_PORT");
  const char* address = std::getenv("MASTER_ADDR");
  require(rank && port && address && *address, ErrorCode::config, "Workers::from_environment",
          "expected RANK, MASTER_ADDR and MASTER_PORT beside WORLD_SIZE={}; start with torchrun or set them",
          workers.count);
  require(*rank < workers.count && *port < 65536, ErrorCode::config, "Workers::from_environment",
          "expected RANK < WORLD_SIZE and MASTER_PORT < 65536 but got {} of {} and {}", *rank, workers.count, *port);
  workers.rank = *rank;
  workers.port = static_cast<std::uint16_t>(*port);
  workers.address = address;
  return workers;
}

namespace eval::detail {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Records = std::map<std::string, std::string, std::less<>>;

std::filesystem::path journal_of(const std::filesystem::path& first, std::int64_t rank) {
  if (rank == 0) return first;
  auto name = first.stem();
  name += fmt::format(".rank{}", rank);
  name += first.extension();
  return first.parent_path() / name;
}

/// What all ranks' journals hold, also those of an earlier run with more processes. Each must be of this run's
/// settings.
Records read_journals(const std::filesystem::path& first, const std::string& identity,
                      std::set<std::filesystem::path>* used) {
  Records records;
  const auto add = [&](const std::filesystem::path& path) {
    Records some = Journal::read(path, identity);
    if (used && !some.empty()) used->insert(path);
    records.merge(some);
  };
  add(first);
  const auto folder = first.has_parent_path() ? first.parent_path() : std::filesystem::path(".");
  const std::string head = first.stem().string() + ".rank", tail = first.extension().string();
  std::set<std::filesystem::path> others;  // in order: which of two records counts must not depend on the file system
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(head) && name.ends_with(tail)) others.insert(entry.path());
  }
  for (const auto& path : others) add(path);
  return records;
}

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

  Impl(const Workers& given, const std::string& identity) : workers(given) {
    c10d::TCPStoreOptions options;
    options.port = workers.port;
    options.isServer = workers.rank == 0;
    options.timeout = std::chrono::milliseconds(static_cast<std::int64_t>(workers.timeout_s * 1000));
    // torchrun keeps a store of its own at MASTER_PORT and says so: then all ranks are clients of that one.
    const char* agent = std::getenv("TORCHELASTIC_USE_AGENT_STORE");
    if (agent && std::string_view(agent) == "True") options.isServer = false;
    try {
      store = c10::make_intrusive<c10d::TCPStore>(workers.address, options);
      beat();
    } catch (const std::exception& error) {
      fail(ErrorCode::io, "run_experiment", "expected to meet {} processes at {}:{} but got: {}", workers.count,
           workers.address, workers.port, first_line(error.what()));
    }
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

  static std::string heart_key(std::string_view rank) { return fmt::format("steer/heart/{}", rank); }
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

/// Who does which batch of a stage. Alone, simply the next one.
class Claims {
 public:
  virtual ~Claims() = default;
  /// The next batch to do, or nothing when all are done (by anyone).
  virtual std::optional<std::int64_t> next() = 0;
  virtual void done(std::int64_t batch) = 0;
};

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
  std::string key(std::string_view what) const { return fmt::format("steer/{}/{}", stage_, what); }
  std::string key(std::string_view what, std::int64_t batch) const {
    return fmt::format("steer/{}/{}/{}", stage_, what, batch);
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

Records do_work(std::span<const std::string> keys, const DoItems& work, const WorkOptions& options) {
  require(options.batch >= 1, ErrorCode::argument, "run_experiment", "expected batches of at least 1 item but got {}",
          options.batch);
  const auto total = static_cast<std::int64_t>(keys.size());
  const std::int64_t batches = (total + options.batch - 1) / options.batch;
  std::optional<Journal> journal;
  Records known;
  if (!options.journal.empty()) {
    journal.emplace(journal_of(options.journal, options.team ? options.team->workers().rank : 0), options.identity);
    known = read_journals(options.journal, options.identity, options.used);
  }
  Progress progress = options.progress.part(options.stage, total);
  progress.resume_at(std::count_if(keys.begin(), keys.end(), [&](const auto& key) { return known.contains(key); }));

  std::unique_ptr<Claims> claims;
  if (options.team)
    claims = std::make_unique<Shared>(*options.team, options.stage, batches);
  else
    claims = std::make_unique<Alone>(batches);
  while (const auto batch = claims->next()) {
    std::vector<std::size_t> items;
    bool open = false;
    for (auto i = *batch * options.batch; i < std::min(total, (*batch + 1) * options.batch); ++i) {
      const bool done = known.contains(keys[static_cast<std::size_t>(i)]);
      open |= !done;
      if (!done || !options.apart) items.push_back(static_cast<std::size_t>(i));
    }
    if (open) {
      require(!options.stop || !options.stop(), ErrorCode::cancelled, "run_experiment",
              "expected to finish but was told to stop, with {} of {} items of \"{}\" done{}", progress.done(), total,
              options.stage,
              options.journal.empty() ? ""
                                      : fmt::format("; they are kept: start again with the same settings to go on "
                                                    "({})",
                                                    options.journal.string()));
      // The whole batch, unless items stand apart: a result may depend on its batch mates in the last bits, and must
      // not on when the run was killed.
      auto records = work(items);
      require(records.size() == items.size(), ErrorCode::shape, "run_experiment",
              "expected {} records from a batch but got {}", items.size(), records.size());
      std::vector<JournalEntry> entries;
      for (std::size_t i = 0; i < items.size(); ++i) {
        const std::string& key = keys[items[i]];
        if (known.contains(key)) continue;
        if (records[i].settled) entries.push_back({key, records[i].text});
        known.emplace(key, std::move(records[i].text));
      }
      if (journal) journal->append(entries);
      progress.advance(static_cast<std::int64_t>(entries.size()));
    }
    claims->done(*batch);
  }
  if (!options.journal.empty() && options.team)
    for (auto& [key, record] : read_journals(options.journal, options.identity, options.used))
      known.try_emplace(key, record);
  progress.finish();
  return known;
}

}  // namespace eval::detail
}  // namespace steer
