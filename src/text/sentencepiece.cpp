// Tokenizers that the sentencepiece library runs. For the plainest kind of model, Llama 2's, steer merges itself: the
// same ids several times as fast.

#include <sentencepiece_processor.h>

#include <algorithm>
#include <optional>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>

#include "text/added_tokens.hpp"
#include "text/score_merges.hpp"
#include "text/sentencepiece_file.hpp"
#include "text/space_mark.hpp"
#include "text/tokenizer_impl.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail {
namespace {

struct SentencepieceImpl final : Tokenizer::Impl {
  sentencepiece::SentencePieceProcessor processor;
  AddedTokens controls;       ///< the library never finds these in a text; steer does on request
  std::optional<Bpe> merges;  ///< for models that `is_plain_bpe`
  bool dummy_prefix = true;

  void encode(std::string_view text, const EncodeOptions& options, TokenSink& sink) const override {
    // The library keeps byte positions in 32 bits.
    require(text.size() < (std::size_t{1} << 31), ErrorCode::argument, "Tokenizer::encode",
            "expected a text of less than 2 GiB but got {} bytes; cut it", text.size());
    if (options.add_special && bos) sink.add(*bos, 0, 0);
    if (!options.parse_special) {
      encode_plain(text, 0, sink);
      return;
    }
    std::vector<AddedTokens::Part> parts;
    controls.split(text, true, options.untrusted, parts);
    for (const auto& part : parts) {
      if (part.token)
        sink.add(part.token->id, part.begin, part.end);
      else
        encode_plain(text.substr(part.begin, part.end - part.begin), part.begin, sink);
    }
  }

  void encode_plain(std::string_view text, std::size_t offset, TokenSink& sink) const {
    if (merges && !sink.wants_spans() && text.size() < (std::size_t{1} << 30) && utf8_valid(text)) {
      encode_merging(text, sink);
    } else if (sink.wants_spans()) {
      sentencepiece::ImmutableSentencePieceText pieces;
      check(processor.Encode({text.data(), text.size()}, pieces.mutable_proto()));
      for (std::size_t i = 0; i < pieces.pieces_size(); ++i) {
        const auto piece = pieces.pieces(static_cast<int>(i));
        sink.add(piece.id(), offset + piece.begin(), offset + piece.end());
      }
    } else {
      std::vector<int> ids;
      check(processor.Encode({text.data(), text.size()}, &ids));
      for (const int id : ids) sink.add(id);
    }
  }

  void encode_merging(std::string_view text, TokenSink& sink) const {
    if (text.empty()) return;
    std::string marked(dummy_prefix ? space_mark : "");
    marked.reserve(text.size() + text.size() / 2);
    append_replaced(marked, text, " ", space_mark);
    Bpe::Scratch scratch;
    std::vector<BpeToken> tokens;
    merges->encode(marked, scratch, tokens);
    for (const BpeToken& token : tokens) sink.add(token.id);
  }

  void check(const sentencepiece::util::Status& status) const {
    require(status.ok(), ErrorCode::format, "Tokenizer::encode",
            "expected sentencepiece to encode the text but got: {} ({})", status.ToString(), name);
  }
};

/// BPE over text in which spaces are marked and nothing else changes, with a piece for every byte.
bool is_plain_bpe(const SentencepieceFile& file) {
  const auto kinds = [&](PieceKind kind) {
    return std::count_if(file.pieces.begin(), file.pieces.end(), [&](const auto& piece) { return piece.kind == kind; });
  };
  return file.model_type == 2 && file.byte_fallback && !file.has_character_map && !file.remove_extra_whitespaces &&
         file.escape_whitespaces && !file.whitespace_is_suffix && kinds(PieceKind::byte) == 256 &&
         kinds(PieceKind::user_defined) == 0 && kinds(PieceKind::unused) == 0;
}

Bpe merges_of(const SentencepieceFile& file, const Vocabulary& vocabulary) {
  std::vector<float> scores;
  std::int32_t unknown = 0;
  for (std::size_t i = 0; i < file.pieces.size(); ++i) {
    scores.push_back(file.pieces[i].score);
    if (file.pieces[i].kind == PieceKind::unknown) unknown = static_cast<std::int32_t>(i);
  }
  Bpe bpe;
  add_score_merges(vocabulary, scores, bpe);
  bpe.finish(
      vocabulary,
      {.byte_level = false, .byte_fallback = true, .fuse_unknown = false, .ignore_merges = false, .unknown = unknown});
  return bpe;
}

}  // namespace

TokenizerParts read_sentencepiece(std::string_view bytes, const std::string& name) {
  const SentencepieceFile file = parse_sentencepiece(bytes, name);
  require(!file.has_denormalizer, ErrorCode::unsupported, "Tokenizer::load",
          "expected a sentencepiece model without a denormalizer but got one ({}); steer does not run it when decoding",
          name);
  auto impl = std::make_shared<SentencepieceImpl>();
  const auto status = impl->processor.LoadFromSerializedProto({bytes.data(), bytes.size()});
  require(status.ok(), ErrorCode::format, "Tokenizer::load",
          "expected a sentencepiece model but the library says: {} ({})", status.ToString(), name);
  for (std::size_t i = 0; i < file.pieces.size(); ++i) {
    const auto& piece = file.pieces[i];
    const auto id = static_cast<std::int32_t>(i);
    impl->vocabulary.set(id, piece.text, piece.kind);
    if (piece.kind == PieceKind::control || piece.kind == PieceKind::unknown) impl->vocabulary.set_special(id);
    if (piece.kind == PieceKind::control) impl->controls.add({.id = id, .content = piece.text, .special = true});
  }
  impl->vocabulary.build_index();
  impl->controls.build();
  impl->dummy_prefix = file.add_dummy_prefix;
  if (is_plain_bpe(file)) impl->merges = merges_of(file, impl->vocabulary);
  const auto control = [&](std::int64_t id) -> std::optional<std::int64_t> {
    if (!impl->vocabulary.contains(id) || impl->vocabulary.kind(static_cast<std::int32_t>(id)) != PieceKind::control)
      return std::nullopt;
    return id;
  };
  impl->bos = control(file.bos_id);
  impl->eos = control(file.eos_id);
  impl->decoder.kind = TextDecoder::Kind::sentencepiece;
  impl->decoder.dummy_prefix = file.add_dummy_prefix;
  impl->decoder.squeeze_spaces = file.remove_extra_whitespaces;
  impl->decoder.unknown_text = file.unknown_text;
  impl->name = name;
  impl->hash = content_hash(bytes);
  return impl;
}

}  // namespace steer::text::detail
