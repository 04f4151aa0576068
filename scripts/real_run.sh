#!/usr/bin/env bash
# The whole study on a real model: power beforehand, an SAE, directions at equal KL, searches, all arms, judges, cost on
# prose, report. Every stage keeps what it did: killed at any time and started again, it goes on where it was.
#
#   STEER_REAL_MODEL=model.gguf STEER_REAL_MMLU=data/mmlu STEER_REAL_PROSE=/usr/share/doc scripts/real_run.sh --plan
#   STEER_REAL_MODEL=... scripts/real_run.sh          the run itself, hours to days
#   STEER_REAL_MODEL=... scripts/real_run.sh --evening   three behaviours, 60 questions, no pair judge: hours on two cores
#   STEER_REAL_MODEL=... scripts/real_run.sh --tiny   every stage at its smallest, minutes
#
# STEER_REAL_MODEL  a GGUF file or a Hugging Face folder       STEER_REAL_MMLU   MMLU in its original layout
# STEER_REAL_PROSE  text files: half train the SAE, half are held out    STEER_REAL_OUT  build/real by default
# STEER_REAL_JUDGE  another model that compares answers in pairs; the model itself otherwise
# STEER_REAL_POINT  where the SAE reads; the middle layer otherwise   STEER_REAL_COMPUTE  f32, or bf16: faster
set -euo pipefail
cd "$(dirname "$0")/.."
model=${STEER_REAL_MODEL:?"expected the model: STEER_REAL_MODEL"}
mmlu=${STEER_REAL_MMLU:-../shared/data/mmlu}
prose=${STEER_REAL_PROSE:-/usr/share/doc}
out=${STEER_REAL_OUT:-build/real}
programs=${STEER_REAL_PROGRAMS:-build/release/examples}
pairs=${STEER_REAL_JUDGE:-self}
compute=${STEER_REAL_COMPUTE:-f32}
arms=control,prompt,published,safe,safe+prompt,random,noise,flipped
behaviours=funny,technical,concise,emotional
rules=short,exclaiming
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

methods=(mean_difference prompt_replacement trained)
questions=300 tokens=384 draws=3 certify=171 prompts=24 checks=64 off_target=20 batch=32
ways=()  # of steering that are compared: all
features=4096 sae_tokens=1500000 keep=150000 pieces=600 fit=32 test=16 effects=0.1,0.3 train=60 texts=60 calibrate=200
plan=0
for argument in "$@"; do
  case $argument in
    --plan) plan=1 ;;
    --evening)
      questions=60 tokens=160 draws=1 certify=48 prompts=8 checks=16 off_target=0 batch=48
      behaviours=funny,concise rules=exclaiming arms=control,prompt,published,safe,random pairs=none
      fit=16 test=8 effects=0.1 texts=20 methods=(mean_difference)
      ways=(--methods "random direction" "mean difference" centred "SAE, by contrast" "SAE, by output score")
      out=${STEER_REAL_OUT:-build/real-evening}
      ;;
    --tiny)
      questions=4 tokens=24 draws=2 certify=6 prompts=4 checks=4 off_target=2 batch=16
      behaviours=funny,technical rules=short
      features=64 sae_tokens=4096 keep=2048 pieces=12 fit=6 test=4 effects=0.1 train=2 texts=4 calibrate=8
      out=${STEER_REAL_OUT:-build/real-tiny}
      ;;
    *) echo "expected --plan, --evening or --tiny but got $argument" >&2; exit 1 ;;
  esac
done
# What reads every answer again: its distance from the unsteered model, and the pair judge.
reread=(--kl --pairs "$pairs")
[[ $pairs == none ]] && reread=()
for program in train_sae compare_methods mmlu_tradeoff steering_cost calibrate_judge inspect; do
  [[ -x $programs/$program ]] || ./scripts/build.sh "$program"
done
mkdir -p "$out"
layers=$("$programs/inspect" "$model" | grep -oE '[0-9]+ layers' | head -1 | cut -d' ' -f1)
point=${STEER_REAL_POINT:-blocks.$((layers / 2)).hook_resid_post}

# Half of the prose trains the SAE; cost is measured on the other half.
split() {
  [[ -d $out/prose/held_out ]] && return
  mkdir -p "$out/prose/.train" "$out/prose/.held_out"
  local n=0
  find "$prose" -type f -size +4k \( -name '*.txt' -o -name 'copyright' -o -name 'README*' -o -name '*.md' \) | sort |
    head -n 4000 | while read -r file; do
    n=$((n + 1))
    if ((n % 2)); then ln -sf "$(realpath "$file")" "$out/prose/.train/$n.txt"
    else cp "$file" "$out/prose/.held_out/$n.txt"; fi
  done
  mv "$out/prose/.train" "$out/prose/train"
  mv "$out/prose/.held_out" "$out/prose/held_out"
}

# A stage that is done is not done again.
stage() {
  local name=$1
  shift
  [[ -f $out/$name.done ]] && { echo "== $name: done before"; return; }
  echo "== $name"
  local start
  start=$(date +%s)
  "$@" 2>&1 | tee "$out/$name.log"
  echo "$(($(date +%s) - start)) s" | tee "$out/$name.done"
}

train() {  # FILE FEATURES TOKENS KEEP PIECES
  "$programs/train_sae" --model "$model" --point "$point" --mmlu "$mmlu" --text "$out/prose/train" --features "$2" \
    --tokens "$3" --keep "$4" --pieces "$5" --out "$1"
}

tradeoff() {  # SAE FURTHER...
  local sae=$1
  shift
  "$programs/mmlu_tradeoff" --model "$model" --sae "$sae" --mmlu "$mmlu" --per-subject $(((questions + 56) / 57)) \
    --limit "$questions" --behaviours "$behaviours" --rules "$rules" --max-tokens "$tokens" --force-answers \
    --search-prompts "$prompts" --search-checks "$checks" --certify "$certify" --draws "$draws" --batch "$batch" \
    --arms "$arms" --judge words --off-target "$off_target" --compute "$compute" "${reread[@]}" --out "$out/study" "$@"
}

if ((plan)); then
  split
  start=$(date +%s)
  [[ -f $out/plan-sae.safetensors ]] || train "$out/plan-sae.safetensors" 64 2048 2048 12 >"$out/plan-sae.log" 2>&1
  echo "an SAE of 64 features on 2,048 tokens: $(($(date +%s) - start)) s"
  tradeoff "$out/plan-sae.safetensors" --plan
  echo "besides                $((24 * 7)) answers that the words judge is fitted on, about $((10 * 4 * (test + 4))) of the"
  echo "                       comparison of methods an effect, ${draws} searches a mode and behaviour (counted once above),"
  echo "                       the pair judge's reading: 4 prompts an answer beside control"
  exit
fi
split
stage sae train "$out/sae.safetensors" "$features" "$sae_tokens" "$keep" "$pieces"
stage methods "$programs/compare_methods" --model "$model" --sae "$out/sae.safetensors" --mmlu "$mmlu" --behaviours \
  "$behaviours" --others "$behaviours" --effects "$effects" --fit "$fit" --test "$test" --max-tokens "$tokens" \
  --train-steps "$train" --compute "$compute" "${ways[@]}" --out "$out/methods"
if [[ -n ${STEER_PAPER_RESULTS:-} ]]; then
  stage calibrate "$programs/calibrate_judge" --judge logits --model "$([[ $pairs == self ]] && echo "$model" || echo "$pairs")" \
    --compute "$compute" --mmlu "$mmlu" --limit "$calibrate" --out "$out/calibration.json"
fi
given=()
for method in "${methods[@]}"; do
  [[ -d $out/methods/$method.0 ]] && given+=(--steer "$method=$out/methods/$method.0")
done
stage study tradeoff "$out/sae.safetensors" "${given[@]}"
found=()
for folder in "$out"/study/steerings/* "$out"/methods/*.0; do
  [[ -d $folder ]] && found+=(--steer "$(basename "$folder")=$folder")
done
stage prose "$programs/steering_cost" --model "$model" --text "$out/prose/held_out" --texts "$texts" "${found[@]}"
echo "the report: $out/study/report.html; on prose: $out/prose.log"
