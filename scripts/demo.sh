#!/usr/bin/env bash
# The whole experiment on the small model in examples/data/demo, live: Auto Steer searches, every arm answers, the report
# is written. Extra arguments go to mmlu_tradeoff, e.g. --arms control,prompt,strong,published,safe,noise,flipped.
set -euo pipefail
cd "$(dirname "$0")/.."
program=build/release/examples/mmlu_tradeoff
[[ -x $program ]] || ./scripts/build.sh mmlu_tradeoff
demo=examples/data/demo
out=${STEER_DEMO_OUT:-build/demo}
rm -rf "$out"
start=$(date +%s)
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
"$program" --model "$demo" --sae "$demo/sae.safetensors" --questions "$demo/questions.jsonl" \
  --search-questions "$demo/questions_dev.jsonl" --max-tokens 96 --batch 256 --sweep 0.5,1,2 --sweep-every 6 --out "$out" "$@"
echo "demo: $(($(date +%s) - start)) s"
