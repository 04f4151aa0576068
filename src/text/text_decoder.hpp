#pragma once
// From ids to text, one id at a time. Decoding a whole sequence is pushing all its ids, so that streaming and
// whole decoding cannot differ.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/space_mark.hpp"
#include "text/vocabulary.hpp"

namespace steer::text::detail {

/// What is not decided yet while a sequence is decoded.
struct DecodeState {
  std::string held;          ///< bytes of an unfinished UTF-8 sequence, or of a run of byte tokens
  std::string space;         ///< joined decoding: the separator due before the next token
  int strip = -1;            ///< leading characters that may still be stripped; -1 before the first token
  bool expect_space = true;  ///< sentencepiece: the dummy prefix may still come
  bool saw_space = false;    ///< sentencepiece: the last piece had the dummy prefix removed
  bool begun = false;        ///< some text is out
};

/// The rules by which a vocabulary's pieces become text.
struct TextDecoder {
  enum class Kind {
    byte_level,     ///< each character of a piece stands for a byte (GPT-2's alphabet)
    steps,          ///< tokenizer.json: replacements, byte fallback, fuse, strip
    metaspace,      ///< tokenizer.json's Metaspace
    joined,         ///< tokenizer.json without a decoder: pieces joined by spaces
    sentencepiece,  ///< as the sentencepiece library decodes
    gguf_spm,       ///< as llama.cpp decodes its `llama` vocabularies
  };
  Kind kind = Kind::joined;

  std::vector<std::pair<std::string, std::string>> replacements;  ///< steps: applied to each piece, in order
  bool byte_fallback = false;                                     ///< steps: pieces <0xXX> are bytes
  bool fuse = false;                                              ///< steps: pieces become one text before `strip`
  std::string strip_content;                                      ///< steps: the character to strip at the start
  int strip_start = 0;          ///< steps: how many of them at most; gguf_spm: 1 with a space prefix
  bool dummy_prefix = false;    ///< sentencepiece: add_dummy_prefix; metaspace: drops the first token's marks
  bool squeeze_spaces = false;  ///< sentencepiece: remove_extra_whitespaces
  std::string unknown_text;     ///< sentencepiece: the text of the unknown token
  std::string metaspace{space_mark};

  /// Appends to `out` the text that is final once `id` (valid) is known.
  void push(const Vocabulary& vocabulary, std::int32_t id, DecodeState& state, std::string& out) const;
  /// Appends what was held back, malformed bytes replaced.
  void finish(DecodeState& state, std::string& out) const;

 private:
  void push_steps(std::string_view piece, DecodeState& state, std::string& out) const;
  void push_sentencepiece(const Vocabulary& vocabulary, std::int32_t id, DecodeState& state, std::string& out) const;
};

/// The byte that a character of GPT-2's byte alphabet stands for, or -1 (Radford et al. 2019, `bytes_to_unicode`).
int byte_of_alphabet(char32_t code) noexcept;
/// The reverse: the character (two bytes of UTF-8 at most) that stands for a byte.
char32_t alphabet_of_byte(unsigned char byte) noexcept;

}  // namespace steer::text::detail
