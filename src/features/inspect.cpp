#include <steer/features/inspect.hpp>

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <nlohmann/json.hpp>

#include <steer/core/error.hpp>
#include <steer/features/activations.hpp>

#include "core/format_text.hpp"
#include "io/text_file.hpp"

namespace steer {
namespace {

/// Invalid UTF-8 of a token that ends within a character must not break the JSON or the page.
std::string dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

const InspectedFeature& Inspection::feature(std::int64_t index) const {
  for (const auto& candidate : features)
    if (candidate.feature == index) return candidate;
  fail(ErrorCode::argument, "Inspection::feature",
       "expected one of the {} listed features but got {}; raise InspectOptions::top_features", features.size(), index);
}

Inspection inspect_features(Session& session, const Sae& sae, std::span<const std::int64_t> ids,
                            const InspectOptions& options) {
  constexpr auto where = "inspect";
  require(!ids.empty(), ErrorCode::argument, where, "expected a text of at least one token but it is empty");
  require(options.top_features > 0 && options.top_per_token > 0, ErrorCode::argument, where,
          "expected limits of at least 1 but got top_features {} and top_per_token {}", options.top_features,
          options.top_per_token);
  const Model& model = session.model();
  const std::int64_t tokens = static_cast<std::int64_t>(ids.size());
  const TokenizedText text{.ids = {ids.begin(), ids.end()}};
  at::Tensor f;
  visit_activations(session, sae, {&text, 1}, [&](std::size_t, const at::Tensor& x) { f = sae.encode(x).cpu(); });
  // Back to one row a token: position 0 has no activations.
  f = at::cat({at::zeros({tokens - f.size(0), f.size(1)}, f.options()), f}).contiguous();

  Inspection result{.hook_point = sae_point(model, sae).name(), .tokens = {}, .features = {}};
  const auto [values, indices] = f.topk(std::min(options.top_per_token, f.size(1)), 1);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t id = ids[static_cast<std::size_t>(t)];
    InspectedToken token{.id = id,
                         .text = format_text("<{}>", id),
                         .special = model.has_tokenizer() && model.tokenizer().is_special(id),
                         .top = {}};
    // A control token decodes to nothing in some vocabularies, and features often peak there: its spelling instead.
    if (model.has_tokenizer())
      token.text = token.special ? model.tokenizer().token(id) : model.tokenizer().decode({&id, 1});
    for (std::int64_t k = 0; k < values.size(1); ++k)
      if (const double value = values[t][k].item<double>(); value > 0)
        token.top.push_back({indices[t][k].item<std::int64_t>(), value});
    result.tokens.push_back(std::move(token));
  }
  const auto [largest, order] = f.amax(0).topk(std::min(options.top_features, f.size(1)));
  for (std::int64_t i = 0; i < order.size(0) && largest[i].item<double>() > 0; ++i) {
    const std::int64_t index = order[i].item<std::int64_t>();
    const at::Tensor column = f.select(1, index).contiguous();
    const double count = static_cast<double>(std::max<std::int64_t>(1, tokens - 1));
    result.features.push_back({.feature = index,
                               .label = options.label ? options.label(index) : "",
                               .mean = column.sum().item<double>() / count,
                               .max = largest[i].item<double>(),
                               .active = static_cast<double>(column.count_nonzero().item<std::int64_t>()) / count,
                               .activations = {column.data_ptr<float>(), column.data_ptr<float>() + tokens}});
  }
  return result;
}

Inspection inspect_features(Session& session, const Sae& sae, const std::vector<Message>& conversation,
                            const InspectOptions& options) {
  return inspect_features(
      session, sae,
      session.model()
          .chat()
          .render(conversation, {.generation_prompt = false, .parse_special_in_content = false, .date = {}})
          .ids,
      options);
}

nlohmann::json Inspection::to_json() const {
  nlohmann::json json{
      {"hook_point", hook_point}, {"tokens", nlohmann::json::array()}, {"features", nlohmann::json::array()}};
  for (const auto& token : tokens) {
    nlohmann::json top = nlohmann::json::array();
    for (const auto& [feature, value] : token.top) top.push_back({{"feature", feature}, {"value", value}});
    json["tokens"].push_back(
        {{"id", token.id}, {"text", token.text}, {"special", token.special}, {"top", std::move(top)}});
  }
  for (const auto& f : features)
    json["features"].push_back({{"feature", f.feature},
                                {"label", f.label},
                                {"mean", f.mean},
                                {"max", f.max},
                                {"active", f.active},
                                {"activations", f.activations}});
  return json;
}

std::string Inspection::to_html(std::string_view title) const {
  std::string data = dump(to_json());
  // Inside a script element only "</" could end the data early; JSON allows the slash to be escaped.
  for (std::size_t at = 0; (at = data.find("</", at)) != std::string::npos; at += 3) data.replace(at, 2, "<\\/");
  std::string heading;
  for (char c : title) heading += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
  return format_text(R"html(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{0}</title>
<style>
:root {{ color-scheme: light dark; --ink: light-dark(#1c2128, #e6e9ee); --dim: light-dark(#667080, #98a2b0);
  --paper: light-dark(#fff, #14171c); --line: light-dark(#dfe3e8, #2c323b); --hot: 217, 95, 2; }}
body {{ margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }}
h1 {{ font-size: 1.35rem; margin: 0; }} p {{ color: var(--dim); margin: .25rem 0 1.25rem; }}
main {{ display: grid; grid-template-columns: minmax(0, 1fr) 22rem; gap: 1.5rem; align-items: start; }}
@media (max-width: 52rem) {{ main {{ grid-template-columns: minmax(0, 1fr); }} }}
#text {{ white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); border-radius: .5rem; padding: 1rem;
  font: 15px/1.9 ui-monospace, monospace; }}
#text span {{ border-radius: .2rem; padding: .1rem 0; }}
#text .special {{ color: var(--dim); font-size: .8em; }}
#text span:hover {{ outline: 1px solid var(--dim); }}
#head {{ display: grid; grid-template-columns: 4.5rem 1fr auto; gap: .5rem; padding: 0 .75rem .25rem; color: var(--dim); font-size: .85rem; }}
ol {{ list-style: none; margin: 0; padding: 0; max-height: 75vh; overflow: auto; border: 1px solid var(--line); border-radius: .5rem; }}
button {{ all: unset; box-sizing: border-box; width: 100%; display: grid; grid-template-columns: 4.5rem 1fr auto; gap: .5rem;
  padding: .4rem .75rem; cursor: pointer; font-size: .9rem; }}
button:focus-visible {{ outline: 2px solid rgb(var(--hot)); outline-offset: -2px; }}
button[aria-pressed=true] {{ background: rgba(var(--hot), .22); }}
button b {{ font-variant-numeric: tabular-nums; }} button i {{ color: var(--dim); font-style: normal; font-variant-numeric: tabular-nums; }}
#hover {{ min-height: 3.2em; color: var(--dim); font-size: .9rem; }}
</style></head><body>
<h1>{0}</h1><p id="about"></p>
<main><div><div id="text"></div><div id="hover" aria-live="polite">Point at a token, or tap it, to see its strongest features.</div></div>
<div><div id="head"><span>feature</span><span>label</span><span>largest</span></div><ol id="list"></ol></div></main>
<script type="application/json" id="data">{1}</script>
<script>
const data = JSON.parse(document.getElementById('data').textContent), text = document.getElementById('text');
document.getElementById('about').textContent = `${{data.hook_point}}: ${{data.tokens.length}} tokens, the ${{data.features.length}} most active features. Choose a feature: the deeper the shade, the nearer to its largest activation here. Small grey tokens belong to the chat format; the first token is left out.`;
const labels = Object.fromEntries(data.features.map(f => [f.feature, f.label]));
const spans = data.tokens.map(token => {{
  const span = document.createElement('span');
  span.textContent = /^\n+$/.test(token.text) ? token.text.replace(/\n/g, '↵\n') : token.text;
  if (token.special) span.className = 'special';
  span.onmouseenter = span.onclick = () => document.getElementById('hover').textContent = token.top.length
    ? token.top.map(t => `${{t.feature}}${{labels[t.feature] ? ' ' + labels[t.feature] : ''}}: ${{t.value.toFixed(2)}}`).join(' · ') : 'no feature';
  text.append(span);
  return span;
}});
function show(feature, pressed) {{
  for (const b of document.querySelectorAll('button')) b.setAttribute('aria-pressed', b === pressed);
  spans.forEach((span, i) => {{
    const share = feature.max > 0 ? Math.max(0, feature.activations[i] / feature.max) : 0;
    span.style.background = share ? `rgba(217, 95, 2, ${{(.08 + .77 * share).toFixed(3)}})` : '';
    span.title = feature.activations[i].toFixed(3);
  }});
}}
data.features.forEach((feature, i) => {{
  const item = document.createElement('li'), button = document.createElement('button');
  const [index, label, max] = ['b', 'span', 'i'].map(name => document.createElement(name));
  index.textContent = feature.feature; label.textContent = feature.label || 'no label'; max.textContent = feature.max.toFixed(2);
  button.append(index, label, max);
  button.onclick = () => show(feature, button);
  item.append(button);
  document.getElementById('list').append(item);
  if (i === 0) show(feature, button);
}});
</script></body></html>
)html",
                     heading, data);
}

void Inspection::write(const std::filesystem::path& file) const {
  io::detail::write_text_file(file, file.extension() == ".json" ? dump(to_json()) : to_html(), "Inspection::write");
}

}  // namespace steer
