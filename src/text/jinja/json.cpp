// tojson as transformers defines it: Python's json.dumps, with its separators and without HTML's escapes.

#include <algorithm>
#include <cmath>

#include "core/format_text.hpp"
#include "text/jinja/function.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail::jinja {
namespace {

class Writer {
 public:
  Writer(Machine& machine, bool ascii, bool sort_keys) : machine_(machine), ascii_(ascii), sort_keys_(sort_keys) {}
  std::optional<std::string> indent;
  std::string item_separator = ", ", key_separator = ": ";

  MarkedText write(const Value& value) {
    any(value, 0);
    return std::move(out_);
  }

 private:
  void any(const Value& value, int depth) {
    machine_.step();
    if (value.is_none()) return out_.append("null");
    if (const auto* flag = value.boolean()) return out_.append(*flag ? "true" : "false");
    if (const auto* number = value.integer()) return out_.append(format_text("{}", *number));
    if (const auto* number = value.real()) return out_.append(real(*number));
    if (const auto* text = value.string()) return string(text->text);
    if (const auto* dict = value.dict()) return object(*dict, depth);
    if (const auto* sequence = value.sequence();
        sequence && (sequence->is_tuple() || sequence->type == Sequence::Type::list))
      return array(*sequence, depth);
    raise("Object of type {} is not JSON serializable", type_name(value));
  }

  static std::string real(double number) {
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
    return float_repr(number);
  }

  void line(int depth) {
    if (!indent) return;
    out_.append("\n");
    for (int i = 0; i < depth; ++i) out_.append(*indent);
  }
  void between(bool first) {
    if (!first) out_.append(item_separator);
  }

  void array(const Sequence& sequence, int depth) {
    if (sequence.items.empty()) return out_.append("[]");
    out_.append("[");
    bool first = true;
    for (const Value& item : sequence.items) {
      between(std::exchange(first, false));
      line(depth + 1);
      any(item, depth + 1);
    }
    line(depth);
    out_.append("]");
  }

  MarkedText key_text(const Value& key) {
    if (key.string()) return key.string()->text;
    if (key.is_none()) return MarkedText("null");
    if (const auto* flag = key.boolean()) return MarkedText(*flag ? "true" : "false");
    if (const auto* number = key.real()) return MarkedText(real(*number));
    if (key.integer()) return str(machine_, key);
    raise("keys must be str, int, float, bool or None, not {}", type_name(key));
  }

  void object(const Dict& dict, int depth) {
    if (dict.items.empty()) return out_.append("{}");
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (sort_keys_)
      std::stable_sort(items.begin(), items.end(),
                       [&](const auto* a, const auto* b) { return less(machine_, a->first, b->first); });
    out_.append("{");
    bool first = true;
    for (const auto* item : items) {
      between(std::exchange(first, false));
      line(depth + 1);
      string(key_text(item->first));
      out_.append(key_separator);
      any(item->second, depth + 1);
    }
    line(depth);
    out_.append("}");
  }

  void string(const MarkedText& text) {
    const std::string_view bytes = text.bytes();
    machine_.look(bytes.size());
    out_.append("\"");
    std::size_t done = 0;
    for (std::size_t at = 0; at < bytes.size();) {
      const auto step = steer::text::detail::utf8_step(bytes, at);
      if (const std::string escape = escaped(step.code); !escape.empty()) {
        out_.append(text, done, at);
        out_.append(escape, text.source_at(at));
        done = at + step.length;
      }
      at += step.length;
    }
    out_.append(text, done, bytes.size());
    out_.append("\"");
  }

  // The escape of a code point, or nothing where it stands for itself.
  std::string escaped(char32_t code) const {
    switch (code) {
      case '"':
        return "\\\"";
      case '\\':
        return "\\\\";
      case '\n':
        return "\\n";
      case '\r':
        return "\\r";
      case '\t':
        return "\\t";
      case '\b':
        return "\\b";
      case '\f':
        return "\\f";
      default:
        break;
    }
    const auto number = static_cast<std::uint32_t>(code);
    if (number < 0x20 || (ascii_ && number > 0x7E && number < 0x10000)) return format_text("\\u{:04x}", number);
    if (!ascii_ || number < 0x10000) return {};
    return format_text("\\u{:04x}\\u{:04x}", 0xD800 + ((number - 0x10000) >> 10),
                       0xDC00 + ((number - 0x10000) & 0x3FF));
  }

  Machine& machine_;
  bool ascii_, sort_keys_;
  MarkedText out_;
};

}  // namespace

MarkedText to_json(Machine& machine, const Value& value, bool ascii, const Value& indent, const Value& separators,
                   bool sort_keys) {
  Writer writer(machine, ascii, sort_keys);
  if (indent.string()) {
    writer.indent = std::string(indent.string()->text.bytes());
  } else if (!indent.missing() && !indent.is_none()) {
    const std::int64_t width = integer_of(indent, "tojson");
    if (width > 1000) raise("an indent of more than 1000");
    writer.indent = std::string(static_cast<std::size_t>(std::max<std::int64_t>(0, width)), ' ');
  }
  if (writer.indent) writer.item_separator.assign(1, ',');
  if (!separators.missing() && !separators.is_none()) {
    const std::vector<Value> parts = collect(machine, separators);
    if (parts.size() != 2 || !parts[0].string() || !parts[1].string()) raise("tojson: separators are two strings");
    writer.item_separator = std::string(parts[0].string()->text.bytes());
    writer.key_separator = std::string(parts[1].string()->text.bytes());
  }
  return writer.write(value);
}

}  // namespace steer::text::detail::jinja
