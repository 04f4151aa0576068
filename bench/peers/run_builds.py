"""Two builds of this library in turn, old against new, as one table of ratios.

usage: run_builds.py OLD_BENCH NEW_BENCH --llama FOLDER [--repeats 7] [--only TEXT]

OLD_BENCH and NEW_BENCH are folders of bench programs (build/release/bench of two trees), FOLDER is written by
make_llama.py. Each line of work is done old, new, old, new ...; a ratio is new speed over old of one such pair: median
[quartiles], above 1 the new one is faster. Lines that only one build has are left out.
"""
import argparse
import json
import pathlib
import subprocess

from run_pairs import OURS, Program, spread

WORK = ["decode 1 32", "decode 4 16", "decode 8 16", "decode 16 16", "prefill 256"]
LONG = ["prefill 1024", "decode 1 16 1024"]


def report(name, pairs):
    r = spread([new / old for old, new in pairs])
    print(f"{name:52} new/old {r['median']:.3f} [{r['low']:.3f}, {r['high']:.3f}]  old {pairs[-1][0]:.4g} new {pairs[-1][1]:.4g}",
          flush=True)


def models(args):
    for weights, works in (("stored", WORK + LONG), ("bf16", WORK), ("int8", WORK)):
        if not any(args.only in f"model {weights} {w}" for w in works):
            continue
        with Program([args.old / "model", args.llama, weights], OURS) as old, \
                Program([args.new / "model", args.llama, weights], OURS) as new:
            for work in works:
                name = f"model {weights} {work}"
                if args.only not in name:
                    continue
                speed = lambda program: (lambda got: got["tokens"] / got["seconds"])(program.ask(work))
                speed(old), speed(new)
                report(name, [(speed(old), speed(new)) for _ in range(args.repeats)])


def benchmarks(args, program):
    """Every line of a Google Benchmark program that both builds have."""
    def run(folder):
        command = [folder / program, "--benchmark_format=json", "--benchmark_min_time=0.05"]
        if args.only.startswith(program + " "):
            command.append(f"--benchmark_filter={args.only[len(program) + 1:]}")
        text = subprocess.run(command, env=OURS, check=True, capture_output=True, text=True).stdout
        return {b["name"]: 1e9 / b["real_time"] for b in json.loads(text[text.index("{"):])["benchmarks"]}
    runs = [(run(args.old), run(args.new)) for _ in range(args.repeats)]
    for name in runs[0][0]:
        if all(name in old and name in new for old, new in runs):
            report(f"{program} {name}", [(old[name], new[name]) for old, new in runs])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=pathlib.Path)
    parser.add_argument("new", type=pathlib.Path)
    parser.add_argument("--llama", required=True)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default="", help="work whose name contains this; `steering REGEX` of bench/steering alone")
    args = parser.parse_args()
    if not args.only or args.only.startswith("model"):
        models(args)
    if not args.only or args.only.startswith("steering"):
        benchmarks(args, "steering")


if __name__ == "__main__":
    main()
