// Builds a BpeTokenizer from tokenizer.json (format: Hugging Face's tokenizers, version "1.0").

#include <algorithm>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>

#include "core/format_text.hpp"
#include "io/strict_json.hpp"
#include "text/bpe_tokenizer.hpp"
#include "text/json_fields.hpp"
#include "text/tokenizer_json.hpp"

namespace steer::text::detail {
namespace {

using io::detail::quote;
using nlohmann::json;

void read_model(const TokenizerJson& file, BpeTokenizer& out) {
  const std::string& name = out.name;
  const JsonFields root(file.rest, "tokenizer.json", name);
  const JsonFields model(root.object("model"), "model", name);
  // Old files do not say BPE; only BPE has merges.
  const std::string type = model.text("type", file.has_merges ? "BPE" : "unknown");
  if (type != "BPE") model.unsupported("a model of type " + quote(type), "BPE");
  if (const json* dropout = model.find("dropout"); dropout && *dropout != 0) model.unsupported("dropout", "none");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!model.text(key, "").empty()) model.unsupported(format_text("{} {}", key, quote(model.text(key))), "none");

  Vocabulary& vocabulary = out.vocabulary;
  BpeRules rules{.byte_level = out.pre_tokenizer.byte_level(),
                 .byte_fallback = model.flag("byte_fallback", false),
                 .fuse_unknown = model.flag("fuse_unk", false),
                 .ignore_merges = model.flag("ignore_merges", false),
                 .unknown = Vocabulary::none};
  if (model.find("unk_token")) {
    rules.unknown = vocabulary.find(model.text("unk_token"));
    require(rules.unknown != Vocabulary::none, ErrorCode::format, kTokenizerLoad,
            "expected model.unk_token in the vocabulary but {} is not there ({})", quote(model.text("unk_token")),
            name);
  }
  out.bpe.reserve_merges(file.merges.size());
  struct Read {
    std::int32_t left, right, result;
  };
  std::vector<Read> merges;
  merges.reserve(file.merges.size());
  bool spells_special = false;
  for (const auto& merge : file.merges) {
    const std::string_view both = std::string_view(file.merge_text).substr(merge.begin, merge.left + merge.right);
    const std::int32_t left = vocabulary.find(both.substr(0, merge.left)),
                       right = vocabulary.find(both.substr(merge.left));
    const std::int32_t result = vocabulary.find(both);
    require(left != Vocabulary::none && right != Vocabulary::none && result != Vocabulary::none, ErrorCode::format,
            kTokenizerLoad, "expected merges of pieces in the vocabulary, joined to one in it, but got {} and {} ({})",
            quote(both.substr(0, merge.left)), quote(both.substr(merge.left)), name);
    merges.push_back({left, right, result});
    spells_special = spells_special || vocabulary.special(result);
  }
  const auto build = [&](Bpe& bpe, bool with_special) {
    for (std::size_t rank = 0; rank < merges.size(); ++rank)
      if (const auto& [left, right, result] = merges[rank]; with_special || !vocabulary.special(result))
        bpe.add_merge(left, right, static_cast<std::int32_t>(rank), result);
    bpe.finish(vocabulary, rules);
  };
  build(out.bpe, true);
  if (!spells_special) return;
  out.untrusted_bpe = std::make_unique<Bpe>();
  build(*out.untrusted_bpe, false);
}

void read_added_tokens(const json& rest, std::int64_t most, BpeTokenizer& out) {
  const JsonFields root(rest, "tokenizer.json", out.name);
  if (!root.find("added_tokens")) return;
  for (const json& item : root.array("added_tokens")) {
    const JsonFields fields(item, "added_tokens", out.name);
    AddedToken token{.id = static_cast<std::int32_t>(fields.integer("id", 0, most - 1)),
                     .content = fields.text("content"),
                     .special = fields.flag("special", false),
                     .single_word = fields.flag("single_word", false),
                     .lstrip = fields.flag("lstrip", false),
                     .rstrip = fields.flag("rstrip", false)};
    out.vocabulary.set(token.id, token.content, token.special ? PieceKind::control : PieceKind::user_defined);
    if (token.special) out.vocabulary.set_special(token.id);
    const bool normalized = fields.flag("normalized", !token.special);
    if (!normalized || out.normalizer.empty()) {
      out.raw_tokens.add(std::move(token));
    } else {
      MappedText content;
      content.reset(token.content, 0, false);
      out.normalizer.apply(content);
      const std::string text(content.text());
      token.content = text;
      out.normalized_tokens.add(std::move(token));
    }
  }
}

void read_post_processor(const json& section, BpeTokenizer& out) {
  if (section.is_null()) return;
  const JsonFields fields(section, "post_processor", out.name);
  const std::string type = fields.text("type");
  const auto added = [&](const json& pair) {
    require(pair.is_array() && pair.size() == 2 && pair[1].is_number_unsigned() && pair[1] < (1 << 30),
            ErrorCode::format, kTokenizerLoad, "expected post_processor.cls and sep as [token, id] but got {} ({})",
            io::detail::brief(pair), out.name);
    return pair[1].get<std::int64_t>();
  };
  if (type == "ByteLevel") return;  // only moves offsets
  if (type == "Sequence") {
    for (const json& part : fields.array("processors")) read_post_processor(part, out);
  } else if (type == "TemplateProcessing") {
    const json* tokens = fields.find("special_tokens");
    bool seen_text = false;
    for (const json& item : fields.array("single")) {
      const JsonFields part(item, "post_processor.single", out.name);
      if (part.find("Sequence")) {
        require(!seen_text, ErrorCode::unsupported, kTokenizerLoad,
                "expected a post_processor that uses the text once ({})", out.name);
        seen_text = true;
        continue;
      }
      const std::string id = JsonFields(part.object("SpecialToken"), "SpecialToken", out.name).text("id");
      require(tokens && tokens->is_object() && tokens->contains(id), ErrorCode::format, kTokenizerLoad,
              "expected post_processor.special_tokens to hold {} ({})", quote(id), out.name);
      for (const json& value : JsonFields((*tokens)[id], "special_tokens", out.name).array("ids")) {
        require(value.is_number_unsigned() && value < (1 << 30), ErrorCode::format, kTokenizerLoad,
                "expected ids of post_processor.special_tokens but got {} ({})", io::detail::brief(value), out.name);
        (seen_text ? out.after : out.before).push_back(value.get<std::int64_t>());
      }
    }
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    out.before.push_back(added(fields.array("cls")));
    out.after.push_back(added(fields.array("sep")));
  } else {
    fields.unsupported("a post_processor of type " + quote(type),
                       "Sequence, TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing");
  }
}

// Steps must come in the one order that files use: Replace, ByteFallback, Fuse, Strip.
void read_decoder_step(const JsonFields& fields, TextDecoder& decoder, int& stage) {
  const std::string type = fields.text("type");
  const auto enter = [&](int next, bool repeats) {
    if (next < stage || (next == stage && !repeats))
      fields.unsupported("the decoder step " + quote(type) + " in this order", "Replace, ByteFallback, Fuse, Strip");
    stage = next;
  };
  decoder.kind = TextDecoder::Kind::steps;
  if (type == "Replace") {
    enter(1, true);
    const auto [pattern, is_regex] = fields.pattern("pattern");
    if (is_regex) fields.unsupported("a decoder Replace by regular expression", "plain text");
    decoder.replacements.emplace_back(pattern, fields.text("content"));
  } else if (type == "ByteFallback") {
    enter(2, false);
    decoder.byte_fallback = true;
  } else if (type == "Fuse") {
    enter(3, false);
    decoder.fuse = true;
  } else if (type == "Strip") {
    enter(4, false);
    decoder.strip_content = fields.text("content");
    decoder.strip_start = static_cast<int>(fields.integer("start", 0, 1 << 20));
    if (fields.integer("stop", 0, 1 << 20) != 0) fields.unsupported("a decoder Strip at the end", "at the start");
  } else {
    fields.unsupported("a decoder step of type " + quote(type), "Replace, ByteFallback, Fuse, Strip");
  }
}

void read_decoder(const json& section, const std::string& name, TextDecoder& decoder) {
  if (section.is_null()) {
    decoder.kind = TextDecoder::Kind::joined;
    return;
  }
  const JsonFields fields(section, "decoder", name);
  const std::string type = fields.text("type");
  if (type == "Sequence" && fields.array("decoders").size() == 1) {
    read_decoder(fields.array("decoders")[0], name, decoder);
  } else if (type == "ByteLevel") {
    decoder.kind = TextDecoder::Kind::byte_level;
  } else if (type == "Metaspace") {
    decoder.kind = TextDecoder::Kind::metaspace;
    decoder.metaspace = fields.text("replacement", decoder.metaspace);
    decoder.dummy_prefix =
        fields.text("prepend_scheme", fields.flag("add_prefix_space", true) ? "always" : "never") != "never";
  } else if (type == "Sequence") {
    int stage = 0;
    for (const json& step : fields.array("decoders"))
      read_decoder_step(JsonFields(step, "decoder", name), decoder, stage);
    if (stage == 0) decoder.kind = TextDecoder::Kind::steps;
  } else {
    int stage = 0;
    read_decoder_step(fields, decoder, stage);
  }
}

}  // namespace

TokenizerParts read_tokenizer_json(std::string_view bytes, const std::string& name) {
  const TokenizerJson file = parse_tokenizer_json(bytes, name);
  auto out = std::make_shared<BpeTokenizer>();
  out->name = name;
  out->hash = content_hash(bytes);
  const auto section = [&](const char* key) -> json { return file.rest.contains(key) ? file.rest[key] : json(); };
  out->normalizer = Normalizer(section("normalizer"), name);
  out->pre_tokenizer = PreTokenizer(section("pre_tokenizer"), name);
  // Ids come from the file, so their range is bounded by what the file can hold before anything is sized by it.
  const std::size_t most = file.vocabulary.size() + bytes.size();
  for (const auto& [piece, id] : file.vocabulary) {
    require(static_cast<std::size_t>(id) < most, ErrorCode::format, kTokenizerLoad,
            "expected ids without large gaps but {} has {} ({})", quote(piece), id, name);
    out->vocabulary.set(id, piece);
  }
  out->vocabulary.build_index();
  read_added_tokens(file.rest, static_cast<std::int64_t>(std::min<std::size_t>(most, 1u << 30)), *out);
  out->vocabulary.build_index();
  out->raw_tokens.build();
  out->normalized_tokens.build();
  read_model(file, *out);
  read_post_processor(section("post_processor"), *out);
  for (const std::int64_t id : out->before)
    require(out->vocabulary.contains(id), ErrorCode::format, kTokenizerLoad,
            "expected post_processor ids in the vocabulary but got {} ({})", id, name);
  for (const std::int64_t id : out->after)
    require(out->vocabulary.contains(id), ErrorCode::format, kTokenizerLoad,
            "expected post_processor ids in the vocabulary but got {} ({})", id, name);
  read_decoder(section("decoder"), name, out->decoder);
  return out;
}

}  // namespace steer::text::detail
