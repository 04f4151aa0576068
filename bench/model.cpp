// Runs a model on request, one repetition a line, so that bench/peers/run_pairs.py can alternate it with the same work
// in another library.
//
//   bench/model PATH [stored|f32|bf16|int8] [THREADS]     PATH: a Hugging Face folder or a GGUF file
//
// writes one JSON line when the model is loaded, then reads lines and answers each with one JSON line:
//   decode ROWS TOKENS [CONTEXT]  greedy steps of ROWS sequences after a prompt of CONTEXT (8) tokens: seconds, tokens
//   prefill TOKENS        a prompt computed at once, logits of its last token: seconds, tokens
//   invariant WORK        `decode` or `prefill` with SessionOptions::batch_invariant
//   unhooked TOKENS       decode 1 TOKENS in a session that had a hook on every layer and lost it
//   hooked TOKENS         the same with a hook that does nothing on every layer's output
//   limits                read bandwidth and GEMM speed of this machine now
//   quit
// With the word `first` as the last argument it computes one token of an 8-token prompt, prints it and exits.

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/core/threads.hpp>
#include <steer/model/model.hpp>
#include <steer/model/session.hpp>

#include "limits.hpp"

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

/// Seconds for `tokens` greedy steps of `rows` sequences; the prompts are not counted.
double decode(Session& session, std::int64_t rows, std::int64_t tokens, std::int64_t context) {
  std::vector<SequenceId> sequences;
  std::vector<std::vector<std::int64_t>> last;
  for (std::int64_t row = 0; row < rows; ++row) {
    sequences.push_back(session.open());
    const auto ids = prompt_of(session.model(), context, row);
    const at::Tensor logits = session.step({{sequences.back(), ids}});
    last.push_back({logits.argmax(-1).item<std::int64_t>()});
  }
  const double elapsed = bench::seconds([&] {
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::vector<StepInput> inputs;
      for (std::size_t row = 0; row < sequences.size(); ++row)
        inputs.push_back({sequences[row], last[row], Phase::generated});
      const at::Tensor next = session.step(inputs).argmax(-1);
      for (std::size_t row = 0; row < sequences.size(); ++row) last[row] = {next.const_data_ptr<std::int64_t>()[row]};
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

std::string answer(const Model& model, Session& fast, Session& invariant, const std::string& line) {
  std::istringstream words(line);
  std::string work;
  std::int64_t a = 1, b = 0, c = 8;
  words >> work;
  Session& session = work == "invariant" ? invariant : fast;
  if (work == "invariant") words >> work;
  words >> a;
  if (work == "decode") {
    words >> b;
    if (!(words >> c)) c = 8;
    return fmt::format(R"({{"seconds": {}, "tokens": {}}})", decode(session, a, b, c), a * b);
  }
  if (work == "prefill") {
    const auto ids = prompt_of(model, a, 0);
    const auto sequence = session.open();
    const double elapsed = bench::seconds([&] { session.step({{sequence, ids}}).argmax(-1).item<std::int64_t>(); });
    session.close(sequence);
    return fmt::format(R"({{"seconds": {}, "tokens": {}}})", elapsed, a);
  }
  if (work == "hooked" || work == "unhooked") {
    Session own(model);
    std::vector<HookHandle> handles;
    for (std::int64_t layer = 0; layer < model.config().n_layers; ++layer) {
      handles.push_back(own.hook(HookPoint{Site::resid_post, layer}, [](HookContext&) {}));
    }
    if (work == "unhooked") handles.clear();
    return fmt::format(R"({{"seconds": {}, "tokens": {}}})", decode(own, 1, a, 8), a);
  }
  if (work == "limits") {
    return fmt::format(R"({{"read_bytes": {}, "gemm_flops": {}}})", bench::measure_read_limit(4),
                       bench::measure_gemm_limit(6));
  }
  fail(ErrorCode::argument, "bench", "expected decode, prefill, hooked, unhooked, limits or quit but got \"{}\"", work);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool first = !arguments.empty() && arguments.back() == "first";
  if (first) arguments.pop_back();
  if (arguments.empty()) {
    fmt::print(stderr, "usage: bench/model PATH [stored|f32|bf16|int8] [THREADS] [first]\n");
    return 2;
  }
  try {
    LoadOptions options;
    if (arguments.size() > 1) options.weights = parse_enum<WeightFormat>(arguments[1], "bench");
    set_threads(arguments.size() > 2 ? std::stoi(arguments[2]) : 0);
    Model model = Model::load(arguments[0], options);
    Session session(model);
    if (first) {
      const auto ids = prompt_of(model, 8, 0);
      const auto id = session.step({{session.open(), ids}}).argmax(-1).item<std::int64_t>();
      fmt::print("{{\"token\": {}, \"peak_kb\": {}}}\n", id, resident_kilobytes("VmHWM"));
      return 0;
    }
    Session invariant(model, {.batch_invariant = true});
    fmt::print("{{\"library\": \"steer\", \"threads\": {}, \"weight_bytes\": {}}}\n", threads(), model.weight_bytes());
    std::fflush(stdout);
    for (std::string line; std::getline(std::cin, line) && line != "quit";) {
      fmt::print("{}\n", answer(model, session, invariant, line));
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}
