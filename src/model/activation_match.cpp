#include "model/activation_match.hpp"

#include <optional>

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

std::optional<HookPoint> point_named(const std::string& name) {
  try {
    return HookPoint::parse(name);
  } catch (const Error&) {
    return {};
  }
}

/// A pattern of TransformerLens names for one of Hugging Face names: of one point, or of a module in all layers
/// ("model.layers.*.mlp"). The pattern itself where it is neither.
std::string canonical(const std::string& pattern) {
  const std::size_t wild = pattern.find_first_of("*?");
  if (wild == std::string::npos) {
    const auto point = point_named(pattern);
    return point ? point->name() : pattern;
  }
  std::string first = pattern;
  first[wild] = '0';
  const bool all_layers =
      pattern[wild] == '*' && first.find_first_of("*?") == std::string::npos && !pattern.starts_with("blocks.");
  const auto point = all_layers ? point_named(first) : std::nullopt;
  return point ? "blocks.*." + std::string(to_string(point->site)) : pattern;
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
