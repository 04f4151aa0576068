#pragma once

#include <string_view>

namespace steer::io::detail {

/// What people have where a file should be: what a download left, another format.
struct Impostor {
  std::string_view begin, what, advice;
};

/// By a file's first bytes; null where they are none of these.
const Impostor* find_impostor(std::string_view bytes);

}  // namespace steer::io::detail
