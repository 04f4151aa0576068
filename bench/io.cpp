// How fast weights come from disk and out of quantised blocks, against the machine's own limits in the same run:
//   bench/io                            a line for each figure
//   STEER_BENCH_IO_MIB=256 bench/io     with a smaller file, and less to unpack, than 1 GiB
// The file is in the page cache for both sides, so the ratio shows what the reader costs, not the disk.
// Ratios: open_tensors and sum every tensor, over mmap and sum of the same bytes; dequantised bytes a second, over the
// rate at which all cores fill the same memory. Each ratio is the median of pairs that alternate, so that another
// program's load falls on both.
#include <steer/core/threads.hpp>
#include <steer/io/safetensors_writer.hpp>
#include <steer/io/tensor_reader.hpp>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "io/dequantize.hpp"

namespace {

using Clock = std::chrono::steady_clock;

double seconds(auto&& action) {
  const auto start = Clock::now();
  action();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// The same loop for both sides: every byte is read once.
std::uint64_t sum(const void* data, std::size_t bytes) {
  const auto* words = static_cast<const std::uint64_t*>(data);
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < bytes / 8; ++i) total += words[i];
  return total;
}

constexpr int kPairs = 9;

struct Pair {
  double ours, limit;  // seconds
};

void print(std::string_view what, std::vector<Pair> pairs, double bytes) {
  std::vector<double> ratios, ours;
  for (const auto& pair : pairs) {
    ratios.push_back(pair.limit / pair.ours);
    ours.push_back(pair.ours);
  }
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  fmt::print("{:<34} {:6.2f} x  ({:.2f} to {:.2f}, {} pairs)  {:6.2f} GB/s\n", what, median(ratios), *low, *high,
             pairs.size(), bytes / median(ours) / 1e9);
}

void bench_safetensors(std::int64_t mib) {
  const auto path = std::filesystem::temp_directory_path() / fmt::format("steer-bench-{}.safetensors", ::getpid());
  {
    std::vector<steer::TensorSpec> specs;
    for (std::int64_t i = 0; i < mib / 16; ++i)
      specs.push_back({fmt::format("layers.{}.w", i), at::kFloat, {1024, 4096}});
    steer::SafetensorsWriter writer(path, specs);
    const auto tensor = at::randn({1024, 4096});
    for (const auto& spec : specs) writer.write(spec.name, tensor);
    writer.finish();
  }
  const auto size = std::filesystem::file_size(path);
  const auto ours = [&] {
    const auto reader = steer::open_tensors(path);
    for (const auto& info : reader->tensors()) {
      const auto tensor = reader->read(info.name);
      benchmark::DoNotOptimize(sum(tensor.const_data_ptr(), tensor.nbytes()));
    }
  };
  const auto plain = [&] {
    const int fd = ::open(path.c_str(), O_RDONLY);
    void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    ::close(fd);
    benchmark::DoNotOptimize(sum(data, size));
    ::munmap(data, size);
  };
  ours(), plain();
  std::vector<Pair> pairs;
  for (int i = 0; i < kPairs; ++i) {
    const double first = seconds(ours);
    pairs.push_back({first, seconds(plain)});
  }
  print(fmt::format("safetensors, {} MiB, warm", mib), pairs, static_cast<double>(size));
  std::vector<double> opens;
  for (int i = 0; i < 20; ++i) opens.push_back(seconds([&] { steer::open_tensors(path); }));
  fmt::print("{:<34} {:.2f} ms\n", "  open alone", median(opens) * 1e3);
  std::filesystem::remove(path);
}

void bench_dequantisation(std::string_view name, std::int64_t mib) {
  const auto& type = *steer::io::detail::find_ggml_type(name);
  const std::int64_t values = mib << 18;  // f32
  const auto blocks = values / type.block_values;
  const auto data = at::randint(0, 60, {blocks * type.block_bytes}, at::kByte);  // no infinite scales
  auto out = at::empty({values}, at::kFloat);
  auto* target = out.mutable_data_ptr<float>();
  const auto ours = [&] {
    steer::io::detail::dequantize(type, static_cast<const std::byte*>(data.const_data_ptr()), blocks, target);
  };
  const auto fill = [&] {
    at::parallel_for(0, values, 1 << 16,
                     [&](std::int64_t begin, std::int64_t end) { std::fill(target + begin, target + end, 1.5f); });
  };
  ours(), fill();
  std::vector<Pair> pairs;
  for (int i = 0; i < kPairs; ++i) {
    const double first = seconds(ours);
    pairs.push_back({first, seconds(fill)});
  }
  print(fmt::format("dequantise {}", name), pairs, static_cast<double>(values) * 4);
}

}  // namespace

int main() {
  steer::set_threads(0);
  const char* given = std::getenv("STEER_BENCH_IO_MIB");
  const std::int64_t mib = std::max(16, given ? std::atoi(given) : 1024);
  fmt::print("{} threads; ratio to the machine's limit (spread), rate\n", steer::threads());
  bench_safetensors(mib);
  for (const auto* name :
       {"Q8_0", "Q4_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"})
    bench_dequantisation(name, mib);
}
