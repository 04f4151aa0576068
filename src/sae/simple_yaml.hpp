#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

namespace steer::sae::detail {

/// The part of YAML that training scripts write for settings: `key: value` lines, nested by indentation. Scalars become
/// what they look like (null, booleans, integers, numbers, else text); lists are passed over.
/// @param what  for messages. @throws Error(format) for a line that is neither, or nesting beyond 32 levels.
nlohmann::json parse_simple_yaml(std::string_view text, std::string_view where, std::string_view what);
nlohmann::json read_simple_yaml(const std::filesystem::path& path, std::string_view where);

}  // namespace steer::sae::detail
