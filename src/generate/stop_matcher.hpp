#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace steer::generation::detail {

/// Watches growing text for stop strings. What might yet turn out to be the start of one is held back.
class StopMatcher {
 public:
  explicit StopMatcher(const std::vector<std::string>& stops) : stops_(stops) {
    for (const auto& stop : stops) longest_ = std::max(longest_, stop.size());
  }

  /// Adds text. @return what is final now; sets `stopped()` once a stop string is complete.
  std::string push(std::string_view text) {
    text_ += text;
    // A match can begin no earlier than a stop string's length before the new text, and never in released text.
    const std::size_t from = released_;
    std::size_t cut = std::string::npos;
    for (const auto& stop : stops_)
      if (const std::size_t at = text_.find(stop, from); at < cut) cut = at, matched_ = stop;
    if (cut != std::string::npos) {
      stopped_ = true;
      text_.resize(cut);
      return release(cut);
    }
    std::size_t safe = text_.size();
    for (std::size_t start = text_.size() - std::min(longest_, text_.size() - from); start < text_.size(); ++start) {
      const auto tail = std::string_view(text_).substr(start);
      for (const auto& stop : stops_)
        if (std::string_view(stop).starts_with(tail)) {
          safe = std::min(safe, start);
          break;
        }
    }
    return release(safe);
  }

  /// What was held back, when no more text comes.
  std::string finish() { return release(text_.size()); }
  bool stopped() const { return stopped_; }
  /// Which stop string it was; the first of those at one place.
  const std::string& matched() const { return matched_; }
  /// All text, without the stop string.
  const std::string& text() const { return text_; }

 private:
  std::string release(std::size_t end) {
    std::string out = text_.substr(released_, end - released_);
    released_ = end;
    return out;
  }

  const std::vector<std::string>& stops_;
  std::size_t longest_ = 0, released_ = 0;
  std::string text_, matched_;
  bool stopped_ = false;
};

}  // namespace steer::generation::detail
