#include <steer/text/tokenizer.hpp>

#include <fstream>

#include <steer/core/error.hpp>
#include <steer/io/tensor_reader.hpp>

#include "io/impostors.hpp"
#include "io/text_file.hpp"
#include "text/tokenizer_impl.hpp"

namespace steer {
namespace {

bool is_gguf(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[4] = {};
  return file.read(magic, 4) && std::string_view(magic, 4) == "GGUF";
}

}  // namespace

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    for (const char* name : {"tokenizer.json", "tokenizer.model"})
      if (fs::is_regular_file(path / name, ignored)) return load(path / name);
    fail(ErrorCode::io, "Tokenizer::load",
         "expected tokenizer.json or tokenizer.model in the folder but found neither ({})", path.string());
  }
  require(fs::is_regular_file(path, ignored), ErrorCode::io, "Tokenizer::load",
          "expected a folder, a tokenizer.json, a sentencepiece .model or a GGUF file but found no such file ({})",
          path.string());
  if (is_gguf(path)) return from_gguf(*open_tensors(path));
  const std::string bytes = io::detail::read_text_file(path, "Tokenizer::load");
  const std::size_t first = bytes.find_first_not_of(" \t\r\n", bytes.starts_with("\xef\xbb\xbf") ? 3 : 0);
  if (const auto* impostor = io::detail::find_impostor(bytes))
    fail(ErrorCode::format, "Tokenizer::load", "expected a tokenizer but got {} ({}); {}", impostor->what,
         path.string(), impostor->advice);
  // JSON begins with a brace; a sentencepiece model with the tag of its first piece, a line feed (0x0A).
  const bool is_json = first != std::string::npos && bytes[first] == '{' && bytes[0] != '\n';
  auto parts = is_json ? text::detail::read_tokenizer_json(bytes, path.string())
                       : text::detail::read_sentencepiece(bytes, path.string());
  text::detail::read_tokenizer_config(path.parent_path(), *parts);
  return Tokenizer(std::move(parts));
}

Tokenizer Tokenizer::from_gguf(const TensorReader& file) { return Tokenizer(text::detail::read_gguf_tokenizer(file)); }

void Tokenizer::Impl::add_chat_template(const std::string& name, std::string source) {
  if (name == "default") chat_template = source;
  for (auto& [known, old] : chat_templates)
    if (known == name) {
      old = std::move(source);
      return;
    }
  chat_templates.emplace_back(name, std::move(source));
}

std::vector<std::int64_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<std::int64_t> ids;
  text::detail::TokenSink sink(ids);
  impl_->encode(text, options, sink);
  return ids;
}

std::vector<TokenSpan> Tokenizer::encode_spans(std::string_view text, const EncodeOptions& options) const {
  std::vector<TokenSpan> spans;
  text::detail::TokenSink sink(spans);
  impl_->encode(text, options, sink);
  return spans;
}

std::string Tokenizer::decode(std::span<const std::int64_t> ids, const DecodeOptions& options) const {
  StreamDecoder decoder(*this, options);
  std::string text;
  for (const std::int64_t id : ids) text += decoder.push(id);
  return text += decoder.finish();
}

std::int64_t Tokenizer::vocab_size() const { return impl_->vocabulary.size(); }

std::optional<std::int64_t> Tokenizer::id_of(std::string_view token) const {
  const std::int32_t id = impl_->vocabulary.find(token);
  if (id == text::detail::Vocabulary::none) return std::nullopt;
  return id;
}

std::string Tokenizer::token(std::int64_t id) const {
  require(impl_->vocabulary.contains(id), ErrorCode::argument, "Tokenizer::token",
          "expected an id in [0, {}) but got {} ({})", vocab_size(), id, impl_->name);
  return std::string(impl_->vocabulary.piece(static_cast<std::int32_t>(id)));
}

bool Tokenizer::is_special(std::int64_t id) const {
  return impl_->vocabulary.contains(id) && impl_->vocabulary.special(static_cast<std::int32_t>(id));
}

bool Tokenizer::is_added(std::int64_t id) const {
  if (!impl_->vocabulary.contains(id)) return false;
  const auto piece = static_cast<std::int32_t>(id);
  const auto kind = impl_->vocabulary.kind(piece);
  using text::detail::PieceKind;
  return impl_->vocabulary.special(piece) || kind == PieceKind::control || kind == PieceKind::user_defined;
}

std::optional<std::int64_t> Tokenizer::bos() const { return impl_->bos; }
std::optional<std::int64_t> Tokenizer::eos() const { return impl_->eos; }
std::optional<std::int64_t> Tokenizer::end_of_turn() const { return impl_->end_of_turn; }
const std::vector<std::pair<std::string, std::string>>& Tokenizer::special_names() const {
  return impl_->special_names;
}
const std::vector<std::pair<std::string, std::string>>& Tokenizer::chat_templates() const {
  return impl_->chat_templates;
}
const std::optional<std::string>& Tokenizer::chat_template() const { return impl_->chat_template; }
const std::string& Tokenizer::hash() const { return impl_->hash; }

struct StreamDecoder::State {
  text::detail::DecodeState decoding;
};

StreamDecoder::StreamDecoder(Tokenizer tokenizer, DecodeOptions options)
    : tokenizer_(std::move(tokenizer)), options_(options), state_(std::make_unique<State>()) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(std::int64_t id) {
  const Tokenizer::Impl& impl = *tokenizer_.impl_;
  require(impl.vocabulary.contains(id), ErrorCode::argument, "StreamDecoder::push",
          "expected an id in [0, {}) but got {} ({})", tokenizer_.vocab_size(), id, impl.name);
  const auto piece = static_cast<std::int32_t>(id);
  std::string text;
  // Ids in a gap of the vocabulary (a model's padded rows) have no text.
  if (impl.vocabulary.used(piece) && !(options_.skip_special && impl.vocabulary.special(piece)))
    impl.decoder.push(impl.vocabulary, piece, state_->decoding, text);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text;
  tokenizer_.impl_->decoder.finish(state_->decoding, text);
  return text;
}

}  // namespace steer
