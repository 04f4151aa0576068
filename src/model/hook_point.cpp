#include <algorithm>
#include <charconv>

#include <steer/core/error.hpp>
#include <steer/model/hooks.hpp>

#include "core/format_text.hpp"

namespace steer {
namespace {

constexpr bool of_layer(Site site) { return site != Site::embed && site != Site::ln_final; }

/// Removes "NUMBER." or a final "NUMBER" from the front of `text`.
std::optional<std::int64_t> take_layer(std::string_view& text) {
  std::int64_t layer = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), layer);
  if (error != std::errc() || layer < 0 || text.front() == '-' || text.front() == '+') return {};
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (text.empty()) return layer;
  if (text.front() != '.' || text.size() == 1) return {};
  text.remove_prefix(1);
  return layer;
}

/// Where Hugging Face models keep their layers; the last two are text towers of multimodal ones.
constexpr std::string_view kLayers[] = {"model.layers.", "transformer.h.", "gpt_neox.layers.",
                                        "model.language_model.layers.", "language_model.model.layers."};

/// What a Hugging Face module gives out, by its name below that of its layer.
std::optional<Site> module_output(std::string_view module) {
  static constexpr std::pair<std::string_view, Site> names[] = {
      {"", Site::resid_post},
      {"self_attn", Site::attn_out},
      {"attn", Site::attn_out},
      {"attention", Site::attn_out},
      {"mlp", Site::mlp_out},
      {"mlp.down_proj.input", Site::mlp_post},
      {"self_attn.o_proj.input", Site::attn_z},
  };
  for (const auto& [name, site] : names)
    if (name == module) return site;
  return {};
}

}  // namespace

HookPoint HookPoint::parse(std::string_view name) {
  std::string_view rest = name;
  const auto after = [&](std::string_view prefix) {
    if (!rest.starts_with(prefix)) return false;
    rest.remove_prefix(prefix.size());
    return true;
  };
  if (after("blocks.")) {
    if (const auto layer = take_layer(rest))
      if (const auto site = find_enum<Site>(rest); site && of_layer(*site)) return HookPoint(*site, *layer);
  } else if (std::ranges::any_of(kLayers, after)) {
    if (const auto layer = take_layer(rest))
      if (const auto site = module_output(rest)) return HookPoint(*site, *layer);
  } else if (name == "model.embed_tokens" || name == "gpt_neox.embed_in") {
    return HookPoint(Site::embed, 0);
  } else if (const auto site = find_enum<Site>(name); site && !of_layer(*site)) {
    return HookPoint(*site, 0);
  }
  std::string sites;
  for (const auto& entry : EnumTable<Site>::entries)
    sites +=
        (sites.empty() ? "" : ", ") + std::string(of_layer(entry.value) ? "blocks.L." : "") + std::string(entry.name);
  fail(ErrorCode::argument, "HookPoint::parse",
       "expected one of {}, model.layers.L, its .self_attn, .mlp, .self_attn.o_proj.input or .mlp.down_proj.input, or "
       "model.embed_tokens but got \"{}\"; correct the name",
       sites, name);
}

std::string HookPoint::name() const {
  return of_layer(site) ? format_text("blocks.{}.{}", layer, to_string(site)) : std::string(to_string(site));
}

}  // namespace steer
