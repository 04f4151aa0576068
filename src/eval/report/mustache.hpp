#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace steer::eval::detail {

struct Rendering {
  /// Makes a value safe where it is put in with {{name}}.
  std::function<std::string(std::string_view)> escape;
  /// The text of {{>name}}.
  std::function<std::string_view(std::string_view)> partial;
};

/// Fills a template (the part of mustache(5) that pages need): {{name}} escaped, {{{name}}} as it is, {{.}} the value
/// itself, {{#name}}...{{/name}} once a list's element or where there is a value, {{^name}}...{{/name}} where there is
/// none or an empty list, {{>name}} another template. Names are looked up in the innermost object that has them. A line
/// that holds nothing but a section's or partial's tag leaves no line behind.
/// @throws Error(format) for a tag that is not closed.
std::string render(std::string_view text, const nlohmann::ordered_json& data, const Rendering& rendering);

}  // namespace steer::eval::detail
