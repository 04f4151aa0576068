#pragma once

#include <string_view>

namespace steer::eval::detail {

/// The page of `write_label_page`; `@ITEMS@` is replaced by a JSON list of {item, request, prompt, response}, `@ID@` by
/// what tells this page from others in the browser's store.
inline constexpr std::string_view kLabelPage = R"html(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Score answers</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; border: 1px solid #8886; border-radius: .4rem; padding: .8rem; }
.ask { font-weight: 600; } .quiet { opacity: .7; }
button { font: inherit; padding: .4rem 1rem; margin: .2rem .2rem 0 0; }
progress { width: 100%; }
</style></head><body>
<progress id="done" value="0" max="1"></progress>
<main id="main"></main>
<p class="quiet">Keys 1 to 5 score, Backspace goes back. What is scored stays in this browser: close the page and come
back at any time.</p>
<button id="save">Save labels.csv</button>
<script type="application/json" id="items">@ITEMS@</script>
<script>
"use strict";
const items = JSON.parse(document.getElementById("items").textContent), store = "answer-labels-@ID@";
let scores = {};
try { scores = JSON.parse(localStorage.getItem(store)) || {}; } catch (e) { scores = {}; }
const steps = [];
for (const item of items) for (const measure of ["behaviour", "coherence"]) steps.push({item, measure});
const scored = s => (scores[s.item.item] || {})[s.measure] !== undefined;
let at = steps.findIndex(s => !scored(s));
if (at < 0) at = steps.length;
const questions = {
  behaviour: item => `How much does the answer do this: “${item.request}”? 1: not at all, 5: as much as one could`,
  coherence: () => "How coherent is it as an answer to the question, whatever its style and whether it is right? " +
                   "1: not understandable or off the task, 5: fully coherent"};
function add(parent, tag, text, kind) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  parent.appendChild(element);
  return element;
}
function show() {
  const main = document.getElementById("main"), bar = document.getElementById("done");
  main.replaceChildren();
  bar.max = steps.length;
  bar.value = steps.filter(scored).length;
  if (at >= steps.length) { add(main, "h2", "All is scored. Save labels.csv."); return; }
  const {item, measure} = steps[at];
  add(main, "p", `${Math.floor(at / 2) + 1} of ${items.length}`, "quiet");
  add(main, "p", "The question", "quiet");
  add(main, "pre", item.prompt);
  add(main, "p", "The answer", "quiet");
  add(main, "pre", item.response);
  add(main, "p", questions[measure](item), "ask");
  for (let n = 1; n <= 5; ++n) add(main, "button", String(n)).onclick = () => give(n);
}
function give(n) {
  if (at >= steps.length) return;
  const {item, measure} = steps[at];
  scores[item.item] = Object.assign(scores[item.item] || {}, {[measure]: n});
  localStorage.setItem(store, JSON.stringify(scores));
  ++at;
  show();
}
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key >= "1" && event.key <= "5" && event.key.length === 1) give(Number(event.key));
  if (event.key === "Backspace" && at > 0) { event.preventDefault(); --at; show(); }
});
document.getElementById("save").onclick = () => {
  const rows = ["item,behaviour,coherence"];
  for (const item of items) {
    const s = scores[item.item];
    if (s) rows.push([item.item, s.behaviour ?? "", s.coherence ?? ""].join(","));
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([rows.join("\n") + "\n"], {type: "text/csv"}));
  link.download = "labels.csv";
  link.click();
};
show();
</script></body></html>
)html";

}  // namespace steer::eval::detail
