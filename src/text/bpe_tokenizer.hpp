#pragma once
// The pipeline of tokenizer.json: added tokens, normaliser, pre-tokeniser, model, post-processor. GGUF vocabularies
// run on it too.

#include "text/added_tokens.hpp"
#include "text/bpe.hpp"
#include "text/normalizer.hpp"
#include "text/pre_tokenizer.hpp"
#include "text/tokenizer_impl.hpp"

namespace steer::text::detail {

struct BpeTokenizer final : Tokenizer::Impl {
  AddedTokens raw_tokens;         ///< found in the text as it is
  AddedTokens normalized_tokens;  ///< found in the normalised text
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe bpe;
  /// The merges but for those that give a special token, which some files spell like a piece: for untrusted text.
  /// Null where there are none such.
  std::unique_ptr<Bpe> untrusted_bpe;
  std::vector<std::int64_t> before, after;  ///< what `add_special` puts around the ids
  bool replaces_malformed = true;  ///< malformed UTF-8 becomes U+FFFD; false: it reaches the byte pieces as it is

  void encode(std::string_view text, const EncodeOptions& options, TokenSink& sink) const override;

 private:
  struct Call;
  static bool is_untrusted(const Call& call, std::size_t begin, std::size_t end);
  void encode_part(std::string_view part, std::uint32_t offset, Call& call) const;
};

}  // namespace steer::text::detail
