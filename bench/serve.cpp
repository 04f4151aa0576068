// What HTTP costs over the engine in process: 64 clients with 64 distinct steerings, in turn with the same rows
// submitted directly; how long a newcomer waits for its first token; whether a thousand requests leave anything behind.
//   STEER_BENCH_MODEL=FOLDER bench/serve [ROUNDS]
// A folder: bench/peers/make_llama.py, with the tokenizer of a model of 32,000 tokens beside it. Rows ignore ends.
#include <ATen/ops/tensor.h>
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include <steer/core/random.hpp>
#include <steer/generate/engine_loop.hpp>
#include <steer/serve/server.hpp>
#include <steer/stats/statistics.hpp>

namespace {

using namespace steer;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kClients = 64, kPrompt = 32, kTokens = 48, kNewcomers = 24;
constexpr std::int64_t kShort = 32;  // new tokens where two runs are compared that differ by less than a machine drifts

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1))];
}

std::string spread(const std::vector<double>& values) {
  return fmt::format("{:.3f} [{:.3f}, {:.3f}]", quantile(values, .5), quantile(values, .25), quantile(values, .75));
}

std::vector<std::int64_t> prompt_of(const Model& model, std::int64_t client) {
  Rng rng(static_cast<std::uint64_t>(client));
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < kPrompt; ++i)
    ids.push_back(static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(model.config().vocab_size - 3))) + 3);
  return ids;
}

std::string point_of(const Model& model, std::int64_t client) {
  return fmt::format("blocks.{}.hook_resid_post", client % model.config().n_layers);
}

at::Tensor vector_of(const Model& model, std::int64_t client) {
  std::vector<float> values;
  Rng rng(1000 + static_cast<std::uint64_t>(client));
  for (std::int64_t i = 0; i < model.config().d_model; ++i) values.push_back(static_cast<float>(rng.normal()));
  return at::tensor(values);
}

/// Tokens a second of all rows, submitted directly.
double in_process(const Model& model, bool steered) {
  EngineLoop loop(model, {.max_rows = kClients});
  std::mutex mutex;
  std::condition_variable ended;
  std::int64_t left = kClients;
  const auto start = Clock::now();
  for (std::int64_t c = 0; c < kClients; ++c) {
    EngineRequest request{.ids = prompt_of(model, c), .max_tokens = kTokens, .ignore_eos = true};
    if (steered) request.steering.add(vector_of(model, c), point_of(model, c), 0.1);
    request.on_event = [&](const EngineEvent& event) {
      if (!event.result) return;
      const std::lock_guard lock(mutex);
      if (--left == 0) ended.notify_one();
    };
    loop.submit(std::move(request));
  }
  std::unique_lock lock(mutex);
  ended.wait(lock, [&] { return left == 0; });
  return static_cast<double>(kClients * kTokens) / since(start);
}

struct Streamed {
  Clock::time_point asked{};
  std::vector<Clock::time_point> arrivals{};  ///< of each event
};

Streamed stream(int port, const std::string& body) {
  Streamed result;
  const int wire = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  result.asked = Clock::now();
  if (::connect(wire, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) throw std::runtime_error("no connection");
  const std::string text = fmt::format(
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{}", body.size(), body);
  for (std::size_t sent = 0; sent < text.size();)
    sent += static_cast<std::size_t>(::send(wire, text.data() + sent, text.size() - sent, 0));
  char buffer[1 << 16];
  for (ssize_t got; (got = ::recv(wire, buffer, sizeof buffer, 0)) > 0;) {
    const std::string_view some(buffer, static_cast<std::size_t>(got));
    for (auto at = some.find("data: {"); at != std::string_view::npos; at = some.find("data: {", at + 1))
      result.arrivals.push_back(Clock::now());
  }
  ::close(wire);
  return result;
}

json body_of(const Model& model, std::int64_t client, bool steered, std::int64_t tokens = kTokens) {
  json body{{"prompt", prompt_of(model, client)},
            {"max_tokens", tokens},
            {"temperature", 0},
            {"stream", true},
            {"ignore_eos", true}};
  const at::Tensor vector = vector_of(model, client);
  if (steered)
    body["steering"] = {
        {"vector", std::vector<float>(vector.const_data_ptr<float>(), vector.const_data_ptr<float>() + vector.numel())},
        {"point", point_of(model, client)},
        {"strength", 0.1}};
  return body;
}

double seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

struct Served {
  double whole = 0;   ///< tokens a second from the first request to the last answer's end
  double steady = 0;  ///< between the last row's first token and the first row's last one: all rows are in each step
};

Served over_http(const Model& model, bool steered, std::int64_t tokens = kTokens) {
  const Server server(model, {.port = 0, .engine = {.max_rows = kClients}});
  std::vector<std::string> bodies;
  for (std::int64_t c = 0; c < kClients; ++c) bodies.push_back(body_of(model, c, steered, tokens).dump());
  std::vector<Streamed> streams(bodies.size());
  std::vector<std::thread> clients;
  const auto start = Clock::now();
  for (std::size_t c = 0; c < bodies.size(); ++c)
    clients.emplace_back([&, c] { streams[c] = stream(server.port(), bodies[c]); });
  for (auto& client : clients) client.join();
  Served served{.whole = static_cast<double>(kClients * tokens) / since(start)};
  Clock::time_point begin{}, end = Clock::time_point::max();
  for (const Streamed& one : streams) {
    if (std::ssize(one.arrivals) < tokens) throw std::runtime_error("an answer was cut off");
    begin = std::max(begin, one.arrivals.front());
    end = std::min(end, one.arrivals[static_cast<std::size_t>(tokens) - 1]);
  }
  std::int64_t between = 0;
  for (const Streamed& one : streams)
    between += std::ranges::count_if(one.arrivals, [&](auto at) { return at > begin && at <= end; });
  served.steady = static_cast<double>(between) / seconds(begin, end);
  return served;
}

/// What steering costs over HTTP: runs in the order steered, plain, plain, steered, so that a machine that slows down
/// evenly counts for nothing; a ratio of each four.
void cost_of_steering(const Model& model, int fours) {
  std::vector<double> whole, steady;
  for (int i = 0; i < fours; ++i) {
    double all[2] = {0, 0}, between[2] = {0, 0};
    for (const bool steered : {true, false, false, true}) {
      const Served served = over_http(model, steered, kShort);
      all[steered] += 1 / served.whole;
      between[steered] += 1 / served.steady;
    }
    whole.push_back(all[1] / all[0]);
    steady.push_back(between[1] / between[0]);
  }
  const auto show = [](const std::vector<double>& ratios) {
    const Summary mean = summarize(ratios);
    const Interval within = mean_interval(mean);
    return fmt::format("{}, mean {:.4f} [{:.4f}, {:.4f}]", spread(ratios), mean.mean, within.low, within.high);
  };
  fmt::print(
      "unsteered / steered over HTTP, {} fours of runs of {} tokens a row, mean with its 95 % interval: with all "
      "rows in {}; from the first request to the last answer's end {}\n",
      fours, kShort, show(steady), show(whole));
}

/// Newcomers' first tokens while all others generate. They come at random times, so they find a step half done in the
/// mean; their own step computes their prompt beside the others' tokens.
void first_tokens(const Model& model) {
  const Server server(model, {.port = 0, .engine = {.max_rows = kClients + 1}});
  std::vector<std::thread> clients;
  std::vector<Streamed> streams(kClients - 1);
  for (std::int64_t c = 0; c + 1 < kClients; ++c)
    clients.emplace_back([&, c] {
      json body = body_of(model, c, true);
      body["max_tokens"] = 240;
      streams[static_cast<std::size_t>(c)] = stream(server.port(), body.dump());
    });
  std::this_thread::sleep_for(std::chrono::seconds(6));  // all of them have begun
  Rng rng(7);
  std::vector<Streamed> newcomers;
  for (std::int64_t i = 0; i < kNewcomers; ++i) {
    json body = body_of(model, 500 + i, true);
    body["max_tokens"] = 1;
    const std::string text = body.dump();
    std::this_thread::sleep_for(std::chrono::duration<double>(rng.uniform()));
    newcomers.push_back(stream(server.port(), text));
    if (newcomers.back().arrivals.empty()) throw std::runtime_error("a newcomer had no answer");
  }
  for (auto& client : clients) client.join();
  std::vector<double> steps, waits, rests;
  std::int64_t at_once = 0;
  for (const auto& one : streams)
    for (std::size_t i = 1; i < one.arrivals.size(); ++i)
      steps.push_back(seconds(one.arrivals[i - 1], one.arrivals[i]));
  const double step = quantile(steps, .5);
  for (const auto& newcomer : newcomers) {
    const auto& other = streams.front().arrivals;  // has a token at the end of each step
    const auto next = std::ranges::upper_bound(other, newcomer.asked);
    const auto end = std::ranges::upper_bound(other, newcomer.arrivals.front());
    if (end == other.end()) continue;  // the others were done
    waits.push_back(seconds(newcomer.asked, newcomer.arrivals.front()) / step);
    rests.push_back(seconds(newcomer.asked, *next) / step);
    at_once += end - next <= 2;
  }
  fmt::print(
      "a step of {} rows: {:.1f} ms; a newcomer's first token, in steps: {}, of which until the step that ran "
      "had ended: {}; {} of {} were in the step after it\n",
      kClients - 1, 1000 * step, spread(waits), spread(rests), at_once, waits.size());
}

double resident_mib() {
  std::ifstream file("/proc/self/statm");
  std::int64_t size = 0, resident = 0;
  file >> size >> resident;
  return static_cast<double>(resident * ::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

}  // namespace

int main(int argc, char** argv) {
  const char* folder = std::getenv("STEER_BENCH_MODEL");
  if (!folder) return fmt::print(stderr, "set STEER_BENCH_MODEL to a model's folder\n"), 2;
  const auto model = Model::load(folder);
  std::vector<double> http, speed;
  const int pairs = std::max(argc > 1 ? std::atoi(argv[1]) : 6, 2);
  for (int pair = 0; pair < pairs; ++pair) {
    const bool first = pair % 2 == 0;  // each of the two is first equally often
    double direct = first ? in_process(model, true) : 0;
    speed.push_back(over_http(model, true).whole);
    if (!first) direct = in_process(model, true);
    http.push_back(speed.back() / direct);
    fmt::print("round {}: {:.1f} tokens/s over HTTP, {:.3f} of in process\n", pair + 1, speed.back(), http.back());
    std::fflush(stdout);
  }
  fmt::print("{} clients, {} prompt and {} new tokens each, each steered in its own way: {} tokens/s\n", kClients,
             kPrompt, kTokens, spread(speed));
  fmt::print("HTTP / in process: {}\n", spread(http));
  cost_of_steering(model, 2 * pairs);
  first_tokens(model);

  const Server server(model, {.port = 0});
  json body = body_of(model, 0, true);
  body["max_tokens"] = 2;
  for (int i = 0; i <= 3250; ++i) {
    // Until then kept prompts fill their places.
    if (i == 250 || i == 1250 || i == 3250) fmt::print("resident after {} requests: {:.1f} MiB\n", i, resident_mib());
    body["prompt"] = prompt_of(model, i);
    stream(server.port(), body.dump());
  }
}
