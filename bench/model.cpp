// Runs a model on request, one repetition a line, so that bench/peers/run_pairs.py can alternate it with the same work
// in another library.
//
//   bench/model PATH [stored|f32|bf16|int8] [THREADS] [f32|bf16|int8] [f32|bf16|f16]
//
// PATH: a Hugging Face folder or a GGUF file; then how weights are kept, how activations are rounded, how keys and
// values are kept. STEER_ISA = portable | avx2 | avxvnni | avx512 holds products to that instruction set. It
//
// writes one JSON line when the model is loaded, then reads lines and answers each with one JSON line:
//   decode ROWS TOKENS [CONTEXT]  greedy steps of ROWS sequences after a prompt of CONTEXT (8) tokens: seconds, tokens
//   prefill TOKENS        a prompt computed at once, logits of its last token: seconds, tokens
//   together N WORK       `decode` or `prefill` in N sessions at once, each on a thread of its own: seconds of the
//                         slowest, tokens of all
//   unhooked TOKENS       decode 1 TOKENS in a session that had a hook on every layer and lost it
//   hooked TOKENS         the same with a hook that does nothing on every layer's output
//   limits                read bandwidth and GEMM speed of this machine now
//   quit
// With the word `first` as the last argument it computes one token of an 8-token prompt, prints it and exits.

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/core/threads.hpp>
#include <steer/model/model.hpp>
#include <steer/model/session.hpp>

#include "limits.hpp"
#include "model/kernels/table.hpp"

namespace {

using namespace steer;

std::vector<std::int64_t> prompt_of(const Model& model, std::int64_t length, std::int64_t row) {
  std::vector<std::int64_t> ids(static_cast<std::size_t>(length));
  for (std::int64_t i = 0; i < length; ++i) {
    ids[static_cast<std::size_t>(i)] =
        (17 + 31 * i + 101 * row) % std::min<std::int64_t>(model.config().vocab_size, 30000);
  }
  return ids;
}

/// The likeliest token of row `row` of logits [rows, vocab]. (libtorch's argmax would leave OpenMP threads that spin on
/// the cores the next step needs.)
std::int64_t likeliest(const at::Tensor& logits, std::int64_t row) {
  const float* first = logits.const_data_ptr<float>() + row * logits.size(1);
  return std::max_element(first, first + logits.size(1)) - first;
}

/// Seconds for `tokens` greedy steps of `rows` sequences; the prompts are not counted.
double decode(Session& session, std::int64_t rows, std::int64_t tokens, std::int64_t context) {
  std::vector<SequenceId> sequences;
  std::vector<std::vector<std::int64_t>> last;
  for (std::int64_t row = 0; row < rows; ++row) {
    sequences.push_back(session.open());
    const auto ids = prompt_of(session.model(), context, row);
    const at::Tensor logits = session.step({{sequences.back(), ids}});
    last.push_back({likeliest(logits, 0)});
  }
  const double elapsed = bench::seconds([&] {
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::vector<StepInput> inputs;
      for (std::size_t row = 0; row < sequences.size(); ++row)
        inputs.push_back({sequences[row], last[row], Phase::generated});
      const at::Tensor logits = session.step(inputs);
      for (std::size_t row = 0; row < sequences.size(); ++row)
        last[row] = {likeliest(logits, static_cast<std::int64_t>(row))};
    }
  });
  for (auto sequence : sequences) session.close(sequence);
  return elapsed;
}

std::int64_t resident_kilobytes(const char* field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field, 0) == 0) return std::atoll(line.c_str() + std::string(field).size() + 1);
  }
  return 0;
}

struct Work {
  double seconds;
  std::int64_t tokens;
};

/// `decode` or `prefill` in one session.
Work run(Session& session, const std::string& line) {
  std::istringstream words(line);
  std::string work;
  std::int64_t first = 1, tokens = 0, context = 8;
  words >> work >> first;
  if (work == "decode") {
    words >> tokens;
    if (!(words >> context)) context = 8;
    return {decode(session, first, tokens, context), first * tokens};
  }
  require(work == "prefill", ErrorCode::argument, "bench",
          "expected decode, prefill, together, hooked, unhooked, limits or quit but got \"{}\"", work);
  const auto ids = prompt_of(session.model(), first, 0);
  const auto sequence = session.open();
  const double elapsed = bench::seconds([&] { session.step({{sequence, ids}}).argmax(-1).item<std::int64_t>(); });
  session.close(sequence);
  return {elapsed, first};
}

/// The same in several sessions, each on a thread of its own.
Work run_together(const Model& model, const SessionOptions& options, std::int64_t sessions, const std::string& line) {
  std::vector<std::thread> threads;
  std::atomic<std::int64_t> tokens{0};
  std::atomic<double> slowest{0};
  std::barrier begin(sessions);
  for (std::int64_t i = 0; i < sessions; ++i)
    threads.emplace_back([&] {
      Session own(model, options);
      run(own, "decode 1 1");
      begin.arrive_and_wait();
      const Work work = run(own, line);
      tokens += work.tokens;
      for (double was = slowest; was < work.seconds && !slowest.compare_exchange_weak(was, work.seconds);) continue;
    });
  for (auto& thread : threads) thread.join();
  return {slowest, tokens};
}

/// decode 1 `tokens` in a session with a hook on every layer, or one that lost them.
Work run_hooked(const Model& model, std::int64_t tokens, bool keep) {
  Session own(model);
  std::vector<HookHandle> handles;
  for (std::int64_t layer = 0; layer < model.config().n_layers; ++layer)
    handles.push_back(own.hook(HookPoint{Site::resid_post, layer}, [](HookContext&) {}));
  if (!keep) handles.clear();
  return {decode(own, 1, tokens, 8), tokens};
}

std::string answer(const Model& model, const SessionOptions& options, Session& session, const std::string& line) {
  std::istringstream words(line);
  std::string kind, rest;
  words >> kind;
  std::getline(words >> std::ws, rest);
  if (kind == "limits")
    return fmt::format(R"({{"read_bytes": {}, "gemm_flops": {}, "gemm_bf16_flops": {}}})", bench::measure_read_limit(3),
                       bench::measure_gemm_limit(6), bench::measure_gemm_limit(6, at::kBFloat16));
  Work work{};
  if (kind == "together") {
    const auto space = rest.find(' ');
    work = run_together(model, options, std::stoi(rest), space == std::string::npos ? "" : rest.substr(space + 1));
  } else if (kind == "hooked" || kind == "unhooked") {
    work = run_hooked(model, std::stoi(rest), kind == "hooked");
  } else {
    work = run(session, line);
  }
  return fmt::format(R"({{"seconds": {}, "tokens": {}}})", work.seconds, work.tokens);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool first = !arguments.empty() && arguments.back() == "first";
  if (first) arguments.pop_back();
  if (arguments.empty()) {
    fmt::print(stderr,
               "usage: bench/model PATH [stored|f32|bf16|int8] [THREADS] [f32|bf16|int8] [f32|bf16|f16] [first]\n");
    return 2;
  }
  try {
    LoadOptions options;
    SessionOptions session_options;
    if (arguments.size() > 1) options.weights = parse_enum<WeightFormat>(arguments[1], "bench");
    if (arguments.size() > 3) options.compute = parse_enum<ComputeFormat>(arguments[3], "bench");
    if (arguments.size() > 4) session_options.cache = parse_enum<CacheFormat>(arguments[4], "bench");
    set_threads(arguments.size() > 2 ? std::stoi(arguments[2]) : 0);
    Model model = Model::load(arguments[0], options);
    Session session(model, session_options);
    if (first) {
      const auto ids = prompt_of(model, 8, 0);
      const auto id = session.step({{session.open(), ids}}).argmax(-1).item<std::int64_t>();
      fmt::print("{{\"token\": {}, \"peak_kb\": {}}}\n", id, resident_kilobytes("VmHWM"));
      return 0;
    }
    fmt::print("{{\"library\": \"steer\", \"threads\": {}, \"weight_bytes\": {}, \"isa\": \"{}\"}}\n", threads(),
               model.weight_bytes(), model::detail::kernels().name);
    std::fflush(stdout);
    for (std::string line; std::getline(std::cin, line) && line != "quit";) {
      fmt::print("{}\n", answer(model, session_options, session, line));
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
