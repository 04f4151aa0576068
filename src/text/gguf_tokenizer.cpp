// Tokenizers inside GGUF files. Keys: the GGUF specification (ggml/docs/gguf.md); behaviour: llama.cpp's
// src/llama-vocab.cpp (MIT), which is what such files are made for.

#include <cmath>
#include <map>
#include <unordered_set>

#include <steer/core/error.hpp>
#include <steer/core/hash.hpp>
#include <steer/io/tensor_reader.hpp>

#include "core/format_text.hpp"
#include "text/bpe_tokenizer.hpp"
#include "text/json_fields.hpp"
#include "text/score_merges.hpp"
#include "text/space_mark.hpp"

namespace steer::text::detail {
namespace {

using nlohmann::json;
constexpr std::string_view kFromGguf = "Tokenizer::from_gguf";

class Metadata {
 public:
  Metadata(const json& values, const std::string& name) : values_(values), name_(name) {}

  const json* find(const std::string& key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : &*found;
  }
  std::optional<std::string> text(const std::string& key) const {
    const json* value = find(key);
    if (!value) return std::nullopt;
    check(value->is_string(), key, "a string", *value);
    return value->get<std::string>();
  }
  bool flag(const std::string& key, bool fallback) const {
    const json* value = find(key);
    if (!value) return fallback;
    check(value->is_boolean(), key, "a boolean", *value);
    return value->get<bool>();
  }
  /// An id below `size`; llama.cpp ignores ids outside the vocabulary, and so does steer.
  std::optional<std::int64_t> id(const std::string& key, std::int32_t size) const {
    const json* value = find(key);
    if (!value) return std::nullopt;
    check(value->is_number_integer(), key, "an integer", *value);
    if (!value->is_number_unsigned() && value->get<std::int64_t>() < 0) return std::nullopt;
    const auto number = value->get<std::uint64_t>();
    if (number >= static_cast<std::uint64_t>(size)) return std::nullopt;
    return static_cast<std::int64_t>(number);
  }
  const json* array(const std::string& key, std::size_t size, bool required) const {
    const json* value = find(key);
    if (!value && !required) return nullptr;
    require(value != nullptr, ErrorCode::format, kFromGguf, "expected the key {} but the file has none ({})", key,
            name_);
    check(value->is_array() && (size == 0 || value->size() == size), key,
          size == 0 ? "an array" : format_text("an array of {}", size), *value);
    return value;
  }

 private:
  void check(bool ok, const std::string& key, std::string_view kind, const json& value) const {
    require(ok, ErrorCode::format, kFromGguf, "expected {} to be {} but got {} of {} ({})", key, kind,
            value.type_name(), value.size(), name_);
  }
  const json& values_;
  const std::string& name_;
};

// Patterns as llama.cpp writes them: it has no (?i:), and lets single white space fall between matches.
#define STEER_CONTRACTIONS "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define STEER_AFTER_NUMBERS R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"
constexpr const char* llama3 = STEER_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})" STEER_AFTER_NUMBERS;
constexpr const char* qwen2 = STEER_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})" STEER_AFTER_NUMBERS;
constexpr const char* gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))";
constexpr const char* three_digits = "[0-9][0-9][0-9]";
#undef STEER_CONTRACTIONS
#undef STEER_AFTER_NUMBERS

struct PreKind {
  std::vector<const char*> patterns;  ///< each cuts what those before it left
  bool ignore_merges = false, add_bos = false;
};

const std::map<std::string, PreKind, std::less<>>& pre_kinds() {
  static const auto kinds = [] {
    std::map<std::string, PreKind, std::less<>> out;
    for (const char* name : {"llama-bpe", "llama3", "llama-v3", "falcon3"}) out[name] = {{llama3}, true, true};
    for (const char* name : {"dbrx", "smaug-bpe", "chatglm-bpe"}) out[name] = {{llama3}};
    for (const char* name : {"qwen2", "stablelm2", "megrez", "deepseek-r1-qwen"}) out[name] = {{qwen2}};
    for (const char* name : {"gpt-2", "phi-2", "olmo", "mpt", "jais", "gigachat", "jina-es", "jina-de", "jina-v1-en",
                             "jina-v2-es", "jina-v2-de", "jina-v2-code", "roberta-bpe"})
      out[name] = {{gpt2}};
    for (const char* name : {"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"})
      out[name] = {{R"(\p{N})", gpt2}};
    out["falcon"] = {{R"([\p{P}\$\+<=>\^~\|`]+)", gpt2, three_digits}};
    out["default"] = {{R"([\p{P}\$\+<=>\^~\|]+)", gpt2, R"(\p{N}+)", three_digits}};
    out["deepseek-v3"] = {
        {R"(\p{N}{1,3})", R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)",
         R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}};
    return out;
  }();
  return kinds;
}

void read_vocabulary(const Metadata& metadata, BpeTokenizer& out) {
  const json& tokens = *metadata.array("tokenizer.ggml.tokens", 0, true);
  require(!tokens.empty() && tokens.size() < (1u << 26), ErrorCode::format, kFromGguf,
          "expected 1 to 2^26 tokens but got {} ({})", tokens.size(), out.name);
  const json* types = metadata.array("tokenizer.ggml.token_type", tokens.size(), false);
  // llama.cpp takes these for control tokens whatever the file says: they end a turn.
  static const std::unordered_set<std::string_view> ends = {"<|eot_id|>",    "<|im_end|>", "<|end|>", "<end_of_turn>",
                                                            "<|endoftext|>", "<|eom_id|>", "<EOT>"};
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    require(tokens[i].is_string(), ErrorCode::format, kFromGguf,
            "expected tokenizer.ggml.tokens to hold strings but token {} is {} ({})", i, tokens[i].type_name(),
            out.name);
    const auto& piece = tokens[i].get_ref<const std::string&>();
    PieceKind kind = PieceKind::normal;
    if (types) {
      const json& type = (*types)[i];
      require(type.is_number_integer(), ErrorCode::format, kFromGguf,
              "expected tokenizer.ggml.token_type to hold integers but type {} is {} ({})", i, type.type_name(),
              out.name);
      switch (type.get<std::int64_t>()) {
        case 2:
          kind = PieceKind::unknown;
          break;
        case 3:
          kind = PieceKind::control;
          break;
        case 4:
          kind = PieceKind::user_defined;
          break;
        case 5:
          kind = PieceKind::unused;
          break;
        case 6:
          kind = PieceKind::byte;
          break;
        default:
          break;
      }
    }
    if (ends.contains(piece)) kind = PieceKind::control;
    const auto id = static_cast<std::int32_t>(i);
    out.vocabulary.set(id, piece, kind);
    const bool special = kind == PieceKind::control || kind == PieceKind::unknown;
    if (special) out.vocabulary.set_special(id);
    if (special || kind == PieceKind::user_defined)
      out.raw_tokens.add({.id = id, .content = piece, .special = special});
  }
  out.vocabulary.build_index();
  out.raw_tokens.build();
}

std::vector<float> read_scores(const Metadata& metadata, const BpeTokenizer& out) {
  const auto size = static_cast<std::size_t>(out.vocabulary.size());
  const json& scores = *metadata.array("tokenizer.ggml.scores", size, true);
  std::vector<float> score(size);
  for (std::size_t i = 0; i < size; ++i) {
    require(scores[i].is_number() && std::isfinite(scores[i].get<float>()), ErrorCode::format, kFromGguf,
            "expected tokenizer.ggml.scores to hold finite numbers but score {} is {} ({})", i, scores[i].dump(),
            out.name);
    score[i] = scores[i].get<float>();
  }
  return score;
}

void read_spm(const Metadata& metadata, BpeTokenizer& out) {
  add_score_merges(out.vocabulary, read_scores(metadata, out), out.bpe);
  const auto unknown = metadata.id("tokenizer.ggml.unknown_token_id", out.vocabulary.size());
  out.bpe.finish(out.vocabulary, {.byte_level = false,
                                  .byte_fallback = true,
                                  .fuse_unknown = false,
                                  .ignore_merges = false,
                                  .unknown = static_cast<std::int32_t>(unknown.value_or(0))});
  const bool prefix = metadata.flag("tokenizer.ggml.add_space_prefix", true);
  if (prefix) out.normalizer.add(PrependRule{" "});
  out.normalizer.add(ReplaceRule{.from = " ", .regex = {}, .to = std::string(space_mark)});
  out.replaces_malformed = false;
  out.decoder.kind = TextDecoder::Kind::gguf_spm;
  out.decoder.strip_start = prefix ? 1 : 0;
}

void read_merges(const Metadata& metadata, BpeTokenizer& out, bool ignore_merges) {
  const json& merges = *metadata.array("tokenizer.ggml.merges", 0, true);
  out.bpe.reserve_merges(merges.size());
  std::int32_t rank = 0;
  for (const json& merge : merges) {
    require(merge.is_string(), ErrorCode::format, kFromGguf,
            "expected tokenizer.ggml.merges to hold strings but got {} ({})", merge.type_name(), out.name);
    const std::string_view text = merge.get_ref<const std::string&>();
    const std::size_t space = text.find(' ', 1);
    require(space != std::string_view::npos, ErrorCode::format, kFromGguf,
            "expected merges of two pieces with a space between but got \"{}\" ({})", text, out.name);
    const std::string_view left = text.substr(0, space), right = text.substr(space + 1);
    const std::int32_t a = out.vocabulary.find(left), b = out.vocabulary.find(right);
    const std::int32_t joined = out.vocabulary.find(std::string(left) + std::string(right));
    require(a != Vocabulary::none && b != Vocabulary::none && joined != Vocabulary::none, ErrorCode::format, kFromGguf,
            "expected merges of pieces in the vocabulary but got \"{}\" ({})", text, out.name);
    if (!out.vocabulary.special(joined)) out.bpe.add_merge(a, b, rank, joined);
    ++rank;
  }
  out.bpe.finish(out.vocabulary, {.byte_level = true,
                                  .byte_fallback = false,
                                  .fuse_unknown = false,
                                  .ignore_merges = ignore_merges,
                                  .unknown = Vocabulary::none});
}

// @return whether this kind adds BOS unless the file says otherwise.
bool read_gpt2(const Metadata& metadata, BpeTokenizer& out) {
  const std::string pre = metadata.text("tokenizer.ggml.pre").value_or("default");
  const auto found = pre_kinds().find(pre);
  if (found == pre_kinds().end()) {
    std::string known;
    for (const auto& [kind, unused] : pre_kinds()) known += (known.empty() ? "" : ", ") + kind;
    fail(ErrorCode::unsupported, kFromGguf, "expected a tokenizer.ggml.pre that steer knows ({}) but got \"{}\" ({})",
         known, pre, out.name);
  }
  for (const char* pattern : found->second.patterns) {
    SplitRule rule;
    rule.regex.emplace_back(pattern, out.name);
    out.pre_tokenizer.add(std::move(rule));
  }
  out.pre_tokenizer.add_alphabet();
  read_merges(metadata, out, found->second.ignore_merges);
  out.decoder.kind = TextDecoder::Kind::byte_level;
  return found->second.add_bos;
}

// One template, and more by name under tokenizer.chat_template.NAME.
void read_chat_templates(const Metadata& metadata, const json& values, BpeTokenizer& out) {
  if (auto source = metadata.text("tokenizer.chat_template")) out.add_chat_template("default", std::move(*source));
  constexpr std::string_view named = "tokenizer.chat_template.";
  for (const auto& [name, value] : values.items())
    if (name.starts_with(named) && value.is_string())
      out.add_chat_template(name.substr(named.size()), value.get<std::string>());
}

void read_special_names(const Metadata& metadata, BpeTokenizer& out) {
  const auto name = [&](const char* text, std::optional<std::int64_t> id) {
    if (id) out.special_names.emplace_back(text, out.vocabulary.piece(static_cast<std::int32_t>(*id)));
  };
  const std::int32_t size = out.vocabulary.size();
  name("bos_token", out.bos);
  name("eos_token", out.eos);
  name("unk_token", metadata.id("tokenizer.ggml.unknown_token_id", size));
  name("sep_token", metadata.id("tokenizer.ggml.seperator_token_id", size));  // so spelled in the specification
  name("pad_token", metadata.id("tokenizer.ggml.padding_token_id", size));
}

}  // namespace

TokenizerParts read_gguf_tokenizer(const TensorReader& file) {
  const json& values = file.metadata();
  auto out = std::make_shared<BpeTokenizer>();
  out->name = file.path().string();
  const Metadata metadata(values, out->name);
  const auto model = metadata.text("tokenizer.ggml.model");
  require(model.has_value(), ErrorCode::format, kFromGguf,
          "expected the key tokenizer.ggml.model but the file has none ({}); it holds no tokenizer", out->name);
  require(*model == "llama" || *model == "gpt2", ErrorCode::unsupported, kFromGguf,
          "expected a tokenizer.ggml.model that steer knows (llama, gpt2) but got \"{}\" ({})", *model, out->name);
  read_vocabulary(metadata, *out);
  bool add_bos = true;
  if (*model == "llama")
    read_spm(metadata, *out);
  else
    add_bos = read_gpt2(metadata, *out);

  const std::int32_t size = out->vocabulary.size();
  out->bos = metadata.id("tokenizer.ggml.bos_token_id", size);
  out->eos = metadata.id("tokenizer.ggml.eos_token_id", size);
  // The defaults of llama.cpp for sentencepiece files that do not name them.
  if (*model == "llama" && !out->bos && size > 2) out->bos = 1;
  if (*model == "llama" && !out->eos && size > 2) out->eos = 2;
  if (metadata.flag("tokenizer.ggml.add_bos_token", add_bos) && out->bos) out->before.push_back(*out->bos);
  if (metadata.flag("tokenizer.ggml.add_eos_token", false) && out->eos) out->after.push_back(*out->eos);
  out->end_of_turn = metadata.id("tokenizer.ggml.eot_token_id", size);
  read_chat_templates(metadata, values, *out);
  read_special_names(metadata, *out);

  ContentHasher hasher;
  for (const auto& [key, value] : values.items())
    if (key.starts_with("tokenizer.ggml."))
      hasher.update(key).update(value.dump(-1, ' ', false, json::error_handler_t::replace));
  out->hash = hasher.hex();
  return out;
}

}  // namespace steer::text::detail
