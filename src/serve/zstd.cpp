#include "serve/zstd.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include <xxhash.h>
#include <steer/core/error.hpp>

// Names and numbers of sections are those of RFC 8878.
namespace steer::serve::detail {
namespace {

constexpr std::string_view kWhere = "Server";
constexpr std::uint32_t kMagic = 0xFD2FB528;
constexpr std::size_t kMostBlock = 128 << 10;

void check(bool holds, std::string_view what) {
  require(holds, ErrorCode::format, kWhere, "expected a Zstandard frame but {}", what);
}

int log2_of(std::uint64_t value) { return std::bit_width(value) - 1; }

/// Bytes from front to back.
class Bytes {
 public:
  explicit Bytes(std::string_view data) : data_(data) {}
  std::size_t left() const { return data_.size(); }
  std::string_view take(std::size_t count) {
    check(count <= data_.size(), "it is cut off");
    const auto taken = data_.substr(0, count);
    data_.remove_prefix(count);
    return taken;
  }
  /// Little-endian.
  std::uint64_t number(std::size_t size) {
    std::uint64_t value = 0;
    const auto bytes = take(size);
    for (std::size_t i = 0; i < size; ++i) value |= std::uint64_t{static_cast<std::uint8_t>(bytes[i])} << (8 * i);
    return value;
  }

 private:
  std::string_view data_;
};

/// Bits from the lowest of the first byte on.
class ForwardBits {
 public:
  explicit ForwardBits(std::string_view data) : data_(data) {}
  std::uint32_t peek(int count) const {
    std::uint32_t value = 0;
    for (int i = 0; i < count; ++i) value |= bit(at_ + static_cast<std::size_t>(i)) << i;
    return value;
  }
  void skip(int count) {
    at_ += static_cast<std::size_t>(count);
    check(at_ <= 8 * data_.size(), "a table of it is cut off");
  }
  std::uint32_t read(int count) {
    const auto value = peek(count);
    skip(count);
    return value;
  }
  std::size_t bytes() const { return (at_ + 7) / 8; }

 private:
  std::uint32_t bit(std::size_t at) const {
    return at / 8 < data_.size() ? static_cast<std::uint8_t>(data_[at / 8]) >> (at % 8) & 1U : 0U;
  }
  std::string_view data_;
  std::size_t at_ = 0;
};

/// Bits from the end on: the highest set bit of the last byte marks where they begin. What lies before the first byte
/// reads as zeros; `left` is then negative.
class BackwardBits {
 public:
  explicit BackwardBits(std::string_view data) : data_(data) {
    check(!data.empty() && data.back() != 0, "a stream of it has no end mark");
    left_ = 8 * static_cast<std::int64_t>(data.size() - 1) + log2_of(static_cast<std::uint8_t>(data.back()));
  }
  std::uint64_t read(int count) {
    left_ -= count;
    const std::int64_t begin = std::max<std::int64_t>(left_, 0), end = left_ + count;
    if (end <= 0 || count == 0) return 0;
    std::uint64_t word = 0;
    const auto first = static_cast<std::size_t>(begin / 8);
    std::memcpy(&word, data_.data() + first, std::min<std::size_t>(8, data_.size() - first));
    const std::uint64_t value = word >> (begin % 8) & ((std::uint64_t{1} << (end - begin)) - 1);
    return value << (begin - left_);
  }
  std::int64_t left() const { return left_; }

 private:
  std::string_view data_;
  std::int64_t left_ = 0;
};
static_assert(std::endian::native == std::endian::little);

// ---- Finite state entropy (section 4.1)

struct FseCell {
  std::uint8_t symbol = 0, bits = 0;
  std::uint16_t base = 0;
};

struct FseTable {
  std::vector<FseCell> cells{};
  int log = 0;
};

FseTable fse_table(std::span<const std::int16_t> counts, int log) {
  const std::size_t size = std::size_t{1} << log;
  FseTable table{.cells = std::vector<FseCell>(size), .log = log};
  std::vector<std::uint32_t> next(counts.size());
  std::size_t high = size;
  for (std::size_t s = 0; s < counts.size(); ++s) {
    next[s] = static_cast<std::uint32_t>(std::abs(counts[s]));
    if (counts[s] < 0) table.cells[--high].symbol = static_cast<std::uint8_t>(s);
  }
  const std::size_t step = (size >> 1) + (size >> 3) + 3;
  std::size_t place = 0;
  for (std::size_t s = 0; s < counts.size(); ++s)
    for (int i = 0; i < counts[s]; ++i) {
      table.cells[place].symbol = static_cast<std::uint8_t>(s);
      do place = (place + step) & (size - 1);
      while (place >= high);
    }
  check(place == 0, "the counts of a table do not fill it");
  for (FseCell& cell : table.cells) {
    const std::uint32_t state = next[cell.symbol]++;
    cell.bits = static_cast<std::uint8_t>(log - log2_of(state));
    cell.base = static_cast<std::uint16_t>((state << cell.bits) - size);
  }
  return table;
}

/// Reads a table's counts. @return it, and its bytes.
std::pair<FseTable, std::size_t> read_fse_table(std::string_view data, int most_log, std::size_t most_symbols) {
  ForwardBits bits(data);
  const int log = static_cast<int>(bits.read(4)) + 5;
  check(log <= most_log, "a table of it is too large");
  std::vector<std::int16_t> counts;
  for (std::int32_t left = 1 << log; left > 0;) {
    const int width = log2_of(static_cast<std::uint64_t>(left) + 1) + 1;
    const auto low = (std::uint32_t{1} << (width - 1)) - 1,
               threshold = (std::uint32_t{1} << width) - 1 - (static_cast<std::uint32_t>(left) + 1);
    std::uint32_t value = bits.peek(width);
    if ((value & low) < threshold) {
      bits.skip(width - 1);
      value &= low;
    } else {
      bits.skip(width);
      if (value > low) value -= threshold;
    }
    const std::int32_t count = static_cast<std::int32_t>(value) - 1;
    left -= std::abs(count);
    counts.push_back(static_cast<std::int16_t>(count));
    if (count == 0)
      for (std::uint32_t zeros = 3; zeros == 3;) {
        zeros = bits.read(2);
        counts.insert(counts.end(), zeros, 0);
        check(counts.size() <= most_symbols, "a table of it has too many symbols");
      }
    check(left >= 0 && counts.size() <= most_symbols, "the counts of a table do not fill it");
  }
  return {fse_table(counts, log), bits.bytes()};
}

struct FseState {
  FseState(const FseTable& t, BackwardBits& bits) : table(&t), at(bits.read(t.log)) {}
  std::uint8_t symbol() const { return table->cells[at].symbol; }
  void next(BackwardBits& bits) {
    const FseCell& cell = table->cells[at];
    at = cell.base + bits.read(cell.bits);
  }
  const FseTable* table;
  std::uint64_t at;
};

// ---- Huffman coding (section 4.2)

struct HuffmanCell {
  std::uint8_t symbol = 0, bits = 0;
};
struct HuffmanTable {
  std::vector<HuffmanCell> cells{};  ///< empty: none yet
  int log = 0;
};

std::vector<std::uint8_t> read_weights(Bytes& bytes) {
  const std::size_t header = bytes.number(1);
  std::vector<std::uint8_t> weights;
  if (header >= 128) {
    const std::size_t count = header - 127;
    const auto packed = bytes.take((count + 1) / 2);
    for (std::size_t i = 0; i < count; ++i)
      weights.push_back(static_cast<std::uint8_t>(packed[i / 2]) >> (i % 2 ? 0 : 4) & 15);
    return weights;
  }
  const auto data = bytes.take(header);
  const auto [table, size] = read_fse_table(data, 6, 256);
  BackwardBits bits(data.substr(size));
  FseState a(table, bits), b(table, bits);
  while (weights.size() < 255) {  // two states in turn; the other's symbol ends it
    weights.push_back(a.symbol());
    a.next(bits);
    if (bits.left() < 0) {
      weights.push_back(b.symbol());
      break;
    }
    std::swap(a, b);
  }
  check(weights.size() < 256, "a Huffman tree of it is too large");
  return weights;
}

HuffmanTable read_huffman(Bytes& bytes) {
  auto weights = read_weights(bytes);
  std::uint64_t sum = 0;
  for (const auto weight : weights) {
    check(weight <= 11, "a Huffman code of it is too long");
    if (weight > 0) sum += std::uint64_t{1} << (weight - 1);
  }
  check(sum > 0, "a Huffman tree of it is empty");
  HuffmanTable table{.log = log2_of(sum) + 1};
  const std::uint64_t rest = (std::uint64_t{1} << table.log) - sum;
  check(table.log <= 11 && std::has_single_bit(rest), "a Huffman tree of it is not complete");
  weights.push_back(static_cast<std::uint8_t>(log2_of(rest) + 1));
  for (int weight = 1; weight <= table.log; ++weight)
    for (std::size_t s = 0; s < weights.size(); ++s)
      if (weights[s] == weight)
        table.cells.insert(table.cells.end(), std::size_t{1} << (weight - 1),
                           {static_cast<std::uint8_t>(s), static_cast<std::uint8_t>(table.log + 1 - weight)});
  check(table.cells.size() == std::size_t{1} << table.log, "a Huffman tree of it is not complete");
  return table;
}

void decode_stream(const HuffmanTable& table, std::string_view data, std::size_t count, std::string& out) {
  BackwardBits bits(data);
  std::uint64_t state = bits.read(table.log);
  for (std::size_t i = 0; i < count; ++i) {
    const HuffmanCell& cell = table.cells[state];
    out.push_back(static_cast<char>(cell.symbol));
    state = (state << cell.bits | bits.read(cell.bits)) & ((std::uint64_t{1} << table.log) - 1);
  }
  check(bits.left() == -table.log, "a stream of literals has another length");
}

// ---- Blocks (section 3.1.1.2)

/// What a length or offset code stands for: `base` and further bits.
struct LengthCode {
  std::uint32_t base, bits;
};
constexpr std::uint8_t kLiteralBits[] = {1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
constexpr std::uint8_t kMatchBits[] = {1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

template <std::size_t Plain, std::size_t Wide>
constexpr std::array<LengthCode, Plain + Wide> length_codes(std::uint32_t first, const std::uint8_t (&bits)[Wide]) {
  std::array<LengthCode, Plain + Wide> codes{};
  for (std::size_t i = 0; i < Plain; ++i) codes[i] = {first++, 0};
  for (std::size_t i = 0; i < Wide; ++i) {
    // From 64 on (literals) and 131 on (matches) a code covers all lengths of its power of two.
    codes[Plain + i] = {first, bits[i]};
    first += std::uint32_t{1} << bits[i];
  }
  return codes;
}
constexpr auto kLiteralLengths = length_codes<16>(0, kLiteralBits);
constexpr auto kMatchLengths = length_codes<32>(3, kMatchBits);
static_assert(kLiteralLengths[25].base == 64 && kLiteralLengths[35].base == 65536);
static_assert(kMatchLengths[43].base == 131 && kMatchLengths[52].base == 65539);

constexpr std::int16_t kLiteralCounts[] = {4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1,  1,  2,  2,
                                           2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1};
constexpr std::int16_t kMatchCounts[] = {1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1,  1,  1,  1,  1,  1,  1, 1,
                                         1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,  1,  1,  1,  1,  1,  1, 1,
                                         1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1};
constexpr std::int16_t kOffsetCounts[] = {1, 1, 1, 1, 1, 1, 2, 2, 2, 1,  1,  1,  1,  1, 1,
                                          1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1};

/// One of the three codes of sequences.
struct SequenceCode {
  std::span<const std::int16_t> usual;
  int usual_log, most_log;
  std::size_t symbols;
};
constexpr SequenceCode kLiteralCode{kLiteralCounts, 6, 9, 36}, kOffsetCode{kOffsetCounts, 5, 8, 32},
    kMatchCode{kMatchCounts, 6, 9, 53};

class Frame {
 public:
  explicit Frame(std::size_t most) : most_(most) {}

  std::string decode(std::string_view data) {
    Bytes bytes(data);
    check(bytes.left() >= 4 && bytes.number(4) == kMagic, "it does not begin as one");
    const auto descriptor = static_cast<unsigned>(bytes.number(1));
    const bool single = descriptor >> 5 & 1, checksum = descriptor >> 2 & 1;
    check((descriptor >> 3 & 1) == 0, "it uses a reserved bit");
    if (!single) bytes.number(1);  // the window: all that came out so far is at hand
    constexpr std::size_t kNameSizes[] = {0, 1, 2, 4}, kContentSizes[] = {0, 2, 4, 8};
    check(bytes.number(kNameSizes[descriptor & 3]) == 0, "it needs a dictionary");
    const std::size_t says = descriptor >> 6 == 0 && single ? 1 : kContentSizes[descriptor >> 6];
    const std::uint64_t size = bytes.number(says) + (says == 2 ? 256 : 0);
    while (block(bytes)) {
    }
    check(says == 0 || out_.size() == size, "it holds another number of bytes than it says");
    if (checksum)
      check(bytes.number(4) == (XXH64(out_.data(), out_.size(), 0) & 0xFFFFFFFF), "its checksum is another");
    check(bytes.left() == 0, "something follows it");
    return std::move(out_);
  }

 private:
  /// @return whether another one follows.
  bool block(Bytes& bytes) {
    const auto header = bytes.number(3);
    const std::size_t size = header >> 3;
    switch (header >> 1 & 3) {
      case 0:
        append(bytes.take(size));
        break;
      case 1:
        room(size);
        out_.append(size, bytes.take(1)[0]);
        break;
      case 2:
        check(size <= kMostBlock, "a block of it is too large");
        compressed(Bytes(bytes.take(size)));
        break;
      default:
        check(false, "it has a block of an unknown kind");
    }
    return (header & 1) == 0;
  }

  void room(std::size_t more) const {
    require(more <= most_ - out_.size(), ErrorCode::format, kWhere, "expected at most {} bytes from a Zstandard frame",
            most_);
  }
  void append(std::string_view bytes) {
    room(bytes.size());
    out_ += bytes;
  }

  void compressed(Bytes bytes) {
    const std::string literals = read_literals(bytes);
    std::size_t count = bytes.number(1);
    if (count == 255)
      count = bytes.number(2) + 0x7F00;
    else if (count >= 128)
      count = ((count - 128) << 8) + bytes.number(1);
    if (count == 0) {
      check(bytes.left() == 0, "a block of it is longer than what it holds");
      return append(literals);
    }
    const auto modes = static_cast<unsigned>(bytes.number(1));
    check((modes & 3) == 0, "it uses a reserved bit");
    read_table(bytes, modes >> 6, kLiteralCode, literal_table_);
    read_table(bytes, modes >> 4 & 3, kOffsetCode, offset_table_);
    read_table(bytes, modes >> 2 & 3, kMatchCode, match_table_);
    sequences(bytes.take(bytes.left()), count, literals);
  }

  std::string read_literals(Bytes& bytes) {
    const auto first = static_cast<unsigned>(bytes.number(1));
    const unsigned kind = first & 3, format = first >> 2 & 3;
    std::string literals;
    if (kind < 2) {
      const std::size_t size = format == 1   ? first >> 4 | bytes.number(1) << 4
                               : format == 3 ? first >> 4 | bytes.number(2) << 4
                                             : first >> 3;
      check(size <= kMostBlock, "a block of it is too large");
      kind == 0 ? literals.append(bytes.take(size)) : literals.append(size, bytes.take(1)[0]);
      return literals;
    }
    constexpr std::size_t kMore[] = {2, 2, 3, 4};
    constexpr int kWidth[] = {10, 10, 14, 18};
    const std::uint64_t sizes = first >> 4 | bytes.number(kMore[format]) << 4, mask = (1U << kWidth[format]) - 1;
    const std::size_t size = sizes & mask, packed = sizes >> kWidth[format] & mask;
    check(size <= kMostBlock, "a block of it is too large");
    Bytes data(bytes.take(packed));
    if (kind == 2) huffman_ = read_huffman(data);
    check(!huffman_.cells.empty(), "literals of it refer to a tree that is not there");
    if (format == 0) {
      decode_stream(huffman_, data.take(data.left()), size, literals);
      return literals;
    }
    const std::size_t a = data.number(2), b = data.number(2), c = data.number(2), quarter = (size + 3) / 4;
    check(3 * quarter <= size, "four streams of literals hold too little");
    for (const std::size_t length : {a, b, c}) decode_stream(huffman_, data.take(length), quarter, literals);
    decode_stream(huffman_, data.take(data.left()), size - 3 * quarter, literals);
    return literals;
  }

  static void read_table(Bytes& bytes, unsigned mode, const SequenceCode& code, FseTable& table) {
    if (mode == 0) {
      table = fse_table(code.usual, code.usual_log);
    } else if (mode == 1) {
      const auto symbol = static_cast<std::uint8_t>(bytes.number(1));
      check(symbol < code.symbols, "a code of it is unknown");
      table = {.cells = {{.symbol = symbol}}};
    } else if (mode == 2) {
      Bytes ahead = bytes;
      auto [read, size] = read_fse_table(ahead.take(ahead.left()), code.most_log, code.symbols);
      bytes.take(size);
      table = std::move(read);
    }
    check(!table.cells.empty(), "sequences of it refer to a table that is not there");
  }

  void sequences(std::string_view data, std::size_t count, std::string_view literals) {
    BackwardBits bits(data);
    FseState literal(literal_table_, bits), offset(offset_table_, bits), match(match_table_, bits);
    const std::size_t begin = out_.size();
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t distance = (std::uint64_t{1} << offset.symbol()) + bits.read(offset.symbol());
      const auto [match_base, match_bits] = kMatchLengths[match.symbol()];
      const std::size_t length = match_base + bits.read(static_cast<int>(match_bits));
      const auto [literal_base, literal_bits] = kLiteralLengths[literal.symbol()];
      const std::size_t copied = literal_base + bits.read(static_cast<int>(literal_bits));
      check(bits.left() >= 0 && copied <= literals.size(), "a sequence of it is cut off");
      append(literals.substr(0, copied));
      literals.remove_prefix(copied);
      repeat(offset_of(distance, copied == 0), length);
      check(out_.size() - begin <= kMostBlock, "a block of it is too large");
      if (i + 1 == count) break;
      literal.next(bits);
      match.next(bits);
      offset.next(bits);
    }
    check(bits.left() == 0, "the sequences of a block have another length");
    append(literals);
  }

  /// Section 3.1.1.5: the last three offsets have numbers of their own.
  std::uint64_t offset_of(std::uint64_t value, bool no_literals) {
    if (value > 3) {
      recent_ = {value - 3, recent_[0], recent_[1]};
      return recent_[0];
    }
    const std::size_t which = value - 1 + no_literals;
    const std::uint64_t offset = which < 3 ? recent_[which] : recent_[0] - 1;
    if (which > 1) recent_[2] = recent_[1];
    if (which > 0) recent_[1] = std::exchange(recent_[0], offset);
    return offset;
  }

  void repeat(std::uint64_t offset, std::size_t length) {
    check(offset > 0 && offset <= out_.size(), "it refers to bytes before its beginning");
    room(length);
    for (std::size_t i = 0; i < length; ++i) out_.push_back(out_[out_.size() - offset]);  // may overlap
  }

  std::size_t most_;
  std::string out_{};
  HuffmanTable huffman_{};
  FseTable literal_table_{}, offset_table_{}, match_table_{};
  std::array<std::uint64_t, 3> recent_{1, 4, 8};
};

}  // namespace

std::string decode_zstd(std::string_view frame, std::size_t most) { return Frame(most).decode(frame); }

}  // namespace steer::serve::detail
