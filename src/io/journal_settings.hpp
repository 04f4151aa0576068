#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace steer::io::detail {

/// The names of the settings in which two identities differ, with both values.
std::string differing_settings(const nlohmann::ordered_json& was, const nlohmann::ordered_json& is);

}  // namespace steer::io::detail
