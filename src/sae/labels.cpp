// The store, little-endian, every part 8-byte aligned:
//   LabelHeader, then f32[features] each of max_activation, frac_nonzero, default_strength (NaN: unknown),
//   u64[features + 1] first explanation of each feature, u64[explanations + 1] offsets into the text, the text
//   (explanations one after another, then model and source id).
#include <steer/sae/labels.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include <steer/core/error.hpp>
#include <steer/sae/sae.hpp>

#include "io/atomic_file.hpp"
#include "io/mapped_file.hpp"

namespace steer {
namespace sae::detail {

struct LabelHeader {
  std::array<char, 8> magic = {'s', 't', 'e', 'e', 'r', 'l', 'b', '1'};
  std::uint64_t features = 0, explanations = 0, text_bytes = 0, model_bytes = 0, source_bytes = 0;
};

inline std::uint64_t aligned(std::uint64_t n) { return (n + 7) / 8 * 8; }

/// Where each part begins.
struct LabelLayout {
  std::uint64_t max_activation, frac_nonzero, default_strength, first, offset, text, end;
  explicit LabelLayout(const LabelHeader& h) {
    const auto floats = aligned(4 * h.features);
    max_activation = sizeof(LabelHeader);
    frac_nonzero = max_activation + floats;
    default_strength = frac_nonzero + floats;
    first = default_strength + floats;
    offset = first + 8 * (h.features + 1);
    text = offset + 8 * (h.explanations + 1);
    end = text + h.text_bytes + h.model_bytes + h.source_bytes;
  }
};

}  // namespace sae::detail

namespace {

using sae::detail::aligned, sae::detail::LabelHeader, sae::detail::LabelLayout;

constexpr std::string_view kOpen = "FeatureLabels::open";
constexpr std::string_view kWrite = "FeatureLabels::write";
constexpr std::int64_t kMostFeatures = std::int64_t{1} << 24;

}  // namespace

struct FeatureLabels::Impl {
  std::shared_ptr<const io::detail::MappedFile> file;
  std::filesystem::path path;
  LabelHeader header;
  LabelLayout layout{LabelHeader{}};
  std::string model_id, source_id;

  template <class T>
  T at(std::uint64_t part, std::uint64_t index) const {
    T value;
    std::memcpy(&value, file->bytes().data() + part + index * sizeof(T), sizeof(T));
    return value;
  }
  bool has(std::int64_t feature) const { return feature >= 0 && static_cast<std::uint64_t>(feature) < header.features; }
  std::string_view characters(std::uint64_t begin, std::uint64_t end) const {
    // Offsets are checked when they are used, so that opening reads nothing but the header.
    require(begin <= end && end <= header.text_bytes + header.model_bytes + header.source_bytes, ErrorCode::format,
            kOpen, "{} is damaged: text [{}, {}) of {} bytes", path.string(), begin, end, header.text_bytes);
    return {reinterpret_cast<const char*>(file->bytes().data()) + layout.text + begin, end - begin};
  }
  std::pair<std::uint64_t, std::uint64_t> range(std::int64_t feature) const {
    const auto i = static_cast<std::uint64_t>(feature);
    const auto begin = at<std::uint64_t>(layout.first, i), end = at<std::uint64_t>(layout.first, i + 1);
    require(begin <= end && end <= header.explanations, ErrorCode::format, kOpen,
            "{} is damaged: explanations [{}, {}) of {}", path.string(), begin, end, header.explanations);
    return {begin, end};
  }
  std::string_view explanation(std::uint64_t index) const {
    return characters(at<std::uint64_t>(layout.offset, index), at<std::uint64_t>(layout.offset, index + 1));
  }
  std::optional<float> number(std::uint64_t part, std::int64_t feature) const {
    if (!has(feature)) return {};
    const auto value = at<float>(part, static_cast<std::uint64_t>(feature));
    return std::isfinite(value) ? std::optional(value) : std::nullopt;
  }
};

FeatureLabels FeatureLabels::open(const std::filesystem::path& path) {
  auto impl = std::make_shared<Impl>();
  impl->path = path;
  impl->file = io::detail::MappedFile::open(path, kOpen);
  const auto bytes = impl->file->bytes();
  auto& h = impl->header;
  require(bytes.size() >= sizeof(LabelHeader), ErrorCode::format, kOpen,
          "expected a store of feature labels but {} has {} bytes", path.string(), bytes.size());
  std::memcpy(&h, bytes.data(), sizeof h);
  require(h.magic == LabelHeader{}.magic, ErrorCode::format, kOpen, "expected a store of feature labels but {} is none",
          path.string());
  // Bounds first: the sum below must not overflow.
  const std::uint64_t most = bytes.size();
  require(h.features <= most && h.explanations <= most && h.text_bytes <= most && h.model_bytes <= most &&
              h.source_bytes <= most && LabelLayout(h).end == most,
          ErrorCode::format, kOpen, "{} is damaged or cut short: its header does not fit its {} bytes", path.string(),
          most);
  impl->layout = LabelLayout(h);
  impl->model_id = impl->characters(h.text_bytes, h.text_bytes + h.model_bytes);
  impl->source_id = impl->characters(h.text_bytes + h.model_bytes, h.text_bytes + h.model_bytes + h.source_bytes);
  return FeatureLabels(std::move(impl));
}

void FeatureLabels::write(const std::filesystem::path& store, std::span<const FeatureRecord> records,
                          std::string_view model_id, std::string_view source_id) {
  std::map<std::int64_t, std::vector<const FeatureRecord*>> by_feature;
  for (const auto& r : records) {
    require(r.feature >= 0 && r.feature < kMostFeatures, ErrorCode::argument, kWrite,
            "expected feature indices in [0, {}) but got {}", kMostFeatures, r.feature);
    by_feature[r.feature].push_back(&r);
  }
  LabelHeader h;
  h.features = by_feature.empty() ? 0 : static_cast<std::uint64_t>(by_feature.rbegin()->first) + 1;
  std::vector<float> max_activation(aligned(4 * h.features) / 4, std::numeric_limits<float>::quiet_NaN());
  auto frac_nonzero = max_activation, default_strength = max_activation;
  std::vector<std::uint64_t> first(h.features + 1), offset = {0};
  std::string text;
  for (std::uint64_t i = 0; i < h.features; ++i) {
    first[i] = offset.size() - 1;
    const auto found = by_feature.find(static_cast<std::int64_t>(i));
    if (found == by_feature.end()) continue;
    for (const auto* r : found->second) {
      if (r->max_activation) max_activation[i] = *r->max_activation;
      if (r->frac_nonzero) frac_nonzero[i] = *r->frac_nonzero;
      if (r->default_strength) default_strength[i] = *r->default_strength;
      for (const auto& e : r->explanations) {
        text += e;
        offset.push_back(text.size());
      }
    }
  }
  h.explanations = offset.size() - 1;
  first[h.features] = h.explanations;
  h.text_bytes = text.size();
  h.model_bytes = model_id.size();
  h.source_bytes = source_id.size();
  text += model_id;
  text += source_id;
  io::detail::AtomicFile file(store, kWrite);
  const LabelLayout layout(h);
  file.write_at(0, std::as_bytes(std::span(&h, 1)));
  file.write_at(static_cast<std::int64_t>(layout.max_activation), std::as_bytes(std::span(max_activation)));
  file.write_at(static_cast<std::int64_t>(layout.frac_nonzero), std::as_bytes(std::span(frac_nonzero)));
  file.write_at(static_cast<std::int64_t>(layout.default_strength), std::as_bytes(std::span(default_strength)));
  file.write_at(static_cast<std::int64_t>(layout.first), std::as_bytes(std::span(first)));
  file.write_at(static_cast<std::int64_t>(layout.offset), std::as_bytes(std::span(offset)));
  file.write_at(static_cast<std::int64_t>(layout.text), std::as_bytes(std::span(text)));
  file.commit();
}

std::int64_t FeatureLabels::size() const { return static_cast<std::int64_t>(impl_->header.features); }
const std::string& FeatureLabels::model_id() const { return impl_->model_id; }
const std::string& FeatureLabels::source_id() const { return impl_->source_id; }

void FeatureLabels::require_of(const Sae& sae) const {
  constexpr auto where = "FeatureLabels::require_of";
  require(size() <= sae.d_sae(), ErrorCode::config, where,
          "expected labels of at most {} features, as the SAE has, but {} has {}; take the SAE's own", sae.d_sae(),
          impl_->path.string(), size());
  std::int64_t layer = -1;
  const auto& source = source_id();
  const auto [end, error] = std::from_chars(source.data(), source.data() + source.size(), layer);
  const bool named = error == std::errc() && end != source.data() + source.size() && *end == '-';
  const auto& hook = sae.config().hook_in;
  require(!named || !hook || hook->layer == layer, ErrorCode::config, where,
          "expected labels of layer {}, where the SAE was trained, but \"{}\" is of layer {} ({}); take the SAE's own",
          hook ? hook->layer : -1, source, layer, impl_->path.string());
}

std::string_view FeatureLabels::label(std::int64_t feature) const {
  if (!impl_->has(feature)) return {};
  const auto [begin, end] = impl_->range(feature);
  return begin < end ? impl_->explanation(begin) : std::string_view();
}

std::vector<std::string_view> FeatureLabels::explanations(std::int64_t feature) const {
  std::vector<std::string_view> list;
  if (!impl_->has(feature)) return list;
  const auto [begin, end] = impl_->range(feature);
  for (auto i = begin; i < end; ++i) list.push_back(impl_->explanation(i));
  return list;
}

std::optional<float> FeatureLabels::max_activation(std::int64_t feature) const {
  return impl_->number(impl_->layout.max_activation, feature);
}
std::optional<float> FeatureLabels::frac_nonzero(std::int64_t feature) const {
  return impl_->number(impl_->layout.frac_nonzero, feature);
}
std::optional<float> FeatureLabels::default_strength(std::int64_t feature) const {
  return impl_->number(impl_->layout.default_strength, feature);
}

}  // namespace steer
