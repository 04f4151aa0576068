#include <steer/eval/text_metrics.hpp>

#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <span>
#include <vector>

#include <steer/core/error.hpp>

namespace steer {
namespace {

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) words.push_back(std::move(word));
    word.clear();
  };
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) || byte >= 0x80) {
      word += static_cast<char>(std::tolower(byte));
    } else {
      end_word();
      if (std::isgraph(byte)) words.emplace_back(1, c);
    }
  }
  end_word();
  return words;
}

/// Distinct n-word sequences over all of them; 1 when there are none.
double distinct(std::span<const std::string> words, std::size_t n) {
  if (words.size() < n) return 1;
  std::set<std::vector<std::string_view>> seen;
  const std::size_t count = words.size() - n + 1;
  for (std::size_t i = 0; i < count; ++i)
    seen.emplace(words.begin() + static_cast<std::ptrdiff_t>(i), words.begin() + static_cast<std::ptrdiff_t>(i + n));
  return static_cast<double>(seen.size()) / static_cast<double>(count);
}

double compression_ratio(std::string_view text) {
  if (text.empty()) return 1;
  uLongf size = compressBound(text.size());
  std::vector<Bytef> packed(size);
  const int status = compress2(packed.data(), &size, reinterpret_cast<const Bytef*>(text.data()), text.size(), 6);
  require(status == Z_OK, ErrorCode::io, "text_metrics", "expected zlib to compress {} bytes but got status {}",
          text.size(), status);
  return static_cast<double>(size) / static_cast<double>(text.size());
}

}  // namespace

TextMetrics text_metrics(std::string_view text) {
  const auto words = words_of(text);
  return {.bytes = static_cast<std::int64_t>(text.size()),
          .words = static_cast<std::int64_t>(words.size()),
          .distinct_1 = distinct(words, 1),
          .distinct_2 = distinct(words, 2),
          .distinct_3 = distinct(words, 3),
          .repetition = 1 - distinct(words, 4),
          .compression_ratio = compression_ratio(text)};
}

CollapseScreen collapse_screen(std::string_view text, const TextMetrics& metrics, const CollapseHints& hints) {
  constexpr std::int64_t kCompressible = 300;  // bytes; shorter texts do not compress, whatever they say
  struct Part {
    double value;
    const char* reason;
  };
  const bool reasoning_open = hints.expects_tags && text.find("</thinking>") == std::string_view::npos;
  const Part parts[] = {
      {2 * metrics.repetition, "repeats itself"},
      {hints.truncated ? 2.0 : 0.0, "does not come to an end"},
      {reasoning_open ? 1.0 : 0.0, "never closes its reasoning"},
      {metrics.bytes >= kCompressible ? std::max(0.0, 4 * (metrics.compression_ratio - 0.5)) : 0, "reads like garble"},
      {std::max(0.0, hints.nll.value_or(0) - 4), "is improbable to the unsteered model"},
  };
  CollapseScreen screen;
  for (const auto& part : parts) screen.score += part.value;
  screen.collapsed = screen.score >= 2;
  if (screen.collapsed)
    screen.reason = std::max_element(std::begin(parts), std::end(parts), [](const Part& a, const Part& b) {
                      return a.value < b.value;
                    })->reason;
  return screen;
}

}  // namespace steer
