#pragma once
// The `pre_tokenizer` section of a tokenizer.json: cuts the normalised text into pieces the model never joins.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/mapped_text.hpp"
#include "text/regex.hpp"

namespace steer::text::detail {

/// What becomes of the matches of a pattern (SplitDelimiterBehavior of Hugging Face's tokenizers).
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct SplitRule {
  std::vector<Regex> regex;               ///< one expression, or
  std::string text;                       ///< plain text, or
  bool (*is_member)(char32_t) = nullptr;  ///< a class of characters, each a match of its own
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;
};
struct PrefixRule {  ///< puts `mark` before a piece that does not begin with it
  std::string mark;
  bool first_only = false;  ///< only at the start of the source
};
struct MarkSpacesRule {  ///< writes `mark` for every space
  std::string mark;
};
struct AlphabetRule {};  ///< from here on pieces are seen in GPT-2's byte alphabet

/// A list of rules, applied in order to every piece. Immutable once read.
class PreTokenizer {
 public:
  PreTokenizer() = default;
  /// @throws Error(unsupported) naming the rule steer has not, Error(format) for fields of a wrong type.
  PreTokenizer(const nlohmann::json& section, const std::string& name) { read(section, name); }
  void add(SplitRule rule) { rules_.emplace_back(std::move(rule)); }
  void add_alphabet() { rules_.emplace_back(AlphabetRule{}), byte_level_ = true; }

  /// Whether the model sees bytes (in GPT-2's alphabet) rather than characters.
  bool byte_level() const { return byte_level_; }

  /// One thread's scratch and matchers.
  class Run {
   public:
    explicit Run(const PreTokenizer& rules);
    /// Cuts `text`; may rewrite it. @param at_start  whether it begins at the start of the source.
    /// @return pieces as ranges of `text.text()`, none of them empty; valid until the next call.
    const std::vector<ByteRange>& operator()(MappedText& text, bool at_start);

   private:
    struct Match {
      ByteRange range;
      bool is_match;
    };
    void split(const SplitRule& rule, std::size_t index, std::string_view text, bool alphabet);
    void find_matches(const SplitRule& rule, std::size_t index, std::string_view piece);
    template <class Edit>
    void rewrite(MappedText& text, const Edit& edit);
    const PreTokenizer& rules_;
    std::vector<Regex::Matcher> matchers_;  // one a regex rule, in order
    std::vector<ByteRange> pieces_, next_;
    std::vector<Match> matches_, joined_;
    std::string in_alphabet_;
    std::vector<std::uint32_t> byte_of_;
  };

 private:
  void read(const nlohmann::json& section, const std::string& name);
  std::vector<std::variant<SplitRule, PrefixRule, MarkSpacesRule, AlphabetRule>> rules_;
  bool byte_level_ = false;
};

/// GPT-2's pattern, which ByteLevel uses.
extern const char* const gpt2_pattern;

}  // namespace steer::text::detail
