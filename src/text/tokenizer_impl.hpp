#pragma once
// What stands behind a Tokenizer: one class for each way of cutting a text into pieces.

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <steer/text/tokenizer.hpp>

#include "text/text_decoder.hpp"
#include "text/vocabulary.hpp"

namespace steer {
class TensorReader;

namespace text::detail {

/// Takes the tokens of an encoding, with or without the bytes they came from.
class TokenSink {
 public:
  explicit TokenSink(std::vector<std::int64_t>& ids) : ids_(&ids) {}
  explicit TokenSink(std::vector<TokenSpan>& spans) : spans_(&spans) {}
  bool wants_spans() const { return spans_ != nullptr; }
  void add(std::int64_t id, std::size_t begin, std::size_t end) {
    if (spans_)
      spans_->push_back({id, static_cast<std::int64_t>(begin), static_cast<std::int64_t>(end)});
    else
      ids_->push_back(id);
  }
  void add(std::int64_t id) { ids_->push_back(id); }  ///< only without spans

 private:
  std::vector<std::int64_t>* ids_ = nullptr;
  std::vector<TokenSpan>* spans_ = nullptr;
};

}  // namespace text::detail

/// Immutable once built: every member may be called from several threads.
struct Tokenizer::Impl {
  virtual ~Impl() = default;
  virtual void encode(std::string_view text, const EncodeOptions& options, text::detail::TokenSink& sink) const = 0;

  text::detail::Vocabulary vocabulary;
  text::detail::TextDecoder decoder;
  std::optional<std::int64_t> bos, eos, end_of_turn;
  std::vector<std::pair<std::string, std::string>> special_names, chat_templates;
  std::optional<std::string> chat_template;
  void add_chat_template(const std::string& name, std::string source);  ///< replaces one of the same name
  std::string hash;
  std::string name;  ///< the file, for messages
};

namespace text::detail {

using TokenizerParts = std::shared_ptr<Tokenizer::Impl>;

/// One function for each format; `name` is the file, for messages. @throws Error(format | unsupported).
TokenizerParts read_sentencepiece(std::string_view bytes, const std::string& name);
TokenizerParts read_tokenizer_json(std::string_view bytes, const std::string& name);
TokenizerParts read_gguf_tokenizer(const TensorReader& file);
/// What tokenizer_config.json and chat_template.jinja in the tokenizer's folder add: BOS, EOS, the chat template.
void read_tokenizer_config(const std::filesystem::path& folder, Tokenizer::Impl& out);

}  // namespace text::detail
}  // namespace steer
