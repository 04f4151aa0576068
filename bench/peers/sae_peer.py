"""The work of bench/sae's `train` lines in SAELens's own trainer, by the same line protocol.

usage: sae_peer.py   (in an environment with sae-lens and torch; reads lines, writes one JSON object a line)
"""
import json
import os
import sys
import time
import warnings

warnings.filterwarnings("ignore")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.registry import get_sae_training_class
from sae_lens.training.sae_trainer import SAETrainer

torch.set_num_threads(len(os.sched_getaffinity(0)))
ARCHITECTURES = {"relu": "standard", "topk": "topk", "batchtopk": "batchtopk", "jumprelu": "jumprelu"}
trainers = {}


def noise(d, batch):
    """As ours: rows drawn at random from a buffer of two batches that is refilled when half is used."""
    while True:
        pool = torch.randn(batch, d)
        yield pool[torch.randperm(batch)]


def trainer_of(activation, d, f, batch, k):
    key = (activation, d, f, batch, k)
    if key not in trainers:
        cls, config = get_sae_training_class(ARCHITECTURES[activation])
        options = {"d_in": d, "d_sae": f, "normalize_activations": "expected_average_only_in"}
        if activation in ("topk", "batchtopk"):
            options |= {"k": k, "use_sparse_activations": os.environ.get("SPARSE") == "1"} if activation == "topk" else {"k": k}
        sae = cls(config(**options))
        cfg = SAETrainerConfig(total_training_samples=1 << 40, train_batch_size_samples=batch, n_batches_for_norm_estimate=2, lr_end=3e-5)
        trainer = SAETrainer(cfg=cfg, sae=sae, data_provider=noise(d, batch))
        trainer.activation_scaler.estimate_scaling_factor(d_in=d, data_provider=trainer.data_provider, n_batches_for_norm_estimate=2)
        step = lambda: trainer.step(next(trainer.data_provider))
        step(), step()
        trainers[key] = step
    return trainers[key]


print(json.dumps({"program": "SAELens", "threads": torch.get_num_threads(), "torch": torch.__version__}), flush=True)
for line in sys.stdin:
    what, activation, *numbers = line.split()
    assert what == "train", line
    d, f, batch, k, steps = map(int, numbers)
    step = trainer_of(activation, d, f, batch, k)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    print(json.dumps({"work": line.strip(), "tokens": steps * batch, "seconds": time.perf_counter() - start}), flush=True)
