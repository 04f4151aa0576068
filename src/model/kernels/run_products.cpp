// Products shared among threads: x packed as the kernels take it, then pieces of the weights' rows.
#include "model/kernels/run_products.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/crew.hpp"

namespace steer::model::detail {

float* thread_scratch() {
  struct alignas(64) Buffer {
    float floats[kScratchFloats];
  };
  static thread_local const auto buffer = std::make_unique<Buffer>();
  return buffer->floats;
}

namespace {

// Rows [begin, end) of one weight.
struct Piece {
  const ProductArgs* args;
  std::int64_t begin, end;
};

// At least `count` floats, aligned to a line of cache: a vector that lies across two is read twice.
float* thread_packed(std::int64_t count) {
  constexpr std::size_t kLine = 64;
  static thread_local std::vector<float> buffer;
  buffer.resize(std::max(buffer.size(), static_cast<std::size_t>(count) + kLine / sizeof(float)));
  return buffer.data() + -reinterpret_cast<std::uintptr_t>(buffer.data()) % kLine / sizeof(float);
}

// Rows of W a thread takes at once: few enough that the threads end together even when one of them shares its core, and
// many, because a thread has the rows behind its own fetched, which another takes. A multiple of every instruction
// set's tiles, and of the kernels' blocks.
std::int64_t piece_rows(const ProductArgs& a, std::int64_t all_rows) {
  constexpr std::int64_t kBytes = 384 << 10, kPieces = 8;
  const std::int64_t block = a.m <= 4 ? 24 : 48;
  const std::int64_t rows =
      std::min(kBytes / std::max<std::int64_t>(1, a.weight.row_bytes), all_rows / (kPieces * threads()));
  return std::max(block, rows / block * block);
}

void run(std::span<const ProductArgs> products) {
  constexpr std::int64_t kWorthThreads = 1 << 14;  // multiply-adds below which a second thread costs more than it saves
  const KernelTable& table = kernels();
  std::int64_t work = 0, rows = 0;
  for (const auto& a : products) {
    work += a.m * a.weight.n * a.weight.k;
    rows += a.weight.n;
  }
  if (work < kWorthThreads || threads() == 1) {
    for (const auto& a : products) table.product(a, 0, a.weight.n, thread_scratch());
    return;
  }
  std::vector<Piece> pieces;
  for (const auto& a : products) {
    const std::int64_t step = piece_rows(a, rows);
    for (std::int64_t n = 0; n < a.weight.n; n += step) pieces.push_back({&a, n, std::min(a.weight.n, n + step)});
  }
  core::detail::run_pieces(static_cast<std::int64_t>(pieces.size()), [&](std::int64_t i) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    table.product(*piece.args, piece.begin, piece.end, thread_scratch());
  });
}

bool same_x(const ProductArgs& a, const ProductArgs& b) { return a.x == b.x && a.m == b.m && a.weight.k == b.weight.k; }

// Gives the products their x as the kernels take it, in memory of the calling thread. Those of the same x stand one
// after another.
void pack(std::span<ProductArgs> products) {
  constexpr std::int64_t kWorthThreads = 1 << 16, kColumns = 256;  // numbers; of k that a thread packs at once
  const auto length = [](std::int64_t k) { return (k + kPackedGroup - 1) / kPackedGroup * kPackedGroup; };
  const auto is_packed = [&](const ProductArgs& a) {
    return a.m == 1 && a.weight.k == length(a.weight.k) && a.rounding == Rounding::none;
  };
  std::vector<ProductArgs*> firsts;  // of each x
  std::int64_t size = 0;
  for (std::size_t i = 0; i < products.size(); ++i)
    if ((i == 0 || !same_x(products[i], products[i - 1])) && !is_packed(products[i])) {
      firsts.push_back(&products[i]);
      size += products[i].m * length(products[i].weight.k);
    }
  struct Columns {
    const ProductArgs* args;
    float* to;
    std::int64_t begin, end;
  };
  std::vector<Columns> work;
  float* to = thread_packed(size);
  for (auto* a : firsts) {
    const std::int64_t k = a->weight.k, step = size < kWorthThreads ? k : kColumns;
    for (std::int64_t begin = 0; begin < k; begin += step) work.push_back({a, to, begin, std::min(begin + step, k)});
    a->packed = to;
    to += a->m * length(k);
  }
  const auto columns = [&](std::int64_t i) {
    const Columns& of = work[static_cast<std::size_t>(i)];
    kernels().pack_rows(*of.args, of.begin, of.end, of.to);
  };
  if (size < kWorthThreads)
    for (std::int64_t i = 0; i < std::ssize(work); ++i) columns(i);
  else
    core::detail::run_pieces(std::ssize(work), columns);
  for (std::size_t i = 0; i < products.size(); ++i) {
    auto& a = products[i];
    if (a.packed == nullptr) a.packed = i > 0 && same_x(a, products[i - 1]) ? products[i - 1].packed : a.x;
  }
}

/// Weights so small that each thread's near cache holds them, and x of many rows: then threads share the rows of x and
/// not those of W. What a thread computed of a row it finds near when the next operation asks for it.
bool many_rows_of_small_weights(std::span<const ProductArgs> products) {
  constexpr std::int64_t kBytes = 512 << 10, kManyRows = 64;
  std::int64_t bytes = 0;
  for (const auto& a : products) bytes += a.weight.n * a.weight.row_bytes;
  return threads() > 1 && bytes <= kBytes && products.front().m >= kManyRows &&
         std::ranges::all_of(products, [&](const auto& a) { return same_x(a, products.front()); });
}

void run_rows(std::span<const ProductArgs> products) {
  constexpr std::int64_t kPanel = 4, kLeast = 32, kPieces = 4;
  const std::int64_t all = products.front().m, k = products.front().weight.k,
                     even = (all / (kPieces * threads()) + kPanel - 1) / kPanel * kPanel, step = std::max(kLeast, even);
  core::detail::run_pieces((all + step - 1) / step, [&](std::int64_t i) {
    const std::int64_t first = i * step, rows = std::min(step, all - first);
    float* const packed = thread_packed(rows * (k + kPackedGroup));
    for (const auto& product : products) {
      ProductArgs a = product;
      a.x += first * a.ldx;
      a.y += first * a.ldy;
      a.m = rows;
      if (&product == products.data()) kernels().pack_rows(a, 0, k, packed);
      a.packed = packed;
      kernels().product(a, 0, a.weight.n, thread_scratch());
    }
  });
}

}  // namespace

void run_products(std::span<const ProductArgs> products) {
  constexpr std::int64_t kRows = 256;
  std::vector<ProductArgs> now;
  std::int64_t held = 0;
  const auto flush = [&] {
    if (many_rows_of_small_weights(now)) {
      run_rows(now);
    } else {
      pack(now);
      run(now);
    }
    now.clear();
    held = 0;
  };
  for (std::size_t begin = 0, end = 0; begin < products.size(); begin = end) {
    while (end < products.size() && same_x(products[end], products[begin])) ++end;
    for (std::int64_t first = 0, all = products[begin].m; first < all; first += kRows) {
      const std::int64_t rows = std::min(kRows, all - first);
      if (held + rows > kRows && held > 0) flush();
      held += rows;
      for (std::size_t i = begin; i < end; ++i) {
        ProductArgs a = products[i];
        a.x += first * a.ldx;
        a.y += first * a.ldy;
        a.m = rows;
        now.push_back(a);
      }
    }
  }
  if (held > 0) flush();
}

}  // namespace steer::model::detail
