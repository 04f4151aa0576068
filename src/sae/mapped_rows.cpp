#include "sae/mapped_rows.hpp"

#include <ATen/ops/empty.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <string>

namespace steer::sae::detail {
namespace {

/// What the kernel maps around one page that is touched, by default.
constexpr std::int64_t kFaultAround = 64 << 10;
constexpr std::int64_t kMostResident = 512 << 10;

struct Range {
  std::uintptr_t begin = 0, end = 0;
};

/// The bytes a strided matrix spans.
Range span_of(const at::Tensor& m) {
  const auto begin = reinterpret_cast<std::uintptr_t>(m.const_data_ptr());
  const auto last = (m.size(0) - 1) * m.stride(0) + (m.size(1) - 1) * m.stride(1);
  return {begin, begin + static_cast<std::uintptr_t>((last + 1) * m.element_size())};
}

/// Whether the kernel says that the range is one read-only mapping of a file: only then is dropping its pages harmless.
bool is_read_only_file(const Range& range) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0, end = 0, offset = 0, inode = 0;
    char permissions[8] = {}, device[16] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %7s %lx %15s %lu", &begin, &end, permissions, &offset, device, &inode) != 6)
      continue;
    if (range.begin >= begin && range.end <= end) return permissions[0] == 'r' && permissions[1] == '-' && inode != 0;
  }
  return false;
}

/// Takes whole pages inside the range out of this process; the file stays in the system's cache.
void release(const Range& range) {
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = (range.begin + page - 1) / page * page, end = range.end / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace

at::Tensor gather_rows(const at::Tensor& matrix, const at::Tensor& indices) {
  const auto whole = [&] { return matrix.index_select(0, indices).to(at::kFloat).contiguous(); };
  if (!matrix.is_cpu() || matrix.numel() == 0 || matrix.nbytes() < static_cast<std::size_t>(kMostResident))
    return whole();
  const auto range = span_of(matrix);
  if (!is_read_only_file(range)) return whole();
  const auto rows = indices.size(0), width = matrix.size(1);
  auto out = at::empty({rows, width}, at::kFloat);
  const bool features_are_rows = matrix.stride(1) == 1;
  // One touch of a row stored in one piece brings in that piece; one touch of a column, a number.
  const auto touch =
      features_are_rows ? width * static_cast<std::int64_t>(matrix.element_size()) + kFaultAround : rows * kFaultAround;
  const auto block = std::max<std::int64_t>(1, kMostResident / touch);
  const auto along = features_are_rows ? rows : width;
  for (std::int64_t begin = 0; begin < along; begin += block) {
    const auto count = std::min(block, along - begin);
    if (features_are_rows)
      out.narrow(0, begin, count).copy_(matrix.index_select(0, indices.narrow(0, begin, count)));
    else
      out.narrow(1, begin, count).copy_(matrix.narrow(1, begin, count).index_select(0, indices));
    release(range);
  }
  return out;
}

}  // namespace steer::sae::detail
