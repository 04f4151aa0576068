#include "model/activation_match.hpp"

#include <steer/core/error.hpp>

namespace steer::model::detail {
namespace {

/// Whether a glob pattern (`*` any text, `?` any character) matches all of `text`.
bool glob_match(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p, ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

/// The TransformerLens name of what a pattern without wildcards names; the pattern itself where it names nothing.
std::string canonical(const std::string& pattern) {
  if (pattern.find_first_of("*?") != std::string::npos) return pattern;
  try {
    return HookPoint::parse(pattern).name();
  } catch (const Error&) {
    return pattern;
  }
}

}  // namespace

std::vector<bool> matching(std::span<const HookPoint> points, std::span<const std::string> patterns,
                           std::string_view among, std::string_view where) {
  std::vector<bool> chosen(points.size(), false);
  for (const std::string& pattern : patterns) {
    const std::string wanted = canonical(pattern);
    bool found = false;
    for (std::size_t i = 0; i < points.size(); ++i) {
      if (!glob_match(wanted, points[i].name())) continue;
      chosen[i] = found = true;
    }
    require(found, ErrorCode::argument, where,
            "expected a pattern that matches a point of this model{} but got \"{}\"; names look like "
            "blocks.0.hook_resid_post",
            among, pattern);
  }
  return chosen;
}

}  // namespace steer::model::detail
