#include "text/bpe_tokenizer.hpp"

#include <steer/core/error.hpp>

#include "text/utf8.hpp"

namespace steer::text::detail {

// What one call works with.
struct BpeTokenizer::Call {
  const EncodeOptions& options;
  TokenSink& sink;
  MappedText repaired;  // the text with malformed UTF-8 replaced; positions in it lead back to the caller's bytes
  PreTokenizer::Run cut;
  Bpe::Scratch scratch;
  MappedText text;
  std::vector<AddedTokens::Part> parts, inner_parts;
  std::vector<BpeToken> tokens;
};

void BpeTokenizer::encode(std::string_view text, const EncodeOptions& options, TokenSink& sink) const {
  require(text.size() < (std::size_t{1} << 30), ErrorCode::argument, "Tokenizer::encode",
          "expected a text of less than 1 GiB but got {} bytes; cut it", text.size());
  Call call{options, sink, {}, PreTokenizer::Run(pre_tokenizer), {}, {}, {}, {}, {}};
  call.repaired.reset(text, 0, sink.wants_spans());
  if (replaces_malformed && !utf8_valid(text)) {
    call.repaired.begin_rewrite();
    for (std::size_t at = 0; at < text.size();) {
      const Utf8Step step = utf8_step(text, at);
      if (step.valid)
        call.repaired.keep(at, at + step.length);
      else
        call.repaired.write(at, at + step.length, replacement_character);
      at += step.length;
    }
    call.repaired.commit();
  }
  if (options.add_special)
    for (const std::int64_t id : before) sink.add(id, 0, 0);
  const std::string_view valid = call.repaired.text();
  raw_tokens.split(valid, options.parse_special, call.parts);
  for (const auto& part : call.parts) {
    if (part.token) {
      const ByteRange from =
          call.repaired.source(static_cast<std::uint32_t>(part.begin), static_cast<std::uint32_t>(part.end));
      sink.add(part.token->id, from.begin, from.end);
    } else {
      encode_part(valid.substr(part.begin, part.end - part.begin), static_cast<std::uint32_t>(part.begin), call);
    }
  }
  if (options.add_special)
    for (const std::int64_t id : after) sink.add(id, text.size(), text.size());
}

// Text between raw tokens: `offset` is its place in the repaired text.
void BpeTokenizer::encode_part(std::string_view part, std::uint32_t offset, Call& call) const {
  const bool spans = call.sink.wants_spans();
  MappedText normalized;
  normalized.reset(part, offset, spans);
  normalizer.apply(normalized);
  const auto add = [&](std::int64_t id, ByteRange in_repaired) {
    const ByteRange from = call.repaired.source(in_repaired.begin, in_repaired.end);
    call.sink.add(id, from.begin, from.end);
  };
  call.inner_parts.clear();
  normalized_tokens.split(normalized.text(), call.options.parse_special, call.inner_parts);
  for (const auto& inner : call.inner_parts) {
    const auto begin = static_cast<std::uint32_t>(inner.begin), end = static_cast<std::uint32_t>(inner.end);
    if (inner.token) {
      if (spans)
        add(inner.token->id, normalized.source(begin, end));
      else
        call.sink.add(inner.token->id);
      continue;
    }
    call.text.reset(normalized.text().substr(begin, end - begin), 0, spans);
    for (const ByteRange piece : call.cut(call.text, offset == 0 && begin == 0)) {
      call.tokens.clear();
      bpe.encode(call.text.text().substr(piece.begin, piece.end - piece.begin), call.scratch, call.tokens);
      for (const BpeToken& token : call.tokens) {
        if (spans) {
          const ByteRange in_inner = call.text.source(piece.begin + token.begin, piece.begin + token.end);
          add(token.id, normalized.source(begin + in_inner.begin, begin + in_inner.end));
        } else {
          call.sink.add(token.id);
        }
      }
    }
  }
}

}  // namespace steer::text::detail
