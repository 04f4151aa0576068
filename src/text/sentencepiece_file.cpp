#include "text/sentencepiece_file.hpp"

#include <cmath>
#include <cstring>
#include <unordered_set>

#include <steer/core/error.hpp>

#include "io/bytes.hpp"

namespace steer::text::detail {
namespace {

constexpr std::string_view kSentencePiece = "Tokenizer::load";
// Walks the fields of one protobuf message.
class WireReader {
 public:
  WireReader(std::string_view bytes, const std::string& name) : rest_(bytes), name_(name) {}

  bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t key = varint();
    field_ = static_cast<std::uint32_t>(key >> 3);
    type_ = static_cast<std::uint32_t>(key & 7);
    require(field_ != 0 && (key >> 3) < (1u << 29), ErrorCode::format, kSentencePiece,
            "expected a protobuf field number but got {} ({}); the file is not a sentencepiece model", key >> 3, name_);
    bytes_ = {};
    switch (type_) {
      case 0:
        value_ = varint();
        break;
      case 1:
        bytes_ = take(8);
        break;
      case 2:
        bytes_ = take(varint());
        break;
      case 5:
        bytes_ = take(4);
        break;
      default:
        fail(ErrorCode::format, kSentencePiece, "expected a protobuf wire type but got {} ({}); the file is damaged",
             type_, name_);
    }
    return true;
  }
  std::uint32_t field() const { return field_; }
  std::string_view bytes() const { return expect(2), bytes_; }
  std::int64_t integer() const { return expect(0), static_cast<std::int64_t>(value_); }
  float number() const {
    expect(5);
    float value;
    std::memcpy(&value, bytes_.data(), sizeof value);
    return value;
  }

 private:
  void expect(std::uint32_t type) const {
    require(type_ == type, ErrorCode::format, kSentencePiece,
            "expected wire type {} in field {} but got {} ({}); the file is damaged", type, field_, type_, name_);
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      require(!rest_.empty(), ErrorCode::format, kSentencePiece,
              "expected more bytes but got the end of {}; it is truncated", name_);
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail(ErrorCode::format, kSentencePiece,
         "expected an integer of at most 10 bytes but got a longer one ({}); the file is damaged", name_);
  }
  std::string_view take(std::uint64_t count) {
    require(count <= rest_.size(), ErrorCode::format, kSentencePiece,
            "expected {} more bytes but got {} ({}); the file is truncated or not a sentencepiece model", count,
            rest_.size(), name_);
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::string_view rest_, bytes_;
  const std::string& name_;
  std::uint64_t value_ = 0;
  std::uint32_t field_ = 0, type_ = 0;
};

SentencepieceFile::Piece parse_piece(std::string_view bytes, const std::string& name) {
  SentencepieceFile::Piece piece;
  WireReader reader(bytes, name);
  while (reader.next()) {
    if (reader.field() == 1) piece.text = reader.bytes();
    if (reader.field() == 2) piece.score = reader.number();
    if (reader.field() == 3) {
      switch (const std::int64_t type = reader.integer()) {
        case 1:
          piece.kind = PieceKind::normal;
          break;
        case 2:
          piece.kind = PieceKind::unknown;
          break;
        case 3:
          piece.kind = PieceKind::control;
          break;
        case 4:
          piece.kind = PieceKind::user_defined;
          break;
        case 5:
          piece.kind = PieceKind::unused;
          break;
        case 6:
          piece.kind = PieceKind::byte;
          break;
        default:
          fail(ErrorCode::format, kSentencePiece, "expected a piece type of 1 to 6 but got {} ({})", type, name);
      }
    }
  }
  require(!piece.text.empty() && piece.text.find('\0') == std::string::npos, ErrorCode::format, kSentencePiece,
          "expected pieces that are not empty and have no zero byte but got {} ({})", io::detail::quote(piece.text),
          name);
  require(std::isfinite(piece.score), ErrorCode::format, kSentencePiece,
          "expected a finite score of piece {} but got {} ({})", io::detail::quote(piece.text), piece.score, name);
  require(piece.kind != PieceKind::byte || byte_of_piece(piece.text) >= 0, ErrorCode::format, kSentencePiece,
          "expected a byte piece of the form <0xXX> but got {} ({})", io::detail::quote(piece.text), name);
  return piece;
}

// The normaliser's character map: 4 bytes of size, a double-array trie (Darts) of 32-bit units, replacement strings.
// The library follows the trie without bounds, so every step it can take must stay inside.
void check_character_map(std::string_view map, const std::string& name) {
  if (map.empty()) return;
  const auto damaged = [&](bool ok) {
    require(ok, ErrorCode::format, kSentencePiece,
            "expected a character map that stays inside itself but got a damaged one ({})", name);
  };
  std::uint32_t size = 0;
  damaged(map.size() > sizeof size);
  std::memcpy(&size, map.data(), sizeof size);
  map.remove_prefix(sizeof size);
  damaged(size % 4 == 0 && size >= 1024 && size < map.size());
  const std::string_view replacements = map.substr(size);
  damaged(replacements.back() == '\0');
  const std::size_t units = size / 4;
  for (std::size_t i = 0; i < units; ++i) {
    std::uint32_t unit;
    std::memcpy(&unit, map.data() + 4 * i, sizeof unit);
    if (unit >> 31) {
      damaged((unit & 0x7FFFFFFF) < replacements.size());  // a leaf: where its replacement begins
    } else {
      const std::size_t offset = (unit >> 10) << ((unit & (1u << 9)) >> 6);
      damaged(((i ^ offset) | 0xFF) < units);
    }
  }
}

}  // namespace

SentencepieceFile parse_sentencepiece(std::string_view bytes, const std::string& name) {
  SentencepieceFile file;
  WireReader model(bytes, name);
  while (model.next()) {
    switch (model.field()) {
      case 1:
        file.pieces.push_back(parse_piece(model.bytes(), name));
        break;
      case 2: {
        WireReader spec(model.bytes(), name);
        while (spec.next()) {
          if (spec.field() == 3) file.model_type = spec.integer();
          if (spec.field() == 24) file.whitespace_is_suffix = spec.integer() != 0;
          if (spec.field() == 35) file.byte_fallback = spec.integer() != 0;
          if (spec.field() == 41) file.bos_id = static_cast<std::int32_t>(spec.integer());
          if (spec.field() == 42) file.eos_id = static_cast<std::int32_t>(spec.integer());
          if (spec.field() == 44) file.unknown_text = spec.bytes();
        }
        break;
      }
      case 3: {
        WireReader spec(model.bytes(), name);
        while (spec.next()) {
          if (spec.field() == 2) {
            check_character_map(spec.bytes(), name);
            file.has_character_map = !spec.bytes().empty();
          }
          if (spec.field() == 3) file.add_dummy_prefix = spec.integer() != 0;
          if (spec.field() == 4) file.remove_extra_whitespaces = spec.integer() != 0;
          if (spec.field() == 5) file.escape_whitespaces = spec.integer() != 0;
        }
        break;
      }
      case 5: {
        WireReader spec(model.bytes(), name);
        while (spec.next())
          if (spec.field() == 2 && !spec.bytes().empty()) file.has_denormalizer = true;
        break;
      }
      default:
        break;
    }
  }
  require(!file.pieces.empty(), ErrorCode::format, kSentencePiece,
          "expected a sentencepiece model with pieces but got none ({}); check that the file is a .model", name);
  require(file.pieces.size() < (1u << 26), ErrorCode::format, kSentencePiece,
          "expected fewer than 2^26 pieces but got {} ({})", file.pieces.size(), name);
  require(file.model_type >= 1 && file.model_type <= 4, ErrorCode::format, kSentencePiece,
          "expected a model type of 1 to 4 but got {} ({})", file.model_type, name);
  std::unordered_set<std::string_view> seen;
  std::size_t unknown = 0;
  for (const auto& piece : file.pieces) {
    require(seen.insert(piece.text).second, ErrorCode::format, kSentencePiece,
            "expected different pieces but got {} twice ({})", io::detail::quote(piece.text), name);
    if (piece.kind == PieceKind::unknown) ++unknown;
  }
  require(unknown == 1, ErrorCode::format, kSentencePiece, "expected one unknown piece but got {} ({})", unknown, name);
  return file;
}

}  // namespace steer::text::detail
