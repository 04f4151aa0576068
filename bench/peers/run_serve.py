"""Alternating runs of steer_serve and of llama.cpp's server on one GGUF: tokens a second of clients that come at once.

usage: run_serve.py --steer build/release/examples/steer_serve --gguf MODEL [--rounds 5] [--clients 8] [--tokens 48]
                    (--llama-server PROGRAM | --xllamacpp PYTHON)

Both servers steer every token by one control vector of all layers, which is written for the occasion; ours is asked for it
in each request. --xllamacpp names a Python with the package of that name, which holds llama.cpp's server without its
control vectors: the peer then does less. A round is the same requests to one and then to the other, each with a server
that does nothing else meanwhile; a ratio is of one round. STEER_ISA=avx2 holds ours to what a prebuilt peer may use.
"""
import argparse
import json
import os
import pathlib
import random
import re
import statistics
import struct
import subprocess
import tempfile
import threading
import time
import urllib.request

# llama.cpp's server of the package xllamacpp: prints its address, serves until its input ends.
PEER = """
import sys, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.n_parallel, p.n_ctx, p.port, p.warmup, p.cache_prompt = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 0, True, False
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(sys.argv[4])
server = xllamacpp.Server(p)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


def shape_of(path):
    """(layers, width) of a GGUF file."""
    wanted = {}
    with open(path, "rb") as file:
        read = lambda form: struct.unpack("<" + form, file.read(struct.calcsize("<" + form)))
        text = lambda: file.read(read("Q")[0]).decode("utf-8", "replace")
        forms = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

        def value(kind):
            if kind == 8:
                return text()
            if kind == 9:
                inner, count = read("IQ")
                return [value(inner) for _ in range(count)]
            return read(forms[kind])[0]

        assert file.read(4) == b"GGUF", path
        _, _, keys = read("IQQ")
        for _ in range(keys):
            key = text()
            got = value(read("I")[0])
            if key.endswith((".block_count", ".embedding_length")):
                wanted[key.rsplit(".", 1)[1]] = got
    return wanted["block_count"], wanted["embedding_length"]


def write_control_vector(path, layers, width):
    """llama.cpp's format: a direction for the output of each layer but the first; small, so that texts stay texts."""
    text = lambda s: struct.pack("<Q", len(s)) + s.encode()
    names = [f"direction.{i}" for i in range(1, layers)]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(names), 3)
    head += text("general.architecture") + struct.pack("<I", 8) + text("controlvector")
    head += text("controlvector.model_hint") + struct.pack("<I", 8) + text("any")
    head += text("controlvector.layer_count") + struct.pack("<II", 4, len(names))
    step = -(-4 * width // 32) * 32
    for i, name in enumerate(names):
        head += text(name) + struct.pack("<IQIQ", 1, width, 0, i * step)
    data = head + b"\0" * (-len(head) % 32)
    noise = random.Random(1)
    for _ in names:
        row = struct.pack(f"<{width}f", *(noise.gauss(0, 0.01) for _ in range(width)))
        data += row + b"\0" * (step - len(row))
    path.write_bytes(data)


class Server:
    def __init__(self, command, env, address):
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, env=env, text=True)
        self.url = address or re.search(r"http://\S+", self.process.stdout.readline()).group(0)
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url + "/health", timeout=5).read()
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"no answer from {command[0]}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)


def ask(url, bodies):
    """Tokens a second of all bodies, sent at once."""
    counts = []

    def one(body):
        request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            counts.append(json.load(answer)["usage"]["completion_tokens"])

    threads = [threading.Thread(target=one, args=(body,)) for body in bodies]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begin
    assert len(counts) == len(bodies), "a request failed"
    return sum(counts) / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steer", required=True)
    parser.add_argument("--gguf", required=True)
    parser.add_argument("--llama-server")
    parser.add_argument("--xllamacpp")
    for name, default in dict(rounds=5, clients=8, prompt=32, tokens=48, threads=len(os.sched_getaffinity(0))).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    if not args.llama_server and not args.xllamacpp:
        parser.error("name a peer: --llama-server or --xllamacpp")
    layers, width = shape_of(args.gguf)
    env = dict(os.environ, OMP_WAIT_POLICY="passive", OMP_NUM_THREADS=str(args.threads), NO_PROXY="localhost,127.0.0.1")
    os.environ["NO_PROXY"] = "localhost,127.0.0.1"
    context = args.clients * (args.prompt + args.tokens + 16)
    with tempfile.TemporaryDirectory() as work:
        vector = pathlib.Path(work) / "vector.gguf"
        write_control_vector(vector, layers, width)
        steering = [{"vector": "peer", "point": f"blocks.{layer}.hook_resid_post", "strength": 1} for layer in range(1, layers)]
        port = random.randrange(20000, 30000)
        if args.llama_server:
            command = [args.llama_server, "-m", args.gguf, "--port", port, "-np", args.clients, "-c", context, "-t", args.threads,
                       "--control-vector", vector, "--no-cache-prompt"]
            peer = Server(command, env, f"http://127.0.0.1:{port}")
        else:
            peer = Server([args.xllamacpp, "-c", PEER, args.gguf, args.clients, context, args.threads], env, None)
        with peer, Server([args.steer, "--model", args.gguf, "--port", 0, "--vectors", f"peer={vector}", "--rows", args.clients],
                          env, None) as ours:
            noise = random.Random(2)
            ratios, speeds = [], ([], [])
            for turn in range(args.rounds + 1):  # the first warms up
                bodies = [{"prompt": [noise.randrange(1000, 30000) for _ in range(args.prompt)], "max_tokens": args.tokens,
                           "temperature": 0, "ignore_eos": True} for _ in range(args.clients)]
                runs = [lambda: ask(ours.url, [{**body, "steering": steering} for body in bodies]),
                        lambda: ask(peer.url, [{**body, "cache_prompt": False} for body in bodies])]
                order = (0, 1) if turn % 2 else (1, 0)
                got = dict((which, runs[which]()) for which in order)
                name = f"round {turn}" if turn else "warming up"
                print(f"{name}: ours {got[0]:.1f}, llama.cpp {got[1]:.1f} tokens/s, "
                      f"ratio {got[0] / got[1]:.3f}", flush=True)
                if turn > 0:
                    ratios.append(got[0] / got[1])
                    for which in (0, 1):
                        speeds[which].append(got[which])
    ratios.sort()
    low, high = (ratios[round((len(ratios) - 1) * q)] for q in (.25, .75))
    print(f"{args.clients} clients, {args.prompt} prompt and {args.tokens} new tokens each, {args.threads} threads: ours / llama.cpp "
          f"{statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}], {statistics.median(speeds[0]):.1f} and "
          f"{statistics.median(speeds[1]):.1f} tokens/s; llama.cpp's "
          + ("with the same control vector" if args.llama_server else "without a control vector"))


if __name__ == "__main__":
    main()
