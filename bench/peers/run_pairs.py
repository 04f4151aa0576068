"""Alternating runs of bench/model and of a peer on the same weights, machine and threads, as one table.

usage: run_pairs.py --steer build/release/bench/model --python PEERS_PYTHON --llama FOLDER [--demo FOLDER]
                    [--gguf FILE ...] [--compute f32 int8] [--isa avx2] [--repeats 7] [--out pairs.json] [--only TEXT]

Each line of work is repeated in turn: ours, the peer's, ours, the peer's ... A ratio is of one such pair; the table gives
their median and quartiles, beside what is asked (must, aim), and the share of the machine's own limit: bytes of
weights read a second over the read bandwidth (decode), or operations a second over libtorch's GEMM (prefill), measured
between the pairs by the same process. The first line says which machine it was.

--isa holds both sides to an instruction set: ours by STEER_ISA, torch by
ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA and MKL_ENABLE_INSTRUCTIONS. llama.cpp is held by how it was built.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
PEER = dict(os.environ, OMP_WAIT_POLICY="passive", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
OURS = {key: value for key, value in PEER.items() if key != "OMP_WAIT_POLICY"}  # needs no such help


def hold(isa):
    """Both sides' environment for an instruction set."""
    OURS["STEER_ISA"] = isa
    for environment in (OURS, PEER):
        environment.update(ATEN_CPU_CAPABILITY={"portable": "default", "avxvnni": "avx2"}.get(isa, isa),
                           ONEDNN_MAX_CPU_ISA={"portable": "SSE41", "avx2": "AVX2", "avxvnni": "AVX2_VNNI",
                                               "avx512": "AVX512_CORE_BF16"}[isa],
                           MKL_ENABLE_INSTRUCTIONS={"portable": "SSE4_2", "avx512": "AVX512"}.get(isa, "AVX2"))


def machine(program):
    """What this was measured on: processor, the flags that decide, measured read and GEMM rates."""
    info = {}
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    names = {"fma", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8",
             "asimd", "asimddp", "bf16", "i8mm", "sve"}
    flags = [f for f in (info.get("flags") or info.get("Features", "")).split() if f in names]
    limits = program.ask("limits")
    about = {"cpu": info.get("model name", "unknown"), "family": info.get("cpu family"), "model": info.get("model"),
             "cores": len(os.sched_getaffinity(0)), "flags": flags, "held_to": program.about.get("isa"), **limits}
    print("machine: {cpu} (family {family}, model {model}), {cores} cores, {flags}; products by {held_to}; reads "
          "{read:.0f} GB/s, libtorch multiplies {gemm:.0f} GFLOP/s in f32 and {bf16:.0f} in bf16".format(
              **dict(about, flags=" ".join(flags)), read=limits["read_bytes"] / 1e9, gemm=limits["gemm_flops"] / 1e9,
              bf16=limits["gemm_bf16_flops"] / 1e9), flush=True)
    return about


class Program:
    """A program that speaks the line protocol of bench/model."""

    def __init__(self, command, environment=PEER):
        self.command = [str(c) for c in command]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
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
            text = subprocess.run([str(c) for c in command] + ["first"], env=PEER, check=True, capture_output=True, text=True)
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
    parser.add_argument("--llama-cpp", choices=["llama_cpp", "xllamacpp"], default="llama_cpp", help="which build of it")
    parser.add_argument("--compute", nargs="+", choices=["f32", "bf16", "int8"], default=["f32"],
                        help="how ours rounds activations in the gguf rows")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--isa", choices=["portable", "avx2", "avxvnni", "avx512"], help="hold both sides to it")
    parser.add_argument("--only", default="", help="run only work whose name contains this")
    parser.add_argument("--out")
    args = parser.parse_args()
    peer = [args.python, HERE / "model_peer.py"]
    results = {}
    if args.isa:
        hold(args.isa)

    def steer(path, weights="stored", compute="f32", cache="f32", isa=None):
        return Program([args.steer, path, weights, args.threads, compute, cache], dict(OURS, STEER_ISA=isa) if isa else OURS)

    def wanted(name):
        return args.only in name

    def record(name, result, must=None, aim=None):
        results[name] = dict(result, must=must, aim=aim)
        r = result["ratio"]
        print(f"{name:34} ours {result['ours']['median']:9.1f}  peer {result['peer']['median']:8.1f}  "
              f"ratio {r['median']:6.2f} [{r['low']:.2f}, {r['high']:.2f}]  best/best {result['best_ratio']:.2f}"
              f"  must {must} aim {aim}  {result.get('share', '')}", flush=True)

    with steer(args.llama) as ours:
        results["machine"] = machine(ours)
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
        for path in [args.llama, *args.gguf]:
            of = "" if path == args.llama else " " + pathlib.Path(path).stem
            for kind in ("bf16", "int8"):
                weights_as = kind if path == args.llama else "stored"
                works = [w for w in ("decode 1 16", "decode 16 16", "prefill 256") if wanted(f"compute {kind} {w}{of}")]
                if works:
                    with steer(path, weights_as) as exact, steer(path, weights_as, kind) as rounded:
                        for work in works:
                            record(f"compute {kind} {work}{of}", alternate(rounded, exact, work, work, args.repeats))
        works = [("decode 1 16", 1, None), ("decode 16 16", 1, None), ("prefill 256", 1.1, 1.5)]
        works = [w for w in works if wanted(f"bf16 {w[0]} / transformers bf16")]
        if works:
            with steer(args.llama, "bf16", "bf16") as rounded, \
                    Program(peer + ["transformers-bf16", args.llama, args.threads]) as theirs:
                for work, must, aim in works:
                    record(f"bf16 {work} / transformers bf16", alternate(rounded, theirs, work, work, args.repeats), must, aim)
        works = [w for w in ("decode 1 16", "decode 16 16", "prefill 256") if wanted(f"tiles {w}")]
        if works and ours.about["isa"] == "amx":
            with steer(args.llama, "bf16", "bf16") as tiles, steer(args.llama, "bf16", "bf16", isa="avx512") as without:
                for work in works:
                    record(f"tiles {work} / AVX-512", alternate(tiles, without, work, work, args.repeats))
        for cache in ("f32", "bf16"):
            works = [w for w in ("prefill 1024", "decode 1 16 1024") if wanted(f"long {w} cache {cache}")]
            if works:
                with steer(args.llama, cache=cache) as long, \
                        Program(peer + ["transformers", args.llama, args.threads]) as theirs:
                    for work in works:
                        record(f"long {work} cache {cache}", alternate(long, theirs, work, work, args.repeats))
        if wanted("together"):
            record("together 2 sessions / 1", alternate(ours, ours, "together 2 decode 1 16", "decode 1 16", args.repeats),
                   0.95, 1)
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
    for path, compute in ((path, compute) for path in args.gguf for compute in args.compute):
        name = pathlib.Path(path).stem
        short = name[:10] + ".." + name[-6:] + ("" if compute == "f32" else " " + compute)
        if any(wanted(n) for n in ("gguf decode", "gguf prompt 256", "gguf prompt 512", "gguf prompt 4096")):
            with steer(path, compute=compute) as ours, Program(peer + [args.llama_cpp, path, args.threads]) as theirs:
                if wanted("gguf decode"):
                    result = alternate(ours, theirs, "decode 1 24", "decode 1 24", args.repeats)
                    result["share"] = read_share(ours, result, ours.about["weight_bytes"])  # tied: the table is read as unembedding
                    record(f"gguf decode {short}", result, 1.2, 1.6)
                for tokens, must, aim in ((256, 1.2, 1.6), (512, 1.2, 1.6), (4096, 1.0, 1.4)):
                    if wanted(f"gguf prompt {tokens}"):
                        record(f"gguf prompt {tokens} {short}",
                               alternate(ours, theirs, f"prefill {tokens}", f"prefill {tokens}", args.repeats), must, aim)
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
