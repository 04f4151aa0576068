#!/usr/bin/env python3
"""Runs bench/text and text_peer.py in turn and prints how many times faster steer is, median and range.

    text_pair.py BENCH_TEXT_PROGRAM MMLU_TEST_FOLDER TOKENIZER_FOLDER... [--rounds N]

Rates are of processor time, one thread each; the times of 1 MB are by the clock on the wall.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

parser = argparse.ArgumentParser()
parser.add_argument("program")
parser.add_argument("mmlu")
parser.add_argument("tokenizers", nargs="+")
parser.add_argument("--rounds", type=int, default=5)
options = parser.parse_args()
peer = str(pathlib.Path(__file__).with_name("text_peer.py"))


def run(command):
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


print(f"{'tokenizer':16} {'steer MB/s':>11} {'peer MB/s':>10} {'ratio':>6}  range")
for folder in options.tokenizers:
    name = pathlib.Path(folder).name
    ratios, ours, theirs = [], [], []
    for _ in range(options.rounds):
        b = run([sys.executable, peer, folder, options.mmlu])
        if "skipped" in b:
            print(f"{name:16} skipped: {b['skipped']}")
            break
        a = run([options.program, folder, options.mmlu])
        if a["texts"] != b["texts"] or (a["tokens"] != b["tokens"] and not b["converted"]):
            sys.exit(f"{name}: not the same work: {a} against {b}")
        ours.append(a["mb_per_s"])
        theirs.append(b["mb_per_s"])
        ratios.append(b["seconds"] / a["seconds"])
    if not ratios:
        continue
    note = f"; the peer's is converted: {b['tokens']} tokens, steer {a['tokens']}" if b["converted"] else ""
    print(f"{name:16} {statistics.median(ours):11.2f} {statistics.median(theirs):10.2f} {statistics.median(ratios):6.2f}  "
          f"{min(ratios):.2f} to {max(ratios):.2f}; 1 MB of a {a['1MB_of_a']} s, of English {a['1MB_of_english']} s{note}",
          flush=True)
