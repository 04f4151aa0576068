#include "text/bpe_tokenizer.hpp"

#include <algorithm>

#include <steer/core/error.hpp>

#include "text/utf8.hpp"

namespace steer::text::detail {

namespace {

using Ranges = std::vector<std::pair<std::int64_t, std::int64_t>>;

// The bytes of a changed text that came from `ranges` (in order) of its source.
Ranges ranges_in(const MappedText& text, const Ranges& ranges) {
  Ranges out;
  for (std::uint32_t at = 0; at < text.text().size() && !ranges.empty(); ++at) {
    const ByteRange from = text.source(at, at + 1);
    const auto range =
        std::ranges::lower_bound(ranges, from.begin, std::ranges::less_equal(), &Ranges::value_type::second);
    if (range == ranges.end() || range->first >= std::max<std::int64_t>(from.end, from.begin + 1)) continue;
    if (!out.empty() && out.back().second == at)
      out.back().second = at + 1;
    else
      out.emplace_back(at, at + 1);
  }
  return out;
}

}  // namespace

// What one call works with.
struct BpeTokenizer::Call {
  const EncodeOptions& options;
  TokenSink& sink;
  MappedText repaired;  // the text with malformed UTF-8 replaced; positions in it lead back to the caller's bytes
  PreTokenizer::Run cut;
  Bpe::Scratch scratch;
  MappedText text;
  Ranges untrusted;  // in the repaired text
  std::vector<AddedTokens::Part> parts, inner_parts;
  std::vector<BpeToken> tokens;
};

void BpeTokenizer::encode(std::string_view text, const EncodeOptions& options, TokenSink& sink) const {
  require(text.size() < (std::size_t{1} << 30), ErrorCode::argument, "Tokenizer::encode",
          "expected a text of less than 1 GiB but got {} bytes; cut it", text.size());
  Call call{options, sink, {}, PreTokenizer::Run(pre_tokenizer), {}, {}, {}, {}, {}, {}};
  call.untrusted.assign(options.untrusted.begin(), options.untrusted.end());
  call.repaired.reset(text, 0, sink.wants_spans() || !call.untrusted.empty());
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
    call.untrusted = ranges_in(call.repaired, call.untrusted);
  }
  if (options.add_special)
    for (const std::int64_t id : before) sink.add(id, 0, 0);
  const std::string_view valid = call.repaired.text();
  raw_tokens.split(valid, options.parse_special, call.untrusted, call.parts);
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

// Whether any of the repaired text's bytes [begin, end) must not become a special token.
bool BpeTokenizer::is_untrusted(const Call& call, std::size_t begin, std::size_t end) {
  return !call.options.parse_special || std::ranges::any_of(call.untrusted, [&](const auto& range) {
    return range.first < static_cast<std::int64_t>(end) && range.second > static_cast<std::int64_t>(begin);
  });
}

// Text between raw tokens: `offset` is its place in the repaired text.
void BpeTokenizer::encode_part(std::string_view part, std::uint32_t offset, Call& call) const {
  const bool spans = call.sink.wants_spans();
  MappedText normalized;
  const bool guarded = !normalized_tokens.empty() && !call.untrusted.empty();
  normalized.reset(part, offset, spans || guarded);
  normalizer.apply(normalized);
  const auto add = [&](std::int64_t id, ByteRange in_repaired) {
    const ByteRange from = call.repaired.source(in_repaired.begin, in_repaired.end);
    call.sink.add(id, from.begin, from.end);
  };
  const Bpe& merges = untrusted_bpe && is_untrusted(call, offset, offset + part.size()) ? *untrusted_bpe : bpe;
  call.inner_parts.clear();
  normalized_tokens.split(normalized.text(), call.options.parse_special,
                          guarded ? ranges_in(normalized, call.untrusted) : Ranges(), call.inner_parts);
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
      merges.encode(call.text.text().substr(piece.begin, piece.end - piece.begin), call.scratch, call.tokens);
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
