"""steer beside TransformerLens and SAELens on a model of 110M weights, in one alternating run.

    python python/bench/peers.py --pairs 7      # needs transformer-lens 4.3 and sae-lens 6.54 beside steer

Prints the CPU, and for each work the median ratio of their time to ours with its quartiles, and the largest difference
of what both computed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import steer

POINT_LAYER, FEATURES, VALUE = 6, [3, 77, 1234], 2.0


def make_model(folder: Path) -> None:
    """A Llama of 110M random weights, as Hugging Face keeps it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
        num_key_value_heads=12, max_position_embeddings=1024, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def make_sae(folder: Path, d_sae: int = 16384) -> steer.SAE:
    torch.manual_seed(1)
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, 768), dim=-1)
    made = steer.SAE.from_weights(
        {"architecture": "relu", "hook_name": f"blocks.{POINT_LAYER}.hook_resid_post"},
        {"W_enc": W_dec.T.contiguous(), "b_enc": torch.full((d_sae,), -0.5), "W_dec": W_dec, "b_dec": torch.zeros(768)},
    )
    made.save(folder)
    return steer.SAE.load(folder)


def pairs(ours: Callable[[], object], theirs: Callable[[], object], count: int) -> str:
    """Median and quartiles of their time over ours, and ours in ms, of alternating calls."""
    ratios, times = [], []
    ours(), theirs()
    for i in range(count):
        took = {}
        for which, call in (("ours", ours), ("theirs", theirs))[:: 1 if i % 2 else -1]:
            start = time.perf_counter()
            call()
            took[which] = time.perf_counter() - start
        ratios.append(took["theirs"] / took["ours"])
        times.append(took["ours"] * 1e3)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}] ours {statistics.median(times):.1f} ms"


def hook_call_us(model: steer.Model, ids: list[int], count: int) -> str:
    """What one call of a Python hook costs beside the same pass without: microseconds a hook, 144 hooks a pass."""
    session = model.session()
    names = [n for n in model.hook_names if n.startswith("blocks.") and n.endswith(("resid_pre", "resid_mid", "resid_post"))]
    differences = []
    for _ in range(count):
        took = []
        for hooked in (False, True):
            handles = [session.hook(n, lambda x, at: None, shape="rows") for n in names for _ in range(4) if hooked]
            session.forward(ids, logits="last")
            start = time.perf_counter()
            for _ in range(5):
                session.forward(ids, logits="last")
            took.append((time.perf_counter() - start) / 5)
            for handle in handles:
                handle.remove()
        differences.append((took[1] - took[0]) / (4 * len(names)) * 1e6)
    low, middle, high = statistics.quantiles(differences, n=4)
    return f"{middle:.2f} us [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--no-peers", action="store_true", help="only what needs no other library")
    options = parser.parse_args()
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    print(f"{cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder) / "model")
        sae = make_sae(Path(folder) / "sae")
        model = steer.Model.from_pretrained(Path(folder) / "model")
        ids = torch.randint(0, 32000, (1, 256), generator=torch.Generator().manual_seed(2))
        print("hook call:", hook_call_us(model, ids[0, :1].tolist(), options.pairs))
        if not options.no_peers:
            compare(Path(folder) / "model", Path(folder) / "sae", model, sae, ids, options.pairs)


def compare(path: Path, sae_path: Path, model: steer.Model, sae: steer.SAE, ids: torch.Tensor, count: int) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    torch.set_grad_enabled(False)
    bridge = TransformerBridge.boot_transformers(str(path), device="cpu", dtype=torch.float32)
    names = [f"blocks.{i}.hook_resid_post" for i in range(12)]
    hooked = {f"blocks.{i}.hook_out" for i in range(12)} | set(names)
    _, ours = model.run_with_cache(ids, names)
    _, theirs = bridge.run_with_cache(ids, names_filter=lambda n: n in hooked)
    key = next(k for k in (names[-1], "blocks.11.hook_out") if k in theirs.cache_dict)
    print("largest difference of the last residual:", (ours[names[-1]] - theirs[key]).abs().max().item())
    print("run_with_cache of all resid_post, 256 tokens:",
          pairs(lambda: model.run_with_cache(ids, names), lambda: bridge.run_with_cache(ids, names_filter=lambda n: n in hooked), count))  # fmt: skip
    from sae_lens import SAE

    peer = SAE.load_from_disk(str(sae_path))
    x = ours[names[POINT_LAYER]]
    print("largest difference of features:", (sae.encode(x) - peer.encode(x)).abs().max().item())

    def edit(h: torch.Tensor, hook: object) -> torch.Tensor:
        f = peer.encode(h)
        g = f.clone()
        g[..., FEATURES] += VALUE
        return h + peer.decode(g) - peer.decode(f)

    steering = steer.Steering()
    for feature in FEATURES:
        steering.nudge(sae, feature, VALUE)
    for rows in (1, 16):
        prompt = ids[:, :16].expand(rows, -1).contiguous()

        def peer_decode() -> object:
            with bridge.hooks(fwd_hooks=[(f"blocks.{POINT_LAYER}.hook_out", edit)]):
                return bridge.generate(prompt, max_new_tokens=16, do_sample=False, stop_at_eos=False, verbose=False, return_type="tokens")

        def our_decode() -> object:
            return model.generate(prompt, 16, steering=steering, stop_at_eos=False, return_type="tokens")

        print(f"decode of 16 tokens with a 3-feature SAE edit, batch {rows}:", pairs(our_decode, peer_decode, count))


if __name__ == "__main__":
    main()
