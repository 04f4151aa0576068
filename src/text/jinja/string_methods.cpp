// Python's str methods.

#include <algorithm>

#include "text/jinja/function.hpp"
#include "text/jinja/unicode.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail::jinja {
namespace {

using steer::text::detail::utf8_length;
using steer::text::detail::utf8_step;

const MarkedText& self_of(const Call& call) { return call.args[0].string()->text; }
Value made(Machine& machine, const Call& call, MarkedText text) {
  return machine.string(std::move(text), call.args[0].string()->markup);
}

std::size_t find_in(std::string_view text, std::string_view part, std::size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (part.empty()) return from;
  const void* found = ::memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found ? static_cast<std::size_t>(static_cast<const char*>(found) - text.data()) : std::string_view::npos;
}

// Searching from the end compares afresh at every place.
void look_backwards(Machine& machine, std::string_view text, std::string_view part) {
  machine.look(text.size() + text.size() / 64 * part.size());
}

// ---- white space and characters at the ends
enum Ends { left = 1, right = 2 };

bool holds(std::string_view set, std::string_view character) {
  for (std::size_t at = 0; at < set.size(); at += utf8_length(set[at]))
    if (set.substr(at, utf8_length(set[at])) == character) return true;
  return false;
}

Value stripped(Machine& machine, Call& call, int ends) {
  const MarkedText& self = self_of(call);
  const std::string_view text = self.bytes();
  machine.look(text.size());
  std::size_t begin = 0, end = text.size();
  if (call.args[1].missing() || call.args[1].is_none()) {
    if (ends & right) end = end_without_space(text);
    if (ends & left) begin = std::min(end, begin_without_space(text));
  } else {
    const std::string_view set = text_argument(call, 1, "strip").bytes();
    machine.look(text.size() * (1 + set.size() / 8));
    while ((ends & left) && begin < end && holds(set, text.substr(begin, utf8_length(text[begin]))))
      begin += utf8_length(text[begin]);
    while ((ends & right) && begin < end) {
      std::size_t at = end - 1;
      while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
      if (!holds(set, text.substr(at, end - at))) break;
      end = at;
    }
  }
  return made(machine, call, self.slice(begin, end));
}
Value strip(Machine& machine, Call& call) { return stripped(machine, call, left | right); }
Value lstrip(Machine& machine, Call& call) { return stripped(machine, call, left); }
Value rstrip(Machine& machine, Call& call) { return stripped(machine, call, right); }

// ---- cutting
class Pieces {
 public:
  Pieces(Machine& machine, const Call& call) : machine_(machine), call_(call) {}
  void add(std::size_t begin, std::size_t end) {
    items_.push_back(made(machine_, call_, self_of(call_).slice(begin, end)));
  }
  Value list(bool reversed = false) {
    if (reversed) std::ranges::reverse(items_);
    return machine_.list(std::move(items_));
  }
  Value tuple() { return machine_.tuple(std::move(items_)); }

 private:
  Machine& machine_;
  const Call& call_;
  std::vector<Value> items_;
};

std::string_view separator_of(const Call& call) {
  if (call.args[1].missing() || call.args[1].is_none()) return {};
  const std::string_view separator = text_argument(call, 1, "split").bytes();
  if (separator.empty()) raise("empty separator");
  return separator;
}

Value split(Machine& machine, Call& call) {
  const std::string_view text = self_of(call).bytes(), separator = separator_of(call);
  machine.look(text.size());
  std::int64_t most = integer_argument(call, 2, -1, "split");
  Pieces out(machine, call);
  std::size_t at = 0;
  if (!separator.empty()) {
    for (std::size_t found; most != 0 && (found = find_in(text, separator, at)) != std::string_view::npos; --most) {
      out.add(at, found);
      at = found + separator.size();
    }
    out.add(at, text.size());
    return out.list();
  }
  while (true) {
    at += begin_without_space(text.substr(at));
    if (at >= text.size()) return out.list();
    if (most-- == 0) break;
    std::size_t end = at;
    while (end < text.size() && !is_space(utf8_step(text, end).code)) end += utf8_length(text[end]);
    out.add(at, end);
    at = end;
  }
  out.add(at, text.size());
  return out.list();
}

Value rsplit(Machine& machine, Call& call) {
  const std::string_view text = self_of(call).bytes(), separator = separator_of(call);
  look_backwards(machine, text, separator);
  std::int64_t most = integer_argument(call, 2, -1, "rsplit");
  Pieces out(machine, call);
  std::size_t end = text.size();
  if (!separator.empty()) {
    while (most-- != 0 && end >= separator.size()) {
      const std::size_t found = text.substr(0, end).rfind(separator);
      if (found == std::string_view::npos) break;
      out.add(found + separator.size(), end);
      end = found;
    }
    out.add(0, end);
    return out.list(true);
  }
  while (true) {
    end = end_without_space(text.substr(0, end));
    if (end == 0) return out.list(true);
    if (most-- == 0) break;
    std::size_t begin = end;
    while (begin > 0) {
      std::size_t at = begin - 1;
      while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
      if (is_space(utf8_step(text, at).code)) break;
      begin = at;
    }
    out.add(begin, end);
    end = begin;
  }
  out.add(0, end);
  return out.list(true);
}

bool is_line_end(char32_t code) {
  return (code >= 0x0A && code <= 0x0D) || (code >= 0x1C && code <= 0x1E) || code == 0x85 || code == 0x2028 ||
         code == 0x2029;
}

Value splitlines(Machine& machine, Call& call) {
  const std::string_view text = self_of(call).bytes();
  machine.look(text.size());
  const bool keep = flag_argument(call, 1, false);
  Pieces out(machine, call);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    while (at < text.size() && !is_line_end(utf8_step(text, at).code)) at += utf8_length(text[at]);
    const std::size_t end = at;
    if (at < text.size()) at += text.substr(at).starts_with("\r\n") ? 2 : utf8_length(text[at]);
    out.add(begin, keep ? at : end);
  }
  return out.list();
}

Value partition_at(Machine& machine, Call& call, bool last) {
  const std::string_view text = self_of(call).bytes(), separator = separator_of(call);
  look_backwards(machine, text, separator);
  const std::size_t found = last ? text.rfind(separator) : find_in(text, separator, 0);
  Pieces out(machine, call);
  if (found != std::string_view::npos) {
    out.add(0, found);
    out.add(found, found + separator.size());
    out.add(found + separator.size(), text.size());
  } else {
    if (last) out.add(0, 0), out.add(0, 0);
    out.add(0, text.size());
    if (!last) out.add(0, 0), out.add(0, 0);
  }
  return out.tuple();
}
Value partition(Machine& machine, Call& call) { return partition_at(machine, call, false); }
Value rpartition(Machine& machine, Call& call) { return partition_at(machine, call, true); }

// ---- looking for parts
struct Window {
  std::size_t begin, end, first_code;
  bool valid;
};
// The bytes that code points [start, stop) take, as find, count, startswith and endswith read them.
Window window(Machine& machine, const Call& call) {
  const std::string_view text = self_of(call).bytes();
  machine.look(text.size());
  const std::int64_t size = count_codes(text);
  const auto bound = [&](std::size_t at, std::int64_t open) {
    if (call.args[at].missing() || call.args[at].is_none()) return open;
    const std::int64_t given = integer_of(call.args[at], "slice indices");
    return given < 0 ? std::max<std::int64_t>(0, given + size) : given;
  };
  const std::int64_t start = bound(2, 0), stop = std::min(bound(3, size), size);
  if (start > stop) return {0, 0, 0, false};
  std::size_t begin = 0;
  for (std::int64_t i = 0; i < start; ++i) begin += utf8_length(text[begin]);
  std::size_t end = begin;
  if (stop == size)
    end = text.size();
  else
    for (std::int64_t i = start; i < stop; ++i) end += utf8_length(text[end]);
  return {begin, end, static_cast<std::size_t>(start), true};
}

Value position_of(Machine& machine, Call& call, bool last) {
  const Window in = window(machine, call);
  const std::string_view text = self_of(call).bytes().substr(in.begin, in.end - in.begin);
  const std::string_view part = text_argument(call, 1, "find").bytes();
  look_backwards(machine, text, part);
  const std::size_t found = !in.valid ? std::string_view::npos : last ? text.rfind(part) : find_in(text, part, 0);
  if (found == std::string_view::npos) return Value(std::int64_t{-1});
  return Value(static_cast<std::int64_t>(in.first_code) + count_codes(text.substr(0, found)));
}
Value find_first(Machine& machine, Call& call) { return position_of(machine, call, false); }
Value find_last(Machine& machine, Call& call) { return position_of(machine, call, true); }
Value required(Value position) {
  if (*position.integer() < 0) raise("substring not found");
  return position;
}
Value index_first(Machine& machine, Call& call) { return required(position_of(machine, call, false)); }
Value index_last(Machine& machine, Call& call) { return required(position_of(machine, call, true)); }

Value count(Machine& machine, Call& call) {
  const Window in = window(machine, call);
  const std::string_view text = self_of(call).bytes().substr(in.begin, in.end - in.begin);
  const std::string_view part = text_argument(call, 1, "count").bytes();
  if (!in.valid) return Value(std::int64_t{0});
  if (part.empty()) return Value(count_codes(text) + 1);
  std::int64_t out = 0;
  for (std::size_t at = 0; (at = find_in(text, part, at)) != std::string_view::npos; at += part.size()) ++out;
  return Value(out);
}

Value matches_end(Machine& machine, Call& call, bool front) {
  const Window in = window(machine, call);
  const std::string_view text = self_of(call).bytes().substr(in.begin, in.end - in.begin);
  std::vector<Value> parts;
  if (const auto* tuple = call.args[1].sequence(); tuple && tuple->is_tuple())
    parts = tuple->items;
  else
    parts = {call.args[1]};
  for (const Value& part : parts) {
    if (!part.string())
      raise("{} first arg must be str or a tuple of str, not {}", front ? "startswith" : "endswith", type_name(part));
    const std::string_view bytes = part.string()->text.bytes();
    machine.look(bytes.size());
    if (in.valid && (front ? text.starts_with(bytes) : text.ends_with(bytes))) return Value(true);
  }
  return Value(false);
}
Value startswith(Machine& machine, Call& call) { return matches_end(machine, call, true); }
Value endswith(Machine& machine, Call& call) { return matches_end(machine, call, false); }

// ---- changing
Value replace(Machine& machine, Call& call) {
  const MarkedText& self = self_of(call);
  text_argument(call, 2, "replace");
  const MarkedText to = call.args[0].string()->markup ? escaped(machine, call.args[2]) : call.args[2].string()->text;
  const std::string_view text = self.bytes(), from = text_argument(call, 1, "replace").bytes();
  std::int64_t most = integer_argument(call, 3, -1, "replace");
  machine.look(text.size());
  MarkedText out;
  std::size_t at = 0;
  if (from.empty()) {  // between all characters
    while (most-- != 0) {
      machine.look(to.size());
      out.append(to);
      if (at >= text.size()) break;
      out.append(self, at, at + utf8_length(text[at]));
      at += utf8_length(text[at]);
    }
  } else {
    for (std::size_t found; most != 0 && (found = find_in(text, from, at)) != std::string_view::npos; --most) {
      machine.step();
      out.append(self, at, found);
      out.append(to);
      at = found + from.size();
    }
  }
  out.append(self, at, text.size());
  return made(machine, call, std::move(out));
}

// Each character in the case that `choose` says, given whether it follows a cased one.
template <class Choose>
Value recased(Machine& machine, Call& call, Choose choose) {
  const MarkedText& self = self_of(call);
  const std::string_view text = self.bytes();
  machine.look(text.size() * 8);
  MarkedText out;
  bool after_cased = false;
  std::string piece;
  for (std::size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const char32_t code = utf8_step(text, at).code;
    piece.clear();
    append_case(piece, choose(at == 0, after_cased, code), text, at);
    out.append(piece, self.source_at(at));
    after_cased = is_cased(code);
  }
  return made(machine, call, std::move(out));
}
Value upper(Machine& machine, Call& call) {
  return recased(machine, call, [](bool, bool, char32_t) { return Case::upper; });
}
Value lower(Machine& machine, Call& call) {
  return recased(machine, call, [](bool, bool, char32_t) { return Case::lower; });
}
Value title(Machine& machine, Call& call) {
  return recased(machine, call, [](bool, bool after, char32_t) { return after ? Case::lower : Case::title; });
}
Value capitalize(Machine& machine, Call& call) {
  return recased(machine, call, [](bool first, bool, char32_t) { return first ? Case::title : Case::lower; });
}
Value swapcase(Machine& machine, Call& call) {
  return recased(machine, call, [](bool, bool, char32_t code) {
    return is_upper(code) ? Case::lower : is_lower(code) ? Case::upper : Case::title;
  });
}

Value removeprefix(Machine& machine, Call& call) {
  const MarkedText& self = self_of(call);
  const std::string_view part = text_argument(call, 1, "removeprefix").bytes();
  return made(machine, call, self.slice(self.bytes().starts_with(part) ? part.size() : 0, self.size()));
}
Value removesuffix(Machine& machine, Call& call) {
  const MarkedText& self = self_of(call);
  const std::string_view part = text_argument(call, 1, "removesuffix").bytes();
  return made(machine, call, self.slice(0, self.bytes().ends_with(part) ? self.size() - part.size() : self.size()));
}

// ---- filling up to a width
Value filled(Machine& machine, Call& call, int where) {
  const MarkedText& self = self_of(call);
  const std::int64_t missing = integer_of(call.args[1], "width") - count_codes(self.bytes());
  const std::string_view fill = call.args[2].missing() ? " " : text_argument(call, 2, "fill").bytes();
  if (count_codes(fill) != 1) raise("The fill character must be exactly one character long");
  if (missing > static_cast<std::int64_t>(MarkedText::longest)) raise("a text of more than 16 MiB");
  if (missing <= 0) return call.args[0];
  // Python's centre: the odd one goes to the left where the width is odd.
  const std::int64_t width = integer_of(call.args[1], "width");
  const std::int64_t before = where == left ? 0 : where == right ? missing : missing / 2 + (missing & width & 1);
  machine.charge(static_cast<std::size_t>(missing) * fill.size());
  MarkedText out;
  for (std::int64_t i = 0; i < before; ++i) out.append(fill);
  out.append(self);
  for (std::int64_t i = before; i < missing; ++i) out.append(fill);
  return made(machine, call, std::move(out));
}
Value ljust(Machine& machine, Call& call) { return filled(machine, call, left); }
Value rjust(Machine& machine, Call& call) { return filled(machine, call, right); }
Value center(Machine& machine, Call& call) { return filled(machine, call, left | right); }
Value zfill(Machine& machine, Call& call) {
  const MarkedText& self = self_of(call);
  const std::int64_t missing = integer_of(call.args[1], "width") - count_codes(self.bytes());
  if (missing > static_cast<std::int64_t>(MarkedText::longest)) raise("a text of more than 16 MiB");
  MarkedText out;
  const std::size_t sign = self.bytes().starts_with('-') || self.bytes().starts_with('+') ? 1 : 0;
  out.append(self, 0, sign);
  if (missing > 0) out.append(std::string(static_cast<std::size_t>(missing), '0'));
  out.append(self, sign, self.size());
  return made(machine, call, std::move(out));
}

Value join(Machine& machine, Call& call) {
  MarkedText out;
  std::size_t count = 0;
  for (const Value& item : collect(machine, call.args[1])) {
    if (!item.string()) raise("sequence item {}: expected str instance, {} found", count, type_name(item));
    if (count++ > 0) out.append(self_of(call));
    out.append(call.args[0].string()->markup ? escaped(machine, item) : item.string()->text);
  }
  return made(machine, call, std::move(out));
}

Value format(Machine& machine, Call& call) {
  const Value self = call.args[0];
  call.args.erase(call.args.begin());
  if (self.string()->markup) unsupported("str.format of a string marked safe");
  return machine.string(brace_format(machine, self.string()->text, call));
}

// ---- questions about all characters; false for none
template <bool (*member)(char32_t)>
Value all(Machine& machine, Call& call) {
  const std::string_view text = self_of(call).bytes();
  machine.look(text.size() * 4);
  for (std::size_t at = 0; at < text.size(); at += utf8_length(text[at]))
    if (!member(utf8_step(text, at).code)) return Value(false);
  return Value(!text.empty());
}
bool is_alnum(char32_t code) { return is_alpha(code) || is_decimal(code) || is_digit(code) || is_numeric(code); }
bool is_space_code(char32_t code) { return is_space(code); }

template <bool (*wanted)(char32_t), bool (*other)(char32_t)>
Value one_case(Machine& machine, Call& call) {
  const std::string_view text = self_of(call).bytes();
  machine.look(text.size() * 4);
  bool any = false;
  for (std::size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const char32_t code = utf8_step(text, at).code;
    if (other(code) || (is_cased(code) && !wanted(code))) return Value(false);
    any = any || wanted(code);
  }
  return Value(any);
}
Value istitle(Machine& machine, Call& call) {
  const std::string_view text = self_of(call).bytes();
  machine.look(text.size() * 4);
  bool any = false, after_cased = false;
  for (std::size_t at = 0; at < text.size(); at += utf8_length(text[at])) {
    const char32_t code = utf8_step(text, at).code;
    if (is_cased(code) && is_lower(code) != after_cased) return Value(false);
    any = any || is_cased(code);
    after_cased = is_cased(code);
  }
  return Value(any);
}
Value isascii(Machine& machine, Call& call) {
  machine.look(self_of(call).size());
  return Value(std::ranges::all_of(self_of(call).bytes(), [](char c) { return static_cast<unsigned char>(c) < 0x80; }));
}
Value isprintable(Machine& machine, Call& call) {
  return Value(self_of(call).empty() || *all<is_printable>(machine, call).boolean());
}

constexpr Function methods[] = {
    {"strip", {"self", "chars"}, 1, strip},
    {"lstrip", {"self", "chars"}, 1, lstrip},
    {"rstrip", {"self", "chars"}, 1, rstrip},
    {"split", {"self", "sep", "maxsplit"}, 1, split},
    {"rsplit", {"self", "sep", "maxsplit"}, 1, rsplit},
    {"splitlines", {"self", "keepends"}, 1, splitlines},
    {"partition", {"self", "sep"}, 2, partition},
    {"rpartition", {"self", "sep"}, 2, rpartition},
    {"find", {"self", "sub", "start", "end"}, 2, find_first},
    {"rfind", {"self", "sub", "start", "end"}, 2, find_last},
    {"index", {"self", "sub", "start", "end"}, 2, index_first},
    {"rindex", {"self", "sub", "start", "end"}, 2, index_last},
    {"count", {"self", "sub", "start", "end"}, 2, count},
    {"startswith", {"self", "prefix", "start", "end"}, 2, startswith},
    {"endswith", {"self", "suffix", "start", "end"}, 2, endswith},
    {"replace", {"self", "old", "new", "count"}, 3, replace},
    {"upper", {"self"}, 1, upper},
    {"lower", {"self"}, 1, lower},
    {"title", {"self"}, 1, title},
    {"capitalize", {"self"}, 1, capitalize},
    {"swapcase", {"self"}, 1, swapcase},
    {"removeprefix", {"self", "prefix"}, 2, removeprefix},
    {"removesuffix", {"self", "suffix"}, 2, removesuffix},
    {"ljust", {"self", "width", "fillchar"}, 2, ljust},
    {"rjust", {"self", "width", "fillchar"}, 2, rjust},
    {"center", {"self", "width", "fillchar"}, 2, center},
    {"zfill", {"self", "width"}, 2, zfill},
    {"join", {"self", "iterable"}, 2, join},
    {"format", {}, Function::any_arguments, format},
    {"isalpha", {"self"}, 1, all<is_alpha>},
    {"isalnum", {"self"}, 1, all<is_alnum>},
    {"isdecimal", {"self"}, 1, all<is_decimal>},
    {"isdigit", {"self"}, 1, all<is_digit>},
    {"isnumeric", {"self"}, 1, all<is_numeric>},
    {"isspace", {"self"}, 1, all<is_space_code>},
    {"islower", {"self"}, 1, one_case<is_lower, is_upper>},
    {"isupper", {"self"}, 1, one_case<is_upper, is_lower>},
    {"istitle", {"self"}, 1, istitle},
    {"isascii", {"self"}, 1, isascii},
    {"isprintable", {"self"}, 1, isprintable},
};

}  // namespace

std::span<const Function> string_methods() { return methods; }

}  // namespace steer::text::detail::jinja
