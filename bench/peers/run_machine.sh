#!/bin/sh
# Every speed and accuracy figure of docs/performance-model.md on this machine, into a folder: a column for the table.
#
#   bench/peers/run_machine.sh OUT PEERS_PYTHON [GGUF ...]
#
# Wants a built tree (build/release) and a quiet machine; takes about an hour. Three runs, four minutes apart.
set -eu
out=$1 python=$2
shift 2
here=$(cd "$(dirname "$0")/../.." && pwd)
bench=$here/build/release/bench
mkdir -p "$out"
[ -d "$out/llama" ] || "$python" "$here/bench/peers/make_llama.py" "$out/llama"
lscpu > "$out/lscpu.txt"
pairs() {
  "$python" "$here/bench/peers/run_pairs.py" --steer "$bench/model" --python "$python" --llama "$out/llama" \
    --demo "$here/examples/data/demo" --gguf "$@"
}
for run in 1 2 3; do
  [ "$run" = 1 ] || sleep 240
  pairs "$@" --out "$out/pairs-$run.json" | tee "$out/pairs-$run.txt"
done
if grep -qw avx2 /proc/cpuinfo; then
  pairs --isa avx2 --only batch --out "$out/pairs-avx2.json" | tee "$out/pairs-avx2.txt"
fi
if "$python" -c 'import xllamacpp' 2> /dev/null; then
  pairs "$@" --llama-cpp xllamacpp --compute f32 bf16 int8 --only gguf --repeats 4 --out "$out/pairs-gguf.json" | tee "$out/pairs-gguf.txt"
fi
"$bench/kernels" --benchmark_repetitions=5 --benchmark_report_aggregates_only=true > "$out/kernels.txt"
for model in "$@"; do
  cat "$here"/docs/*.md | "$bench/compute" "$model" stored 2000 | tee -a "$out/compute.txt"
done
