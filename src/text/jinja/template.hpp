#pragma once
// A chat template, compiled once and rendered many times.

#include <nlohmann/json_fwd.hpp>

#include "text/jinja/machine.hpp"
#include "text/jinja/value.hpp"

namespace steer::text::detail::jinja {

/// What a template sees, beside its own functions: values by name. Built without limits, by the caller.
using Variables = std::vector<std::pair<std::string_view, Value>>;

/// Immutable: copies share the program, several threads may render at once.
class Template {
 public:
  /// @throws Error(format) for what is not a template, Error(unsupported) for what this interpreter has not; both name
  ///         the line.
  explicit Template(std::string_view source);
  ~Template();

  /// @throws Error(argument) where the template raises, with its words, and over a limit; Error(unsupported) as above.
  MarkedText render(const Variables& variables, std::chrono::sys_seconds now, const Limits& limits = {}) const;
  /// Whether the template speaks of a name at all.
  bool uses(std::string_view name) const;

 private:
  std::shared_ptr<const Program> program_;
};

/// JSON as a value; objects keep their order. @throws Error(argument) beyond 64 levels or 64 bits.
Value from_json(const nlohmann::ordered_json& json);

}  // namespace steer::text::detail::jinja
