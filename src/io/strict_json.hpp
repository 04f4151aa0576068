#pragma once
// All JSON from outside comes in here: as a tree with bounds on depth and length, or as events where a tree would cost
// too much (up to 50 bytes for each byte of input).

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "io/bytes.hpp"

namespace steer::io::detail {

/// What a JSON text may be at most. Copying, comparing and printing a tree recurse, so its depth must be bounded before
/// it is made; the library's own formats are at most 12 deep.
struct JsonLimits {
  std::size_t depth = 128;                    ///< levels of objects and arrays
  std::size_t bytes = std::size_t{64} << 20;  ///< of the text
};

/// The tree of `text` (nlohmann::json or ordered_json; of a key given twice the last value counts, as in Python).
/// @param what  where the text comes from, for messages: "/models/a/config.json", "line 3 of results.jsonl".
/// @throws Error(format) where it is not JSON or beyond the limits, with the byte and the text there.
template <class Json = nlohmann::json>
Json parse_json(std::string_view text, std::string_view where, std::string_view what, const JsonLimits& limits = {});
/// The same of text that need not be JSON, such as a language model's reply: nothing instead of an error.
template <class Json = nlohmann::json>
std::optional<Json> find_json(std::string_view text, const JsonLimits& limits = {});
/// The tree of a file. @throws Error(io) where it cannot be read, Error(format) as `parse_json`.
template <class Json = nlohmann::json>
Json read_json(const std::filesystem::path& path, std::string_view where, const JsonLimits& limits = {});

/// Refuses a text that `parser`'s error stopped at, for parsers of events. @throws Error(format) as `parse_json`.
[[noreturn]] void refuse_json(std::string_view text, std::size_t position, const nlohmann::detail::exception& error,
                              std::string_view where, std::string_view what);

/// A value for a message, as JSON in ASCII, cut to about `most` characters. Does not recurse deeper than that.
template <class Json>
std::string brief(const Json& value, std::size_t most = 80);

/// A reader's events, with the path of object keys that leads to each value. Derive, override what the format has;
/// everything else is refused.
class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  /// @param depth  most levels of objects and arrays.
  /// @param what   for messages: "the header of a.safetensors".
  JsonEvents(std::size_t depth, std::string_view where, std::string what)
      : depth_(depth), where_(where), what_(std::move(what)) {}

  /// Parses all of `text`. @throws Error(format) where it is not JSON or not what the events allow.
  void parse(std::string_view text);

 protected:
  /// Keys of the objects that are open, outermost first; an array has the key of the array's own place.
  const std::vector<std::string>& keys() const { return keys_; }
  [[noreturn]] void refuse(std::string_view got) const;

  virtual void on_object() { refuse("an object"); }
  virtual void on_object_end() {}
  virtual void on_array() { refuse("an array"); }
  virtual void on_text(std::string&&) { refuse("a string"); }
  virtual void on_unsigned(std::uint64_t) { refuse("a number"); }
  /// Null, true, false, and numbers that are negative, fractional or beyond 64 bits.
  virtual void on_other() { refuse("null, a bool, a fraction or a number out of range"); }

 private:
  bool null() final { return on_other(), true; }
  bool boolean(bool) final { return on_other(), true; }
  bool number_integer(number_integer_t) final { return on_other(), true; }
  bool number_float(number_float_t, const string_t&) final { return on_other(), true; }
  bool binary(binary_t&) final { return on_other(), true; }
  bool number_unsigned(number_unsigned_t value) final { return on_unsigned(value), true; }
  bool string(string_t& text) final { return on_text(std::move(text)), true; }
  bool start_object(std::size_t) final;
  bool key(string_t& text) final;
  bool end_object() final;
  bool start_array(std::size_t) final;
  bool end_array() final;
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) final;

  void enter();

  std::size_t depth_;
  std::size_t level_ = 0;
  std::string_view where_, text_;
  std::string what_;
  std::vector<std::string> keys_;
};

}  // namespace steer::io::detail
