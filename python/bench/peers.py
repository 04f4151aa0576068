"""steer beside TransformerLens, SAELens and C++ on a model of 110M random weights, in alternating runs.

    python python/bench/peers.py --transformer-lens PYTHON --sae-lens PYTHON [--pairs 9] [--wheel FILE]

PYTHON: an interpreter that has the library; each runs in a process of its own, because SAELens 6.54 does not install beside
TransformerLens 4. Work is done in turn, ours, theirs, theirs, ours, on the same files and threads; a ratio is of one
such pair. Prints the CPU, for each work the median of their time over ours with its quartiles, and what differs between
both results; then what Python adds to C++'s `generate`, a hook's call, the import and the wheel.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import steer
from worker import DECODED, LAYER, VOCAB, prompt

HERE = Path(__file__).resolve().parent
ENVIRONMENT = dict(os.environ, OMP_WAIT_POLICY="passive", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")


def make_model(folder: Path) -> None:
    """A Llama of 110M random weights, as Hugging Face keeps it, with a tokenizer, because TransformerLens wants one."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
        num_key_value_heads=12, max_position_embeddings=1024, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    letters = Tokenizer(BPE({chr(0x4E00 + i): i for i in range(VOCAB)}, []))
    names = {"bos_token": chr(0x4E01), "eos_token": chr(0x4E02), "pad_token": chr(0x4E02)}
    PreTrainedTokenizerFast(tokenizer_object=letters, **names).save_pretrained(folder)


def make_sae(folder: Path, d_sae: int = 16384) -> None:
    torch.manual_seed(1)
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, 768), dim=-1)
    made = steer.SAE.from_weights(
        {"architecture": "relu", "hook_name": f"blocks.{LAYER}.hook_resid_post"},
        {"W_enc": W_dec.T.contiguous(), "b_enc": torch.full((d_sae,), -0.5), "W_dec": W_dec, "b_dec": torch.zeros(768)},
    )
    made.save(folder)


class Side:
    """A process that does a line of work at a time and says how long it took."""

    def __init__(self, *command: object) -> None:
        self.process = subprocess.Popen(
            [str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        self.read()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"peers: {' '.join(self.process.args)} ended with {self.process.wait()}")  # type: ignore[arg-type]
        return json.loads(line)

    def ask(self, line: object) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(line if isinstance(line, str) else json.dumps(line), file=self.process.stdin, flush=True)
        return self.read()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def shown(values: list[float], digits: int = 2) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def alternate(ours: Side, theirs: Side, our_work: object, their_work: object, pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of both, pair by pair; who is first changes from pair to pair."""
    took: tuple[list[float], list[float]] = [], []
    for i in range(pairs):
        for which in (0, 1) if i % 2 else (1, 0):
            answer = (ours, theirs)[which].ask((our_work, their_work)[which])
            took[which].append(answer["seconds"])
    return took


def beside(title: str, ours: Side, theirs: Side, work: dict[str, Any], pairs: int, folder: Path) -> None:
    files = [folder / "ours.pt", folder / "theirs.pt"]
    for side, file in zip((ours, theirs), files):  # also warms both
        side.ask({**work, "save": str(file)})
    mine, other = (torch.load(file) for file in files)
    if mine.is_floating_point():
        differ = f"largest difference {(mine - other).abs().max().item():.1e} of {other.abs().max().item():.1f}"
    else:
        differ = f"{int((mine != other).sum())} of {mine.shape[0] * DECODED} tokens differ"
    a, b = alternate(ours, theirs, work, work, pairs)
    print(f"{title:52} {shown([y / x for x, y in zip(a, b)])}, ours {statistics.median(a) * 1e3:.0f} ms; {differ}", flush=True)


def import_seconds(count: int) -> list[float]:
    """Of `import steer`, once torch is there."""
    code = "import time, torch; start = time.perf_counter(); import steer; print(time.perf_counter() - start)"
    return [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformer-lens", metavar="PYTHON", help="4.3 or newer")
    parser.add_argument("--sae-lens", metavar="PYTHON", help="6.54 or newer")
    parser.add_argument("--cpp", metavar="PROGRAM", default=HERE.parents[1] / "build/release/python/bench/generate")
    parser.add_argument("--wheel", type=Path, help="of `pip wheel --no-deps .`, to tell its size")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    print(f"{cpu}, {options.threads} threads, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, sae = folder / "model", folder / "sae"
        make_model(model)
        make_sae(sae)
        worker = (HERE / "worker.py", "{}", model, sae, options.threads)

        def side(python: str, library: str) -> Side:
            return Side(python, *(library if part == "{}" else part for part in worker))

        with side(sys.executable, "steer") as ours:
            if options.transformer_lens:
                with side(options.transformer_lens, "transformer_lens") as theirs:
                    beside("run_with_cache, all resid_post, 256 tokens", ours, theirs, {"do": "cache"}, options.pairs, folder)
            if options.sae_lens:
                with side(options.sae_lens, "sae_lens") as theirs:
                    for rows in (1, 16):
                        work = {"do": "decode", "rows": rows}
                        beside(f"{DECODED} tokens, 3-feature SAE edit, batch {rows}", ours, theirs, work, options.pairs, folder)
            if Path(options.cpp).exists():
                with Side(options.cpp, model, options.threads) as cpp:
                    ids = " ".join(map(str, prompt(16)[0].tolist()))
                    for rows in (1, 16):
                        work, line = {"do": "generate", "rows": rows, "tokens": 32}, f"{rows} 32 {ids}"
                        assert ours.ask(work)["ids"] == cpp.ask(line)["ids"]
                        a, b = alternate(ours, cpp, work, line, options.pairs)
                        print(f"{f'generate from Python over C++, batch {rows}, %':52} {shown([100 * (x / y - 1) for x, y in zip(a, b)])}", flush=True)
            ours.ask({"do": "hook"})
            print(f"{'a Python hook, us a call':52} {shown([ours.ask({'do': 'hook'})['value'] for _ in range(options.pairs)])}")
        print(f"{'import steer behind torch, s':52} {shown(import_seconds(options.pairs), 3)}")
        if options.wheel:
            print(f"{'wheel, MB':52} {options.wheel.stat().st_size / 1e6:.1f}")


if __name__ == "__main__":
    main()
