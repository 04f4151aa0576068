"""Two builds of this library in turn, old against new, as one table of ratios.

usage: run_builds.py OLD_BENCH NEW_BENCH --llama FOLDER [--repeats 7] [--only TEXT] [--old-word WORD]

OLD_BENCH and NEW_BENCH are folders of bench programs (build/release/bench of two trees), FOLDER is written by
make_llama.py. Each line of work is done old, new, old, new ...; a ratio is new speed over old of one such pair: median
[quartiles], above 1 the new one is faster. Lines that only one build has are left out. bench/steering runs on one thread
and counts processor time. `--old-word invariant` asks a build from before there was one order of additions for the mode that
keeps a row's bits whatever its batch, which its generation, scores and experiments used. At the end: what steering costs of
a decode step of the new build. About ten minutes.
"""
import argparse
import json
import os
import pathlib
import subprocess

from run_pairs import OURS, Program, spread

WORK = ["decode 1 32", "decode 4 16", "decode 8 16", "decode 16 16", "prefill 256"]
LONG = ["prefill 1024"]
PASSES = "pass/kind:./d:(256|2048)/features:1/batch:(1|16)/distinct:(1|16)/"


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

                def speed(program):
                    got = program.ask(f"{args.old_word} {work}" if program is old and args.old_word else work)
                    return got["tokens"] / got["seconds"]

                speed(old), speed(new)
                report(name, [(speed(old), speed(new)) for _ in range(args.repeats)])


def steering(folder, work, **more):
    """Lines of bench/steering that match, on one thread."""
    command = [folder / "steering", "--benchmark_format=json", "--benchmark_min_time=0.05", f"--benchmark_filter={work}"]
    text = subprocess.run(command, env=dict(os.environ, OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", **more), check=True,
                          capture_output=True, text=True).stdout
    return json.loads(text[text.index("{"):])["benchmarks"] if "{" in text else []


def passes(args):
    """One hook point's pass, of every kind of edit that both builds have."""
    work = args.only[len("steering "):] or PASSES
    run = lambda folder: {b["name"]: 1e9 / b["cpu_time"] for b in steering(folder, work)}
    runs = [(run(args.old), run(args.new)) for _ in range(args.repeats)]
    for name in runs[0][0]:
        if all(name in old and name in new for old, new in runs):
            report(f"steering {name.split('/min_time')[0]}", [(old[name], new[name]) for old, new in runs])


def steps(args):
    """What steering costs of a decode step."""
    for b in steering(args.new, "decode_pairs", STEER_BENCH_MODEL=args.llama):
        print(f"step {b['label']:52} batch {b['name'].split('batch:')[1].split('/')[0]:3} {b['step_us']:9.0f} us, "
              f"{b['over_percent']:+.2f}% [{b['low_percent']:+.2f}, {b['high_percent']:+.2f}]", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=pathlib.Path)
    parser.add_argument("new", type=pathlib.Path)
    parser.add_argument("--llama", required=True)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--old-word", default="", help="said before each line of the model's work to the old build")
    parser.add_argument("--only", default="", help="work whose name contains this; `steering REGEX` and `step ` of bench/steering alone")
    args = parser.parse_args()
    if not args.only or args.only.startswith("model"):
        models(args)
    if not args.only or args.only.startswith("steering"):
        passes(args)
    if not args.only or args.only.startswith("step "):
        steps(args)


if __name__ == "__main__":
    main()
