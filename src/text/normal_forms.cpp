#include "text/normal_forms.hpp"

#include <algorithm>
#include <iterator>

#include "text/unicode_tables.hpp"
#include "text/utf8.hpp"

namespace steer::text::detail {
namespace {

// Hangul syllables are computed (Unicode, section 3.12).
constexpr char32_t S = 0xAC00, L = 0x1100, V = 0x1161, T = 0x11A7;
constexpr char32_t l_count = 19, v_count = 21, t_count = 28, s_count = l_count * v_count * t_count;

struct Code {
  char32_t code;
  std::uint8_t combining_class;
  std::uint32_t begin, end;  // bytes of the text it came from
};

std::uint8_t combining_class(char32_t code) {
  if (code < 0x300 || (code >= 0x3400 && code < 0xA000)) return 0;
  const auto* row = std::upper_bound(std::begin(combining_classes), std::end(combining_classes), code,
                                     [](char32_t c, const ClassRange& r) { return c < r.first; });
  return row != std::begin(combining_classes) && code <= row[-1].last ? row[-1].combining_class : 0;
}

template <std::size_t rows>
bool append_expansion(const Expansion (&table)[rows], const char32_t* codes, const Code& from, std::vector<Code>& out) {
  const auto* row = std::lower_bound(std::begin(table), std::end(table) - 1, from.code,
                                     [](const Expansion& e, char32_t c) { return e.code < c; });
  if (row->code != from.code) return false;
  for (std::uint32_t i = row[0].begin; i < row[1].begin; ++i)
    out.push_back({codes[i], combining_class(codes[i]), from.begin, from.end});
  return true;
}

void append_decomposed(Code from, bool compatible_form, std::vector<Code>& out) {
  const char32_t code = from.code;
  if (code >= S && code < S + s_count) {
    const char32_t index = code - S;
    out.push_back({L + index / (v_count * t_count), 0, from.begin, from.end});
    out.push_back({V + index % (v_count * t_count) / t_count, 0, from.begin, from.end});
    if (index % t_count) out.push_back({T + index % t_count, 0, from.begin, from.end});
    return;
  }
  const bool ideograph = code >= 0x3400 && code < 0xA000;
  if (!ideograph && compatible_form && append_expansion(compatible, compatible_codes, from, out)) return;
  if (!ideograph && append_expansion(canonical, canonical_codes, from, out)) return;
  out.push_back({code, combining_class(code), from.begin, from.end});
}

char32_t composite_of(char32_t a, char32_t b) {
  if (a >= L && a < L + l_count && b >= V && b < V + v_count) return S + ((a - L) * v_count + (b - V)) * t_count;
  if (a >= S && a < S + s_count && (a - S) % t_count == 0 && b > T && b < T + t_count) return a + (b - T);
  const auto* row = std::lower_bound(std::begin(compositions), std::end(compositions), std::pair(a, b),
                                     [](const Composition& c, const std::pair<char32_t, char32_t>& key) {
                                       return std::pair(c.first, c.second) < key;
                                     });
  return row != std::end(compositions) && row->first == a && row->second == b ? row->composite : 0;
}

// UAX 15: each code joins the last starter unless something of equal or higher class lies between them.
void compose(std::vector<Code>& codes) {
  std::size_t starter = codes.size(), kept = 0;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const Code code = codes[i];
    if (starter < kept) {
      const bool adjacent = kept == starter + 1;
      const bool blocked = !adjacent && codes[kept - 1].combining_class >= code.combining_class;
      if (!blocked) {
        if (const char32_t joined = composite_of(codes[starter].code, code.code)) {
          codes[starter].code = joined;
          codes[starter].begin = std::min(codes[starter].begin, code.begin);
          codes[starter].end = std::max(codes[starter].end, code.end);
          continue;
        }
      }
    }
    if (code.combining_class == 0) starter = kept;
    codes[kept++] = code;
  }
  codes.resize(kept);
}

}  // namespace

void normalize(MappedText& mapped, NormalForm form) {
  const std::string_view text = mapped.text();
  // Codes under this limit are in the form, are starters and join nothing before them.
  const char32_t limit = form.compatible ? 0xA0 : form.composed ? 0x300 : 0xC0;
  const auto simple = [&](std::size_t at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    return byte < 0x80 || (byte < 0xE0 && utf8_step(text, at).code < limit);
  };
  std::size_t at = 0, previous = 0;
  while (at < text.size() && simple(at)) at += utf8_length(text[previous = at]);
  if (at == text.size()) return;

  mapped.begin_rewrite();
  std::vector<Code> codes;
  std::string bytes;
  std::size_t done = 0;
  while (at < text.size()) {
    // The last simple character may be the base of what follows.
    const std::size_t begin = at > done ? previous : at;
    mapped.keep(done, begin);
    codes.clear();
    std::size_t end = begin;
    while (end < text.size() && (end <= at || !simple(end))) {
      const Utf8Step step = utf8_step(text, end);
      append_decomposed({step.code, 0, static_cast<std::uint32_t>(end), static_cast<std::uint32_t>(end + step.length)},
                        form.compatible, codes);
      end += step.length;
    }
    for (auto first = codes.begin(); first != codes.end();) {
      first = std::find_if(first, codes.end(), [](const Code& c) { return c.combining_class != 0; });
      const auto last = std::find_if(first, codes.end(), [](const Code& c) { return c.combining_class == 0; });
      std::stable_sort(first, last, [](const Code& a, const Code& b) { return a.combining_class < b.combining_class; });
      first = last;
    }
    if (form.composed) compose(codes);
    for (const Code& code : codes) {
      bytes.clear();
      utf8_append(bytes, code.code);
      mapped.write(code.begin, code.end, bytes);
    }
    done = previous = at = end;
    while (at < text.size() && simple(at)) at += utf8_length(text[previous = at]);
  }
  mapped.keep(done, text.size());
  mapped.commit();
}

}  // namespace steer::text::detail
