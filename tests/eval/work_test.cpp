#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <chrono>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include <steer/core/hash.hpp>
#include <steer/core/random.hpp>
#include <steer/eval/results.hpp>
#include <steer/io/journal.hpp>

#include "core/format_text.hpp"
#include "eval/run/stage.hpp"
#include "support.hpp"

namespace steer {
namespace {

using namespace std::chrono_literals;

// A fast stand-in for a model: results depend on the key alone.
std::string fake_result(const std::string& key) {
  ResultRow result{.arm = key.substr(0, key.find('|')), .behaviour = "funny", .question = key, .gold = "A"};
  Rng rng(derive_seed(7, key));
  result.answer = std::string(1, static_cast<char>('A' + rng.below(4)));
  result.scores["behaviour"] = rng.uniform() * 4 + 1;
  nlohmann::ordered_json json;
  to_json(json, result);
  return json.dump();
}

std::vector<std::string> plan_of(int items) {
  std::vector<std::string> keys;
  for (int i = 0; i < items; ++i) keys.push_back(format_text("arm{}|q{}", i % 3, i));
  return keys;
}

/// One process of a run: works through the plan, then rank 0 writes the final files.
void run_fake(const std::filesystem::path& folder, const std::vector<std::string>& keys, const Workers& workers,
              std::chrono::microseconds per_item, std::int64_t die_at = -1) {
  std::unique_ptr<eval::detail::Team> team;
  if (workers.count > 1) team = std::make_unique<eval::detail::Team>(workers);
  std::int64_t done = 0;
  // On a busy machine the second process may come late: the first leaves it something to do.
  const bool waits = workers.count > 1 && workers.rank == 0;
  const auto work = [&](std::span<const std::size_t> indices) {
    for (int i = 0; waits && i < 1000 && !std::filesystem::exists(folder / "run.rank1.jsonl"); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    std::vector<eval::detail::WorkRecord> records;
    for (auto i : indices) {
      if (done++ == die_at) kill(getpid(), SIGKILL);
      std::this_thread::sleep_for(per_item);
      records.push_back({fake_result(keys[i])});
    }
    return records;
  };
  const auto records = eval::detail::do_work(
      keys, work,
      {.journal = folder / "run.jsonl", .identity = R"({"seed":7})", .stage = "fake", .batch = 4, .team = team.get()});
  if (team) team->leave();
  if (workers.rank != 0) return;
  std::vector<ResultRow> results;
  for (const auto& key : keys) results.push_back(result_from_json(nlohmann::ordered_json::parse(records.at(key))));
  save_results(results, folder / "results.jsonl");
  save_results_csv(results, folder / "results.csv");
}

/// Runs in a child process, as a user's run would; returns its pid.
template <class F>
pid_t start(F&& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    int status = 0;
    try {
      body();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
      status = 1;
    }
    _exit(status);
  }
  return pid;
}

int wait_for(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return status;
}

TEST(Kill, TwentyKillsLoseAndChangeNothing) {
  test::CaseCounter counter("kill");
  const auto keys = plan_of(300);
  test::TempDir whole, killed;
  run_fake(whole.path(), keys, {}, 0us);
  Rng rng(std::chrono::steady_clock::now().time_since_epoch().count());
  std::size_t before = 0;
  for (int round = 0; round < 20; ++round) {
    const pid_t pid = start([&] { run_fake(killed.path(), keys, {}, 500us); });
    std::this_thread::sleep_for(std::chrono::microseconds(1000 + rng.below(25000)));
    kill(pid, SIGKILL);
    wait_for(pid);
    const auto found = Journal::read(killed / "run.jsonl");
    bool ok = found.size() >= before;  // nothing that was on disk is lost
    for (const auto& [key, record] : found) ok &= record == nlohmann::ordered_json::parse(fake_result(key)).dump();
    counter.count(ok);
    EXPECT_TRUE(ok) << "round " << round << ": " << found.size() << " records after " << before;
    before = found.size();
  }
  std::printf("kill: %zu of 300 items were done when the last of 20 kills came\n", before);
  ASSERT_EQ(wait_for(start([&] { run_fake(killed.path(), keys, {}, 0us); })), 0);
  for (const char* file : {"results.jsonl", "results.csv"}) {
    const bool same = test::read_file(killed / file) == test::read_file(whole / file);
    counter.count(same);
    EXPECT_TRUE(same) << file << " differs from the uninterrupted run's";
  }
}

/// A port that was free a moment ago.
std::uint16_t free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  socklen_t length = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  close(fd);
  return ntohs(address.sin_port);
}

TEST(Processes, TwoGiveTheSameRowsAsOne) {
  const auto keys = plan_of(200);
  test::TempDir one, two;
  run_fake(one.path(), keys, {}, 0us);
  Workers workers{.rank = 0, .count = 2, .address = "127.0.0.1", .port = free_port(), .timeout_s = 20};
  std::vector<pid_t> pids;
  for (workers.rank = 0; workers.rank < 2; ++workers.rank)
    pids.push_back(start([&, w = workers] { run_fake(two.path(), keys, w, 2000us); }));
  for (pid_t pid : pids) EXPECT_EQ(wait_for(pid), 0);
  EXPECT_EQ(test::read_file(two / "results.jsonl"), test::read_file(one / "results.jsonl"));
  EXPECT_GT(Journal::read(two / "run.jsonl").size(), 0u);
  EXPECT_GT(Journal::read(two / "run.rank1.jsonl").size(), 0u) << "both worked";
}

TEST(Processes, AKilledOnesItemsAreTakenOver) {
  const auto keys = plan_of(120);
  test::TempDir one, two;
  run_fake(one.path(), keys, {}, 0us);
  Workers workers{.rank = 0, .count = 2, .address = "127.0.0.1", .port = free_port(), .timeout_s = 3};
  const pid_t first = start([&, w = workers] { run_fake(two.path(), keys, w, 3000us); });
  workers.rank = 1;
  const pid_t second = start([&, w = workers] { run_fake(two.path(), keys, w, 3000us, 10); });
  EXPECT_TRUE(WIFSIGNALED(wait_for(second)));
  EXPECT_EQ(wait_for(first), 0);
  EXPECT_EQ(test::read_file(two / "results.jsonl"), test::read_file(one / "results.jsonl"));
}

/// Does all items at once, here; returns how many were done.
std::int64_t do_here(const eval::detail::WorkOptions& options, const std::vector<std::string>& keys,
                     std::map<std::string, std::string, std::less<>>* records = nullptr,
                     const std::set<std::string>& unsettled = {}) {
  std::int64_t done = 0;
  const auto found = eval::detail::do_work(
      keys,
      [&](std::span<const std::size_t> indices) {
        std::vector<eval::detail::WorkRecord> made;
        for (auto i : indices)
          made.push_back({format_text("\"{} {}\"", keys[i], options.identity.size()), !unsettled.contains(keys[i])});
        done += static_cast<std::int64_t>(indices.size());
        return made;
      },
      options);
  if (records) *records = found;
  return done;
}

// Results that are not those of the run: the worst that can happen to it.
TEST(Work, AJournalOfOtherSettingsIsRefusedWhosever) {
  const auto keys = plan_of(20);
  const std::string ours = R"({"seed":7})", other = R"({"seed":8})";
  for (const char* name : {"run.jsonl", "run.rank1.jsonl", "run.rank12.jsonl"}) {
    test::TempDir dir;
    {
      Journal left(dir / name, other);
      for (const auto& key : keys) left.append({key, "\"of another run\""});
    }
    const std::string before = test::read_file(dir / name);
    EXPECT_STEER_ERROR(do_here({.journal = dir / "run.jsonl", .identity = ours, .stage = "fake"}, keys),
                       ErrorCode::config, "seed was 8, is 7");
    EXPECT_STEER_ERROR(do_here({.journal = dir / "run.jsonl", .identity = ours, .stage = "fake"}, keys),
                       ErrorCode::config, name);
    EXPECT_EQ(test::read_file(dir / name), before);
  }
  test::TempDir dir;
  std::ofstream(dir / "run.rank1.jsonl") << "my notes\n";
  EXPECT_STEER_ERROR(do_here({.journal = dir / "run.jsonl", .identity = ours, .stage = "fake"}, keys),
                     ErrorCode::format, "run.rank1.jsonl");
}

TEST(Work, SaysWhichJournalsItUsed) {
  test::TempDir dir;
  const auto keys = plan_of(6);
  {
    Journal left(dir / "run.rank1.jsonl", "{}");
    left.append({keys[2], "\"kept\""});
    Journal empty(dir / "run.rank2.jsonl", "{}");
  }
  std::set<std::filesystem::path> used;
  std::map<std::string, std::string, std::less<>> records;
  do_here({.journal = dir / "run.jsonl", .identity = "{}", .stage = "fake", .apart = true, .used = &used}, keys,
          &records);
  EXPECT_EQ(records.at(keys[2]), "\"kept\"");
  EXPECT_EQ(used, (std::set<std::filesystem::path>{dir / "run.rank1.jsonl"}));
  EXPECT_EQ(do_here({.journal = dir / "run.jsonl", .identity = "{}", .stage = "fake", .used = &used}, keys), 0);
  EXPECT_EQ(used.size(), 2u);
}

TEST(Work, WhatIsNotSettledIsDoneAgain) {
  test::TempDir dir;
  const auto keys = plan_of(10);
  const eval::detail::WorkOptions options{
      .journal = dir / "run.jsonl", .identity = "{}", .stage = "fake", .batch = 4, .apart = true};
  std::map<std::string, std::string, std::less<>> first, second;
  EXPECT_EQ(do_here(options, keys, &first, {keys[1], keys[9]}), 10);
  EXPECT_EQ(first.size(), 10u) << "this run has them";
  EXPECT_EQ(Journal::read(dir / "run.jsonl").size(), 8u) << "the journal has not";
  EXPECT_EQ(do_here(options, keys, &second), 2) << "only those two";
  EXPECT_EQ(second, first);
}

TEST(Work, StopsBetweenBatchesAndGoesOn) {
  test::TempDir dir;
  const auto keys = plan_of(10);
  int asked = 0;
  eval::detail::WorkOptions options{
      .journal = dir / "run.jsonl", .identity = "{}", .stage = "fake", .batch = 4, .stop = [&] { return ++asked > 2; }};
  EXPECT_STEER_ERROR(do_here(options, keys), ErrorCode::cancelled, "8 of 10");
  EXPECT_EQ(Journal::read(dir / "run.jsonl").size(), 8u);
  options.stop = {};
  EXPECT_EQ(do_here(options, keys), 2);
}

/// Something that text does not carry: where it came from.
struct Thing {
  std::size_t item = 0;
  bool was_text = false;
};

TEST(Stages, OnlyAJournalSeesText) {
  test::TempDir dir;
  std::int64_t made = 0, written = 0;
  eval::detail::Stage<Thing> stage{.name = "things", .keys = plan_of(10)};
  stage.make = [&](std::span<const std::size_t> indices) {
    std::vector<eval::detail::Made<Thing>> some;
    for (auto i : indices) some.push_back({{.item = i}, i != 7});
    made += std::ssize(indices);
    return some;
  };
  stage.write = [&](const Thing& thing) { return ++written, std::to_string(thing.item); };
  stage.read = [](std::size_t item, const std::string& line) {
    EXPECT_EQ(line, std::to_string(item));
    return Thing{std::stoul(line), /*was_text=*/true};
  };
  stage.batch = 4;
  stage.apart = true;
  const auto check = [&](const std::vector<std::optional<Thing>>& things, bool was_text) {
    ASSERT_EQ(things.size(), 10u);
    for (std::size_t i = 0; i < things.size(); ++i) {
      ASSERT_TRUE(things[i]) << i;
      EXPECT_EQ(things[i]->item, i);
      EXPECT_EQ(things[i]->was_text, was_text) << i;
    }
  };
  check(eval::detail::run_stage(stage, {}), false);
  EXPECT_EQ(made, 10);
  EXPECT_EQ(written, 0);

  const eval::detail::WorkOptions options{.journal = dir / "run.jsonl", .identity = "{}"};
  check(eval::detail::run_stage(stage, options), true);
  EXPECT_EQ(written, 10);
  const auto kept = Journal::read(dir / "run.jsonl");
  EXPECT_EQ(kept.size(), 9u) << "all that settled";
  EXPECT_EQ(kept.at("things|" + stage.keys[3]), "3");
  check(eval::detail::run_stage(stage, options), true);
  EXPECT_EQ(made, 21) << "the one that did not settle is made again";

  stage.make = [](std::span<const std::size_t>) { return std::vector<eval::detail::Made<Thing>>(1); };
  EXPECT_STEER_ERROR(eval::detail::run_stage(stage, {}), ErrorCode::shape, "4 records from a batch but got 1");
}

TEST(Processes, OfOtherSettingsAreTurnedAway) {
  Workers workers{.rank = 0, .count = 2, .address = "127.0.0.1", .port = free_port(), .timeout_s = 5};
  const pid_t first = start([w = workers] {
    eval::detail::Team team(w, R"({"seed":7})");
    team.leave();
  });
  workers.rank = 1;
  const pid_t second = start([w = workers] {
    EXPECT_STEER_ERROR(eval::detail::Team(w, R"({"seed":8})"), ErrorCode::config, "seed was 7, is 8");
    if (testing::Test::HasFailure()) throw std::runtime_error("rank 1 was let in");
    eval::detail::Team team(w, R"({"seed":7})");
    team.leave();
  });
  EXPECT_EQ(wait_for(second), 0);
  EXPECT_EQ(wait_for(first), 0);
}

TEST(Processes, EnvironmentOfLaunchers) {
  unsetenv("WORLD_SIZE");
  EXPECT_EQ(Workers::from_environment().count, 1);
  setenv("WORLD_SIZE", "2", 1);
  unsetenv("RANK");
  EXPECT_STEER_ERROR(Workers::from_environment(), ErrorCode::config, "torchrun");
  setenv("RANK", "1", 1);
  setenv("MASTER_ADDR", "localhost", 1);
  setenv("MASTER_PORT", "29500", 1);
  EXPECT_EQ(Workers::from_environment().rank, 1);
  setenv("RANK", "two", 1);
  EXPECT_STEER_ERROR(Workers::from_environment(), ErrorCode::config, "\"two\"");
  for (const char* name : {"WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"}) unsetenv(name);
}

}  // namespace
}  // namespace steer
