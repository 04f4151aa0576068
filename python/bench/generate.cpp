// What Python's `generate` is measured against: the same call from C++, one a line, so that peers.py can alternate
// them.
//
//   python/bench/generate FOLDER THREADS
//
// writes one line when the model is loaded, then answers each line `ROWS TOKENS ID...` (the prompt of every row) with
// the seconds that generating took and the ids of the first row.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include <steer/core/error.hpp>
#include <steer/core/threads.hpp>
#include <steer/generate/generate.hpp>

int main(int count, char** given) try {
  if (count != 3) {
    fmt::print(stderr, "usage: generate FOLDER THREADS\n");
    return 2;
  }
  steer::set_threads(std::stoi(given[2]));
  const auto model = steer::Model::load(given[1]);
  fmt::print("{{}}\n");
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::int64_t rows = 0, tokens = 0;
    words >> rows >> tokens;
    steer::GenerateRequest request;
    for (std::int64_t id = 0; words >> id;) request.ids.push_back(id);
    const std::vector<steer::GenerateRequest> requests(static_cast<std::size_t>(rows), request);
    const auto start = std::chrono::steady_clock::now();
    const auto results = steer::generate(model, requests, {.max_tokens = tokens, .ignore_eos = true});
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    fmt::print("{{\"seconds\": {}, \"ids\": [{}]}}\n", took.count(), fmt::join(results.front().ids, ", "));
    std::fflush(stdout);
  }
  return 0;
} catch (const std::exception& error) {
  fmt::print(stderr, "{}\n", error.what());
  return 1;
}
