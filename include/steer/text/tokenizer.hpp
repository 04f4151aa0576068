#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace steer {

class TensorReader;

/// Text to ids.
struct EncodeOptions {
  bool add_special = true;    ///< add what the tokenizer's post-processor adds (BOS, EOS)
  bool parse_special = true;  ///< text that spells a special token becomes that token; false for untrusted text
  /// Bytes [begin, end) of the text, in order, in which no special token is parsed whatever `parse_special` says.
  std::span<const std::pair<std::int64_t, std::int64_t>> untrusted = {};
};

/// Ids to text.
struct DecodeOptions {
  bool skip_special = false;  ///< leave special tokens out of the text
};

/// A token and the bytes of the source text [begin, end) it came from; begin == end for a token that came from no text
/// (BOS, the space a tokenizer puts before the first word).
struct TokenSpan {
  std::int64_t id;
  std::int64_t begin, end;
};

/// Text to ids and back, exactly as the model's own tokenizer does it. An immutable value: copies are cheap and
/// share their tables, all members may be called from several threads.
class Tokenizer {
 public:
  /// From a folder (tokenizer.json, else tokenizer.model), a tokenizer.json, a sentencepiece .model or a GGUF file.
  /// @throws Error(io | format | unsupported), naming the file and, for tokenizer.json, the part not supported.
  static Tokenizer load(const std::filesystem::path& path);
  /// From the metadata of an open GGUF file.
  static Tokenizer from_gguf(const TensorReader& file);

  /// Ids of a text. Invalid UTF-8 is replaced as the reference implementation replaces it.
  std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  /// Ids with the bytes each came from.
  std::vector<TokenSpan> encode_spans(std::string_view text, const EncodeOptions& options = {}) const;
  /// Text of ids. @throws Error(argument) for an id outside [0, vocab_size).
  std::string decode(std::span<const std::int64_t> ids, const DecodeOptions& options = {}) const;

  /// One more than the largest id.
  std::int64_t vocab_size() const;
  /// The id of a token by its vocabulary spelling (e.g. "<|eot_id|>"), or nothing.
  std::optional<std::int64_t> id_of(std::string_view token) const;
  /// The vocabulary spelling of an id. @throws Error(argument) outside [0, vocab_size).
  std::string token(std::int64_t id) const;
  /// Whether an id is a control token (BOS, <|eot_id|>, ...), which `skip_special` leaves out; false outside the
  /// vocabulary.
  bool is_special(std::int64_t id) const;
  /// Whether an id is a token found in a text before any other rule: a control token, or one that was added to the
  /// vocabulary; false outside it.
  bool is_added(std::int64_t id) const;
  /// Begin and end of sequence, where the tokenizer's files name them.
  std::optional<std::int64_t> bos() const;
  std::optional<std::int64_t> eos() const;
  /// End of turn, where a GGUF file names it (tokenizer.ggml.eot_token_id).
  std::optional<std::int64_t> end_of_turn() const;
  /// The special tokens that files name, as chat templates see them: {"bos_token", "<s>"}, ...
  const std::vector<std::pair<std::string, std::string>>& special_names() const;
  /// The sources of the model's chat templates by name, from tokenizer_config.json or chat_template.jinja beside the
  /// tokenizer or from GGUF metadata; a file's only one is called "default".
  const std::vector<std::pair<std::string, std::string>>& chat_templates() const;
  /// The one called "default".
  const std::optional<std::string>& chat_template() const;
  /// Identifies the vocabulary and its rules, for journals.
  const std::string& hash() const;

  struct Impl;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
};

/// Decodes a growing sequence: `push` returns the text that is final now and holds back bytes that may still become
/// part of a longer UTF-8 sequence, so that all returned texts together equal `decode` of all ids. One per sequence;
/// not thread-safe.
class StreamDecoder {
 public:
  /// Stands before a new sequence.
  explicit StreamDecoder(Tokenizer tokenizer, DecodeOptions options = {});
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  /// The next id's text, often empty or that of ids before it. @throws Error(argument) outside [0, vocab_size).
  std::string push(std::int64_t id);
  /// Whatever was held back, malformed bytes replaced by U+FFFD; the decoder then stands before a new sequence.
  std::string finish();

 private:
  struct State;
  Tokenizer tokenizer_;
  DecodeOptions options_;
  std::unique_ptr<State> state_;
};

}  // namespace steer
