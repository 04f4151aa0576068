#pragma once
// A pre-tokenizer's regular expression. The files are written for Oniguruma (as Hugging Face's tokenizers uses it);
// steer runs them on PCRE2 and makes the two agree.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/mapped_text.hpp"

namespace steer::text::detail {

/// Compiled once, used from any number of threads.
class Regex {
 public:
  /// `name` is the file, for messages. @throws Error(unsupported) for a pattern PCRE2 cannot run the same way.
  Regex(std::string_view pattern, const std::string& name);

  /// What one thread needs to match: make one a call and use it for many texts.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    /// The first match of `text` (valid UTF-8) that begins at or after `from`; false when there is none.
    /// @throws Error(argument) where the text drives the pattern over PCRE2's limits.
    bool find(std::string_view text, std::size_t from, ByteRange& match);

   private:
    const Regex* regex_;
    std::shared_ptr<void> match_data_;
  };

 private:
  std::shared_ptr<const void> code_;
  bool jit_ = false;
  std::string pattern_;
};

/// The pattern in PCRE2's terms: classes spelled out so that both engines' Unicode versions and notions of white
/// space agree. Exposed for its test.
std::string pcre2_pattern(std::string_view oniguruma, const std::string& name);

}  // namespace steer::text::detail
