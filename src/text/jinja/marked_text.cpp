#include "text/jinja/marked_text.hpp"

#include <algorithm>

#include "text/jinja/failure.hpp"

namespace steer::text::detail::jinja {

void MarkedText::grow(std::size_t by) const {
  if (by > longest - bytes_.size()) throw TemplateFailure("a text of more than 16 MiB");
}

void MarkedText::mark(std::size_t begin, std::size_t end, std::int32_t source) {
  if (begin == end || source == none) return;
  if (!marks_.empty() && marks_.back().end == begin && marks_.back().source == source)
    marks_.back().end = static_cast<std::uint32_t>(end);
  else
    marks_.push_back({static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end), source});
}

std::int32_t MarkedText::source_at(std::size_t at) const {
  const auto after = std::partition_point(marks_.begin(), marks_.end(), [&](const Mark& m) { return m.end <= at; });
  return after != marks_.end() && after->begin <= at ? after->source : none;
}

void MarkedText::append(std::string_view bytes, std::int32_t source) {
  grow(bytes.size());
  mark(bytes_.size(), bytes_.size() + bytes.size(), source);
  bytes_ += bytes;
}

void MarkedText::append(const MarkedText& other, std::size_t begin, std::size_t end) {
  grow(end - begin);
  const std::size_t base = bytes_.size();
  auto from =
      std::partition_point(other.marks_.begin(), other.marks_.end(), [&](const Mark& m) { return m.end <= begin; });
  for (; from != other.marks_.end() && from->begin < end; ++from)
    mark(base + std::max<std::size_t>(from->begin, begin) - begin, base + std::min<std::size_t>(from->end, end) - begin,
         from->source);
  bytes_ += other.bytes().substr(begin, end - begin);
}

}  // namespace steer::text::detail::jinja
