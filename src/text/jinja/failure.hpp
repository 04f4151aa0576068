#pragma once
// How the interpreter stops: Template turns these into a steer::Error that names the template's line.

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "core/format_text.hpp"

namespace steer::text::detail::jinja {

/// The template asks for something that cannot be done with these values, raises an exception itself, or is over a
/// limit.
struct TemplateFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The template uses something that this interpreter does not have.
struct TemplateUnsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class... Args>
[[noreturn]] void raise(fmt::format_string<Args...> words, Args&&... args) {
  throw TemplateFailure(format_text(words, std::forward<Args>(args)...));
}

template <class... Args>
[[noreturn]] void unsupported(fmt::format_string<Args...> words, Args&&... args) {
  throw TemplateUnsupported(format_text(words, std::forward<Args>(args)...));
}

}  // namespace steer::text::detail::jinja
