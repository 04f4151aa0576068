#include "text/text_decoder.hpp"

#include <array>

#include "text/space_mark.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail {
namespace {

// Printable bytes stand for themselves, the others for U+0100 and up in their order.
constexpr bool printable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

struct Alphabet {
  std::array<std::uint16_t, 256> of_byte{};
  std::array<std::int16_t, 512> of_code{};
  constexpr Alphabet() {
    for (auto& byte : of_code) byte = -1;
    std::uint16_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      of_byte[static_cast<std::size_t>(byte)] = printable(byte) ? static_cast<std::uint16_t>(byte) : next++;
      of_code[of_byte[static_cast<std::size_t>(byte)]] = static_cast<std::int16_t>(byte);
    }
  }
};
constexpr Alphabet alphabet;

// A piece as bytes; a piece with a character outside the alphabet is taken as it is written (an added token).
void append_alphabet_bytes(std::string& out, std::string_view piece) {
  const std::size_t before = out.size();
  for (std::size_t at = 0; at < piece.size();) {
    const Utf8Step step = utf8_step(piece, at);
    const int byte = step.valid ? byte_of_alphabet(step.code) : -1;
    if (byte < 0) {
      out.resize(before);
      out += piece;
      return;
    }
    out += static_cast<char>(byte);
    at += step.length;
  }
}

// Moves all of `held` to `out` but the bytes that may still become part of a longer sequence.
void release_complete(std::string& held, std::string& out) {
  const std::size_t keep = utf8_incomplete_tail(held);
  utf8_append_lossy(out, std::string_view(held).substr(0, held.size() - keep));
  held.erase(0, held.size() - keep);
}

// sentencepiece replaces each byte that belongs to no whole character.
std::size_t release_characters(std::string_view bytes, bool final, std::string& out) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Step step = utf8_step(bytes, at);
    if (!step.valid && step.truncated && !final) break;
    out += step.valid ? bytes.substr(at, step.length) : replacement_character;
    at += step.valid ? step.length : 1;
  }
  return at;
}

}  // namespace

int byte_of_alphabet(char32_t code) noexcept { return code < 512 ? alphabet.of_code[code] : -1; }
char32_t alphabet_of_byte(unsigned char byte) noexcept { return alphabet.of_byte[byte]; }

void TextDecoder::push(const Vocabulary& vocabulary, std::int32_t id, DecodeState& state, std::string& out) const {
  const std::string_view piece = vocabulary.piece(id);
  switch (kind) {
    case Kind::byte_level:
      append_alphabet_bytes(state.held, piece);
      release_complete(state.held, out);
      return;
    case Kind::steps: {
      std::string text(piece), next;
      for (const auto& [from, to] : replacements) {
        next.clear();
        append_replaced(next, text, from, to);
        text.swap(next);
      }
      push_steps(text, state, out);
      return;
    }
    case Kind::metaspace:
      append_replaced(out, piece, metaspace, dummy_prefix && !state.begun ? "" : " ");
      state.begun = true;
      return;
    case Kind::joined:
      if (state.begun) out += ' ';
      out += piece;
      state.begun = true;
      return;
    case Kind::sentencepiece:
      push_sentencepiece(vocabulary, id, state, out);
      return;
    case Kind::gguf_spm: {
      if (const int byte = vocabulary.kind(id) == PieceKind::byte ? byte_of_piece(piece) : -1; byte >= 0) {
        state.held += static_cast<char>(byte);
      } else {
        const std::size_t before = state.held.size();
        append_replaced(state.held, piece, space_mark, " ");
        if (!state.begun && strip_start > 0 && state.held.size() > before && state.held[before] == ' ')
          state.held.erase(before, 1);
      }
      state.begun = true;
      release_complete(state.held, out);
      return;
    }
  }
}

void TextDecoder::push_steps(std::string_view text, DecodeState& state, std::string& out) const {
  const auto emit = [&](std::string_view part) {
    // Without Fuse before it, Strip looks at every piece by itself.
    if (state.strip < 0 || !fuse) state.strip = strip_start;
    while (state.strip > 0 && !part.empty()) {
      if (!part.starts_with(strip_content)) {
        state.strip = 0;
        break;
      }
      part.remove_prefix(strip_content.size());
      --state.strip;
    }
    out += part;
  };
  if (byte_fallback) {
    if (const int byte = byte_of_piece(text); byte >= 0) {
      state.held += static_cast<char>(byte);
      return;
    }
    // A run of byte pieces is text only if all of it is valid; else each byte counts as one malformed character.
    if (!state.held.empty()) {
      std::string run;
      if (utf8_valid(state.held))
        run = state.held;
      else
        for (std::size_t i = 0; i < state.held.size(); ++i) run += replacement_character;
      state.held.clear();
      emit(run);
    }
  }
  emit(text);
}

// After sentencepiece_processor.cc (Apache 2.0), SentencePieceProcessor::Decode: what each piece contributes, and
// when the space that encoding put before the text is taken away again.
void TextDecoder::push_sentencepiece(const Vocabulary& vocabulary, std::int32_t id, DecodeState& state,
                                     std::string& out) const {
  std::string_view piece = vocabulary.piece(id);
  const PieceKind piece_kind = vocabulary.kind(id);
  if (piece_kind == PieceKind::byte) {
    if (const int byte = byte_of_piece(piece); byte >= 0) state.held += static_cast<char>(byte);
    const std::size_t done = release_characters(state.held, false, out);
    if (done > 0) state.begun = true;
    state.held.erase(0, done);
    return;
  }
  if (!state.held.empty()) {
    release_characters(state.held, true, out);
    state.held.clear();
    state.begun = true;
  }
  if (state.saw_space || state.begun) state.expect_space = false;
  state.saw_space = false;
  if (piece_kind == PieceKind::control) return;
  if (piece_kind == PieceKind::unknown) {
    out += unknown_text;
    state.begun = state.begun || !unknown_text.empty();
    return;
  }
  if (state.expect_space && (dummy_prefix || squeeze_spaces) && piece.starts_with(space_mark)) {
    piece.remove_prefix(space_mark.size());
    state.saw_space = !squeeze_spaces;
  }
  const std::size_t before = out.size();
  append_replaced(out, piece, space_mark, " ");
  state.begun = state.begun || out.size() > before;
}

void TextDecoder::finish(DecodeState& state, std::string& out) const {
  switch (kind) {
    case Kind::byte_level:
    case Kind::gguf_spm:
      utf8_append_lossy(out, state.held);
      break;
    case Kind::steps:
      if (!state.held.empty()) push_steps("", state, out);
      break;
    case Kind::sentencepiece:
      release_characters(state.held, true, out);
      break;
    case Kind::metaspace:
    case Kind::joined:
      break;
  }
  state = {};
}

}  // namespace steer::text::detail
