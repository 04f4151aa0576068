"""The work of bench/model in another library, by the same line protocol (see bench/model.cpp).

usage: model_peer.py (transformers|transformers-bf16|llama_cpp) PATH [THREADS] [first]
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


def main():
    library, path = sys.argv[1:3]
    first = sys.argv[-1] == "first"
    threads = int(sys.argv[3]) if len(sys.argv) > 3 and sys.argv[3] != "first" else len(os.sched_getaffinity(0))
    peer = {"transformers": Transformers, "llama_cpp": LlamaCpp,
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
