#pragma once
// Functions written in C++ that a template can call: filters, tests, methods and globals are rows of tables of these.

#include <array>
#include <optional>
#include <span>

#include "text/jinja/python.hpp"

namespace steer::text::detail::jinja {

struct Function {
  static constexpr int any_arguments = -1;

  std::string_view name;
  std::array<std::string_view, 6> parameters;  ///< names in order; the rest empty
  int required;                                ///< how many must be given; any_arguments: `run` sorts them out itself
  Value (*run)(Machine&, Call&);
};

/// Puts named arguments in their places; those not given are missing values. @throws TemplateFailure as Python would.
void bind(const Function& function, Call& call);
inline Value invoke(Machine& machine, const Function& function, Call& call) {
  if (function.required != Function::any_arguments) bind(function, call);
  return function.run(machine, call);
}

/// Null if there is none of the name. @throws TemplateUnsupported for one that jinja2 has and steer has not.
const Function* find_filter(std::string_view name);
const Function* find_test(std::string_view name);
/// Methods of str, list, tuple, dict. @throws as above.
const Function* find_method(const Value& self, std::string_view name);
/// `range`, `namespace`, `raise_exception`, ...; missing if there is none of the name.
Value global(std::string_view name);

// The tables, one a file.
std::span<const Function> string_methods();
std::span<const Function> text_filters();
std::span<const Function> number_filters();
std::span<const Function> sequence_filters();
std::span<const Function> choosing_filters();
std::span<const Function> tests();

// The arguments of a bound call by position; missing ones give the fallback.
inline std::int64_t integer_argument(const Call& call, std::size_t at, std::int64_t fallback, std::string_view what) {
  return call.args[at].missing() ? fallback : integer_of(call.args[at], what);
}
inline bool flag_argument(const Call& call, std::size_t at, bool fallback) {
  return call.args[at].missing() ? fallback : truth(call.args[at]);
}
/// @throws TemplateFailure unless it is a string.
const MarkedText& text_argument(const Call& call, std::size_t at, std::string_view what);

/// What filters compare by: `attribute` of an item ("a.b.0"; missing or None: the item itself), in lower case unless
/// `case_sensitive`. An Undefined on the way becomes `fallback` where that is not missing.
Value key_of(Machine& machine, const Value& item, const Value& attribute, bool case_sensitive,
             const Value& fallback = {});

/// `text % arguments` and `text.format(...)`.
MarkedText percent_format(Machine& machine, const String& text, const Value& arguments);
MarkedText brace_format(Machine& machine, const MarkedText& text, Call& call);
/// One value by the format specification after the colon.
MarkedText format_value(Machine& machine, const Value& value, std::string_view specification);
/// The JSON of Python's json.dumps.
MarkedText to_json(Machine& machine, const Value& value, bool ascii, const Value& indent, const Value& separators,
                   bool sort_keys);
/// Python's strftime for a time without zone.
std::string format_time(std::chrono::sys_seconds now, std::string_view format);

}  // namespace steer::text::detail::jinja
