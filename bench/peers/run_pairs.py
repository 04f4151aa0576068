"""Alternating runs of bench/model and of a peer on the same weights, machine and threads, as one table.

usage: run_pairs.py --steer build/release/bench/model --python PEERS_PYTHON --llama FOLDER [--demo FOLDER]
                    [--gguf FILE ...] [--repeats 7] [--out pairs.json] [--only TEXT]

Each line of work is repeated in turn: ours, the peer's, ours, the peer's ... A ratio is of one such pair; the table gives
their median and quartiles, beside what issue 5 asks (must, aim), and the share of the machine's own limit: bytes of
weights read a second over the read bandwidth (decode), or operations a second over libtorch's GEMM (prefill), measured
between the pairs by the same process.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
QUIET = dict(os.environ, OMP_WAIT_POLICY="passive", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")


class Program:
    """A program that speaks the line protocol of bench/model."""

    def __init__(self, command):
        self.command = [str(c) for c in command]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=QUIET)
        self.about = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.command)} ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def spread(values):
    values = sorted(values)
    if len(values) < 4:
        return {"median": statistics.median(values), "low": values[0], "high": values[-1]}
    low, _, high = statistics.quantiles(values, n=4)
    return {"median": statistics.median(values), "low": low, "high": high}


def alternate(ours, theirs, our_line, their_line, repeats):
    """Speeds in tokens a second and the ratios of neighbours."""
    ours.ask(our_line)
    theirs.ask(their_line)
    a, b = [], []
    for _ in range(repeats):
        for program, line, out in ((ours, our_line, a), (theirs, their_line, b)):
            got = program.ask(line)
            out.append(got["tokens"] / got["seconds"])
    return {"ours": spread(a), "peer": spread(b), "ratio": spread([x / y for x, y in zip(a, b)]), "best": max(a),
            "best_ratio": max(a) / max(b)}


def read_share(program, result, bytes_a_token):
    """What the best run read of the memory bandwidth that the same process measures now."""
    limit = program.ask("limits")["read_bytes"]
    return f"{result['best'] * bytes_a_token / limit:.2f} of {limit / 1e9:.0f} GB/s"


def first_token(ours, theirs, repeats):
    """Seconds from process start to the first token, and peak memory."""
    a, b, memory = [], [], []
    for repeat in range(repeats + 1):
        for command, out in ((ours, a), (theirs, b)):
            start = time.perf_counter()
            text = subprocess.run([str(c) for c in command] + ["first"], env=QUIET, check=True, capture_output=True, text=True)
            if repeat:  # the first round warms the page cache
                out.append(1 / (time.perf_counter() - start))
                memory.append(json.loads(text.stdout.strip().splitlines()[-1])["peak_kb"] / 1024)
    return {"ours": spread(a), "peer": spread(b), "ratio": spread([x / y for x, y in zip(a, b)]), "best": max(a),
            "best_ratio": max(a) / max(b), "peak_mb": [max(memory[0::2]), max(memory[1::2])]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steer", required=True)
    parser.add_argument("--python", required=True, help="the Python that has transformers, torch and llama_cpp")
    parser.add_argument("--llama", required=True, help="folder written by make_llama.py")
    parser.add_argument("--demo", help="folder of a 6-layer, 256-wide model")
    parser.add_argument("--gguf", nargs="*", default=[])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="", help="run only work whose name contains this")
    parser.add_argument("--out")
    args = parser.parse_args()
    peer = [args.python, HERE / "model_peer.py"]
    results = {}

    def steer(path, weights="stored"):
        return Program([args.steer, path, weights, args.threads])

    def wanted(name):
        return args.only in name

    def record(name, result, must=None, aim=None):
        results[name] = dict(result, must=must, aim=aim)
        r = result["ratio"]
        print(f"{name:34} ours {result['ours']['median']:9.1f}  peer {result['peer']['median']:8.1f}  "
              f"ratio {r['median']:6.2f} [{r['low']:.2f}, {r['high']:.2f}]  best/best {result['best_ratio']:.2f}"
              f"  must {must} aim {aim}  {result.get('share', '')}", flush=True)

    with steer(args.llama) as ours:
        config = json.loads((pathlib.Path(args.llama) / "config.json").read_text())
        d, layers, mlp, vocab = (config[k] for k in ("hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size"))
        heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
        body = layers * (2 * d * d + 2 * d * d * kv // heads + 3 * d * mlp)
        weights = 4 * (body + d * vocab)  # bytes a token reads: all but the embedding table
        if any(wanted(n) for n in ("decode batch 1", "decode batch 4", "decode batch 16", "prefill 256")):
            with Program(peer + ["transformers", args.llama, args.threads]) as theirs:
                for rows, must, aim in ((1, 2.5, 3.2), (4, 4, 6), (16, 3.5, 5)):
                    name = f"decode batch {rows}"
                    if wanted(name):
                        line = f"decode {rows} 16"
                        result = alternate(ours, theirs, line, line, args.repeats)
                        result["share"] = read_share(ours, result, weights / rows)
                        record(name, result, must, aim)
                if wanted("prefill 256"):
                    result = alternate(ours, theirs, "prefill 256", "prefill 256", args.repeats)
                    limit = ours.ask("limits")
                    result["share"] = f"{result['best'] * 2 * body / limit['gemm_flops']:.2f} of {limit['gemm_flops'] / 1e9:.0f} GFLOP/s"
                    record("prefill 256", result, 1.1, 1.4)
        for kind, size, must, aim in (("bf16", 2, 1.6, 1.9), ("int8", 1.125, 2.5, 3.5)):
            if wanted(f"decode {kind}"):
                with steer(args.llama, kind) as other:
                    result = alternate(other, ours, "decode 1 32", "decode 1 32", args.repeats)
                    result["share"] = read_share(other, result, weights / 4 * size)
                    record(f"decode {kind} / our f32", result, must, aim)
        for kind in ("f32", "bf16", "int8"):
            works = [w for w in ("decode 16 16", "decode 32 16", "prefill 256") if wanted(f"batch_invariant {kind} {w}")]
            if works:
                with steer(args.llama, kind) as other:
                    for work in works:
                        record(f"batch_invariant {kind} {work}",
                               alternate(other, other, work, f"invariant {work}", args.repeats))
        if wanted("hooks"):
            record("hooks registered and removed", alternate(ours, ours, "unhooked 16", "decode 1 16", args.repeats), 1.0, 1.0)
            record("hooks on every layer", alternate(ours, ours, "hooked 16", "decode 1 16", args.repeats))
    if args.demo and wanted("demo decode"):
        with steer(args.demo) as ours, Program(peer + ["transformers", args.demo, args.threads]) as theirs:
            record("demo decode", alternate(ours, theirs, "decode 1 64", "decode 1 64", args.repeats), 5, 10)
    if wanted("first token"):
        result = first_token([args.steer, args.llama, "stored", args.threads],
                             peer + ["transformers", args.llama, args.threads], min(args.repeats, 4))
        result["share"] = "peak MB {:.0f} and {:.0f}".format(*result["peak_mb"])
        record("first token (1/s)", result, 10, 20)
    for path in args.gguf:
        name = pathlib.Path(path).stem
        short = name[:10] + ".." + name[-6:]
        if wanted("gguf"):
            with steer(path) as ours, Program(peer + ["llama_cpp", path, args.threads]) as theirs:
                result = alternate(ours, theirs, "decode 1 24", "decode 1 24", args.repeats)
                result["share"] = read_share(ours, result, ours.about["weight_bytes"])  # tied: the table is read as unembedding
                record(f"gguf decode {short}", result, 1, 1.5)
                record(f"gguf prompt {short}", alternate(ours, theirs, "prefill 256", "prefill 256", args.repeats), 1, 1.5)
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
