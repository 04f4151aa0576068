"""What steering costs a decode step: bench/steering's decode lines and steering_peer.py in turn, as one table.

usage: run_steering_pairs.py --steer build/release/bench/steering --python PEERS_PYTHON --model FOLDER [--rounds 3]

Both on one thread, batch 1. Each round runs ours, then the peer; in each, the plain and the steered steps alternate, so an
overhead is against its own plain step. The table has the median of the rounds and their range.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steer", required=True)
parser.add_argument("--python", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--tokens", type=int, default=48)
args = parser.parse_args()
quiet = dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", HF_HUB_OFFLINE="1", STEER_BENCH_MODEL=args.model)


def run(command):
    return subprocess.run([str(c) for c in command], env=quiet, check=True, capture_output=True, text=True).stdout


lines = {}  # name -> [(plain step us, overhead us, overhead percent)]
for _ in range(args.rounds):
    report = run([args.steer, "--benchmark_filter=decode_pairs", "--benchmark_format=json"])
    for b in json.loads(report)["benchmarks"]:
        lines.setdefault("steer: " + b["label"], []).append((b["step_us"], b["over_us"], b["over_percent"]))
    modes = {}
    for line in run([args.python, HERE / "steering_peer.py", args.model, "--repeats", 3, "--tokens", args.tokens]).splitlines():
        mode = json.loads(line)
        modes[mode["mode"]] = mode
    for name, mode in modes.items():
        if name != "plain":
            lines.setdefault(f"transformers: {name} over plain", []).append(
                (modes["plain"]["us_per_token"], mode["overhead_us"], mode["overhead_percent"]))
print(f"{'':52} {'step us':>9} {'over us':>9} {'over %':>7}  range of %")
for name, rounds in lines.items():
    step, over, percent = (statistics.median(column) for column in zip(*rounds))
    shares = [r[2] for r in rounds]
    print(f"{name:52} {step:9.0f} {over:9.1f} {percent:7.2f}  {min(shares):.2f} to {max(shares):.2f}")
