#!/usr/bin/env bash
# usage: tests/fuzz/run.sh BUILD_DIR [SECONDS] [TARGETS]   runs every target over a copy of its corpus; fails on a finding.
set -euo pipefail
build=$1 seconds=${2:-60}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for format in ${3:-safetensors gguf npy zip pickle legacy json yaml template tokenizer sentencepiece config csv judge_reply questions labels sae steering request}; do
  mkdir "$work/$format"
  # 192 MiB in one block is more than any reader may ask for; the rest is the sanitizer and libtorch.
  "$build/tests/fuzz/fuzz_$format" -max_total_time="$seconds" -rss_limit_mb=1024 -malloc_limit_mb=192 -timeout=20 \
    -artifact_prefix="$work/" -print_final_stats=1 "$work/$format" "$here/corpus/$format" 2>"$work/log" ||
    { cat "$work/log"; cp "$work"/{crash,oom,timeout,leak}-* . 2>/dev/null || true; echo "fuzz_$format: FINDING"; exit 1; }
  covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$work/log" | tail -1)
  echo "fuzz_$format: no finding in ${seconds} s, $(sed -n 's/stat::number_of_executed_units: *//p' "$work/log") runs, $covered edges covered"
done
