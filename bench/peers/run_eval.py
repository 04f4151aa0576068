"""Alternating runs of bench/eval and of eval_peer.py: the same questions, arms, weights and threads, as one table.

usage: run_eval.py --steer build/release/bench/eval --python PEERS_PYTHON --llama FOLDER --tokenizer FOLDER --mmlu FOLDER
                   [--questions 24] [--rounds 4] [--batch 8]

A round is the same questions in one and then in the other; a ratio is of one round. The answers are compared too.
"""
import argparse
import json
import os
import pathlib
import statistics
import tempfile

from run_pairs import Program

HERE = pathlib.Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("steer", "python", "llama", "tokenizer", "mmlu"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--questions", type=int, default=24, help="in a round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8, help="of the peer")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, \
            Program([args.steer, args.llama, args.tokenizer, args.mmlu, work, args.threads]) as ours, \
            Program([args.python, HERE / "eval_peer.py", args.llama, work, args.threads, args.batch]) as peer:
        total = ours.about["questions"]
        for program in (ours, peer):
            program.ask("letters 0 2")
        ratios, speeds, worst = [], {"ours": [], "peer": []}, [0.0] * ours.about["arms"]
        for round in range(args.rounds):
            begin = round * args.questions % total
            line = f"letters {begin} {min(args.questions, total - begin)}"
            a, b = ours.ask(line), peer.ask(line)
            for i, (x, y) in enumerate(zip(a["p_gold"], b["p_gold"])):
                worst[i % len(worst)] = max(worst[i % len(worst)], abs(x - y))
            ratios.append(b["seconds"] / a["seconds"])
            speeds["ours"].append(a["tokens"] / a["seconds"])
            speeds["peer"].append(b["tokens"] / b["seconds"])
            print(f"{line}: ours {a['seconds']:.2f} s, peer {b['seconds']:.2f} s, {a['tokens']} tokens of prompts, ratio {ratios[-1]:.2f}", flush=True)
        limit = ours.ask("limits 0 0")["gemm_flops"]
        print(f"ratio {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] over {len(ratios)} rounds; prompt tokens a second "
              f"{statistics.median(speeds['ours']):.0f} and {statistics.median(speeds['peer']):.0f}; GEMM limit {limit / 1e9:.0f} GFLOP/s; "
              f"largest difference of the right letter's probability, by arm: {', '.join(f'{w:.0e}' for w in worst)}")


if __name__ == "__main__":
    main()
