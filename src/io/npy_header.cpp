#include "io/npy_header.hpp"

#include <charconv>

#include "io/open_container.hpp"

namespace steer::io::detail {
namespace {

struct NpyType {
  std::string_view code;
  at::ScalarType type;
};
constexpr NpyType kTypes[] = {
    {"b1", at::ScalarType::Bool},         {"i1", at::ScalarType::Char},           {"u1", at::ScalarType::Byte},
    {"i2", at::ScalarType::Short},        {"u2", at::ScalarType::UInt16},         {"i4", at::ScalarType::Int},
    {"u4", at::ScalarType::UInt32},       {"i8", at::ScalarType::Long},           {"u8", at::ScalarType::UInt64},
    {"f2", at::ScalarType::Half},         {"f4", at::ScalarType::Float},          {"f8", at::ScalarType::Double},
    {"c8", at::ScalarType::ComplexFloat}, {"c16", at::ScalarType::ComplexDouble},
};

// The header is a Python dict literal; this reads just the literals that numpy writes there.
class LiteralParser {
 public:
  LiteralParser(std::string_view text, const std::string& file) : text_(text), file_(file) {}

  void parse(NpyHeader& header) {
    bool has_descr = false, has_order = false, has_shape = false;
    expect('{');
    while (!accept('}')) {
      const auto key = string();
      expect(':');
      if (key == "descr" && !std::exchange(has_descr, true))
        header.descr = descr();
      else if (key == "fortran_order" && !std::exchange(has_order, true))
        header.fortran_order = boolean();
      else if (key == "shape" && !std::exchange(has_shape, true))
        header.shape = tuple();
      else
        refuse();
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (at_ != text_.size() || !has_descr || !has_order || !has_shape) refuse();
  }

 private:
  [[noreturn]] void refuse() const {
    fail(ErrorCode::format, kOpenTensors, "expected an npy header with descr, fortran_order and shape but got {} ({})",
         quote(text_), file_);
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool accept(char c) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) refuse();
  }
  std::string_view string() {
    skip_space();
    if (at_ == text_.size() || (text_[at_] != '\'' && text_[at_] != '"')) refuse();
    const auto end = text_.find(text_[at_], at_ + 1);
    if (end == text_.npos) refuse();
    const auto value = text_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    return value;
  }
  std::string descr() {
    skip_space();
    if (at_ < text_.size() && text_[at_] == '[') {
      skip_list();
      return "structured";
    }
    return std::string(string());
  }
  // The fields of a structured type: brackets, parentheses, strings, numbers.
  void skip_list() {
    std::size_t open = 0;
    do {
      skip_space();
      if (at_ == text_.size()) refuse();
      const char c = text_[at_];
      if (c == '\'' || c == '"') {
        string();
        continue;
      }
      open += c == '[' || c == '(';
      open -= c == ']' || c == ')';
      ++at_;
    } while (open > 0);
  }
  bool boolean() {
    skip_space();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return value;
    }
    refuse();
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> sizes;
    expect('(');
    while (!accept(')')) {
      std::int64_t size = 0;
      const auto* begin = text_.data() + at_;
      const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), size);
      if (error != std::errc() || sizes.size() >= kMaxDimensions) refuse();
      at_ += static_cast<std::size_t>(end - begin);
      sizes.push_back(size);
      accept('L');  // Python 2 wrote long integers so
      if (!accept(',')) {
        expect(')');
        break;
      }
      skip_space();
    }
    return sizes;
  }

  std::string_view text_;
  const std::string& file_;
  std::size_t at_ = 0;
};

at::ScalarType type_of(const std::string& descr, const std::string& file) {
  if (descr.size() >= 3 && (descr[0] == '<' || descr[0] == '|' || descr[0] == '='))
    for (const auto& type : kTypes)
      if (type.code == std::string_view(descr).substr(1)) return type.type;
  fail(ErrorCode::unsupported, kOpenTensors,
       "expected a little-endian array of numbers but got numpy's {} ({}); convert it with "
       "astype",
       quote(descr), file);
}

}  // namespace

bool is_no_number(std::string_view descr) {
  if (descr == "structured") return true;
  const auto kind = descr.size() >= 2 ? descr[1] : '\0';
  return descr.size() >= 2 && (kind == 'U' || kind == 'S' || kind == 'O' || kind == 'M' || kind == 'm' || kind == 'V');
}

NpyHeader parse_npy_header(Bytes bytes, const std::string& file) {
  ByteCursor cursor(bytes, kOpenTensors, "the npy header of " + file);
  require(as_text(cursor.take(6)) == "\x93NUMPY", ErrorCode::format, kOpenTensors,
          "expected an npy file but got other bytes ({})", file);
  const auto major = cursor.read<std::uint8_t>();
  cursor.read<std::uint8_t>();
  require(major >= 1 && major <= 3, ErrorCode::unsupported, kOpenTensors,
          "expected npy version 1, 2 or 3 but got {} ({})", major, file);
  const std::uint32_t length = major == 1 ? cursor.read<std::uint16_t>() : cursor.read<std::uint32_t>();
  require(length <= kMaxNpyHeader - 12, ErrorCode::format, kOpenTensors,
          "expected a header of at most {} bytes but got {} ({})", kMaxNpyHeader - 12, length, file);
  NpyHeader header;
  LiteralParser(as_text(cursor.take(length)), file).parse(header);
  header.data_begin = static_cast<std::int64_t>(cursor.position());
  if (is_no_number(header.descr)) return header;
  header.dtype = type_of(header.descr, file);
  const auto count = element_count(header.shape);
  const auto size =
      count ? checked_multiply(*count, static_cast<std::int64_t>(c10::elementSize(header.dtype))) : std::nullopt;
  require(size.has_value(), ErrorCode::format, kOpenTensors, "expected a shape whose bytes fit 63 bits but got {} ({})",
          shape_text(header.shape), file);
  header.data_bytes = *size;
  return header;
}

}  // namespace steer::io::detail
