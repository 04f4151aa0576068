#pragma once
// A sentencepiece .model file, read and checked without the library: the library trusts its input.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocabulary.hpp"

namespace steer::text::detail {

struct SentencepieceFile {
  struct Piece {
    std::string text;
    float score = 0;
    PieceKind kind = PieceKind::normal;
  };
  std::vector<Piece> pieces;
  // Defaults are those of sentencepiece_model.proto.
  std::int64_t model_type = 1;  ///< 1 unigram, 2 BPE, 3 word, 4 char
  std::int64_t bos_id = 1, eos_id = 2;
  std::string unknown_text = " \xE2\x81\x87 ";
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool has_denormalizer = false;
  bool has_character_map = false;
  bool escape_whitespaces = true;
  bool whitespace_is_suffix = false;
  bool byte_fallback = false;
};

/// Field numbers and defaults: sentencepiece_model.proto (Apache 2.0).
/// @throws Error(format) for anything the library could trip over: a broken wire format, no or repeated pieces, no or
///         several unknown pieces, scores that are not finite, a character map that leads outside itself.
SentencepieceFile parse_sentencepiece(std::string_view bytes, const std::string& name);

}  // namespace steer::text::detail
