// "{}".format(x).

#include "text/jinja/format.hpp"

namespace steer::text::detail::jinja {
namespace {

/// One `str.format` call: fields may stand inside the specification of others, once.
class BraceFormatter {
 public:
  BraceFormatter(Machine& machine, Call& call) : machine_(machine), call_(call) {}

  MarkedText run(const MarkedText& format, int level) {
    if (level > 2) raise("Max string recursion exceeded");
    const std::string_view text = format.bytes();
    machine_.look(text.size());
    MarkedText out;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t brace = text.find_first_of("{}", at);
      if (brace == std::string_view::npos) {
        out.append(format, at, text.size());
        break;
      }
      out.append(format, at, brace);
      at = brace + 1;
      if (at < text.size() && text[at] == text[brace]) {
        out.append(format, brace, at);
        ++at;
        continue;
      }
      if (text[brace] == '}') raise("Single '}}' encountered in format string");
      std::size_t end = at;
      for (int depth = 1; end < text.size(); ++end) {
        depth += text[end] == '{' ? 1 : text[end] == '}' ? -1 : 0;
        if (depth == 0) break;
      }
      if (end >= text.size()) raise("expected '}}' before end of string");
      out.append(field(text.substr(at, end - at), level));
      at = end + 1;
    }
    return out;
  }

 private:
  MarkedText field(std::string_view text, int level) {
    machine_.step();
    const std::size_t colon = text.find(':');
    std::string_view name = text.substr(0, colon);
    const std::string_view specification =
        colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
    char conversion = '\0';
    if (const std::size_t mark = name.find('!'); mark != std::string_view::npos) {
      if (name.size() != mark + 2) raise("end of string while looking for conversion specifier");
      conversion = name[mark + 1];
      name = name.substr(0, mark);
    }
    Value value = look_up(name);
    if (conversion == 'r')
      value = machine_.string(repr(machine_, value));
    else if (conversion == 's')
      value = machine_.string(str(machine_, value));
    else if (conversion)
      unsupported("the conversion !{} of str.format", conversion);
    const MarkedText layout = run(MarkedText(specification), level + 1);
    return format_value(machine_, value, layout.bytes());
  }

  Value look_up(std::string_view path) {
    std::size_t at = path.find_first_of(".[");
    Value value = first(path.substr(0, at));
    while (at < path.size()) {
      machine_.step();
      if (path[at] == '.') {
        const std::size_t end = std::min(path.find_first_of(".[", at + 1), path.size());
        value = attribute(machine_, value, path.substr(at + 1, end - at - 1));
        at = end;
      } else {
        const std::size_t end = path.find(']', at);
        if (end == std::string_view::npos) raise("Missing ']' in format string");
        const std::string_view key = path.substr(at + 1, end - at - 1);
        std::size_t digit = 0;
        const bool number = !key.empty() && std::ranges::all_of(key, [](char c) { return c >= '0' && c <= '9'; });
        value = item(machine_, value, number ? Value(digits(key, digit)) : machine_.string(key));
        at = end + 1;
      }
    }
    return value;
  }

  Value first(std::string_view name) {
    std::size_t digit = 0;
    if (name.empty() || std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; })) {
      if (name.empty() && numbered_)
        raise("cannot switch from manual field specification to automatic field numbering");
      if (!name.empty() && next_ > 0)
        raise("cannot switch from automatic field numbering to manual field specification");
      if (!name.empty()) numbered_ = true;
      const auto at = static_cast<std::size_t>(name.empty() ? next_++ : digits(name, digit));
      if (at >= call_.args.size()) raise("Replacement index {} out of range for positional args tuple", at);
      return call_.args[at];
    }
    for (const auto& [key, value] : call_.named)
      if (key == name) return value;
    raise("'{}'", name);
  }

  Machine& machine_;
  Call& call_;
  std::int64_t next_ = 0;
  bool numbered_ = false;
};

}  // namespace

MarkedText brace_format(Machine& machine, const MarkedText& text, Call& call) {
  return BraceFormatter(machine, call).run(text, 0);
}

}  // namespace steer::text::detail::jinja
