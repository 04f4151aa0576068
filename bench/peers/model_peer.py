"""The work of bench/model in another library, by the same line protocol (see bench/model.cpp).

usage: model_peer.py (transformers|transformers-bf16|llama_cpp|xllamacpp) PATH [THREADS] [first]

llama_cpp is llama-cpp-python, which pip builds for this machine; xllamacpp the wheel of that name, which comes built for
AVX2: beside it hold ours to AVX2 (run_pairs.py --isa avx2 --llama-cpp xllamacpp).
"""
import json
import os
import resource
import sys
import time


def prompt_of(vocab, length, row):
    return [(17 + 31 * i + 101 * row) % min(vocab, 30000) for i in range(length)]


class Transformers:
    def __init__(self, path, threads, dtype="float32"):
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()
        self.vocab = self.model.config.vocab_size

    def step(self, ids, cache):
        out = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values

    def decode(self, rows, tokens, context=8):
        with self.torch.inference_mode():
            ids = self.torch.tensor([prompt_of(self.vocab, context, row) for row in range(rows)])
            last, cache = self.step(ids, None)
            start = time.perf_counter()
            for _ in range(tokens):
                last, cache = self.step(last, cache)
            last.tolist()
            return time.perf_counter() - start

    def prefill(self, tokens):
        with self.torch.inference_mode():
            ids = self.torch.tensor([prompt_of(self.vocab, tokens, 0)])
            start = time.perf_counter()
            self.step(ids, None)[0].tolist()
            return time.perf_counter() - start


class LlamaCpp:
    def __init__(self, path, threads):
        import llama_cpp
        import numpy

        self.numpy = numpy
        self.llama = llama_cpp.Llama(path, n_ctx=20480, n_batch=512, n_ubatch=512, n_threads=threads,
                                     n_threads_batch=threads, verbose=False)
        self.vocab = self.llama.n_vocab()

    def step(self, ids):
        self.llama.eval(ids)
        logits = self.llama._ctx.get_logits_ith(-1)
        return int(self.numpy.ctypeslib.as_array(logits, shape=(self.vocab,)).argmax())

    def decode(self, rows, tokens, context=8):
        assert rows == 1, "one row at a time"
        self.llama.reset()
        last = self.step(prompt_of(self.vocab, context, 0))
        start = time.perf_counter()
        for _ in range(tokens):
            last = self.step([last])
        return time.perf_counter() - start

    def prefill(self, tokens):
        self.llama.reset()
        start = time.perf_counter()
        self.step(prompt_of(self.vocab, tokens, 0))
        return time.perf_counter() - start


class XLlamaCpp:
    """The wheel's own server, asked in this process; it says itself how long prompt and tokens took."""

    def __init__(self, path, threads):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = path
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_parallel, params.warmup = 20480, 512, 512, 1, False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        self.server = xllamacpp.Server(params)

    def ask(self, prompt, tokens):
        out = self.server.handle_completions({"prompt": prompt_of(30000, prompt, 0), "max_tokens": tokens, "temperature": 0,
                                              "cache_prompt": False, "ignore_eos": True})
        return (json.loads(out) if isinstance(out, (str, bytes)) else out)["timings"]

    def decode(self, rows, tokens, context=8):
        assert rows == 1, "one row at a time"
        return self.ask(context, tokens)["predicted_per_token_ms"] * tokens / 1e3

    def prefill(self, tokens):
        return self.ask(tokens, 1)["prompt_ms"] / 1e3


def main():
    library, path = sys.argv[1:3]
    first = sys.argv[-1] == "first"
    threads = int(sys.argv[3]) if len(sys.argv) > 3 and sys.argv[3] != "first" else len(os.sched_getaffinity(0))
    peer = {"transformers": Transformers, "llama_cpp": LlamaCpp, "xllamacpp": XLlamaCpp,
            "transformers-bf16": lambda *a: Transformers(*a, dtype="bfloat16")}[library](path, threads)
    if first:
        peer.prefill(8)
        print(json.dumps({"peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}), flush=True)
        return
    print(json.dumps({"library": library, "threads": threads}), flush=True)
    for line in sys.stdin:
        work, *numbers = line.split()
        if work == "quit":
            break
        numbers = [int(n) for n in numbers]
        seconds = getattr(peer, work)(*numbers)
        tokens = numbers[0] * numbers[1] if work == "decode" else numbers[0]
        print(json.dumps({"seconds": seconds, "tokens": tokens}), flush=True)


if __name__ == "__main__":
    main()
