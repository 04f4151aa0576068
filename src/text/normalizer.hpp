#pragma once
// The `normalizer` section of a tokenizer.json: rules that change the text before it is cut.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>
#include <vector>

#include "text/mapped_text.hpp"
#include "text/normal_forms.hpp"
#include "text/regex.hpp"

namespace steer::text::detail {

struct PrependRule {
  std::string text;
};
struct ReplaceRule {
  std::string from;          ///< plain text, or
  std::vector<Regex> regex;  ///< one expression
  std::string to;
};
struct StripRule {
  bool left, right;
};

/// A list of rules, applied in order. Immutable once read.
class Normalizer {
 public:
  Normalizer() = default;
  /// @throws Error(unsupported) naming the rule steer has not, Error(format) for fields of a wrong type.
  Normalizer(const nlohmann::json& section, const std::string& name) { read(section, name); }
  void add(PrependRule rule) { rules_.emplace_back(std::move(rule)); }
  void add(ReplaceRule rule) { rules_.emplace_back(std::move(rule)); }
  bool empty() const { return rules_.empty(); }

  /// Changes `text` (valid UTF-8, not empty).
  void apply(MappedText& text) const;

 private:
  void read(const nlohmann::json& section, const std::string& name);
  std::vector<std::variant<PrependRule, ReplaceRule, StripRule, NormalForm>> rules_;
};

}  // namespace steer::text::detail
