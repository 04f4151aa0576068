"""Loads a module built on a shared steer into a process that has torch already: load.py MODULE MODEL

One libtorch serves both: torch goes on working, threads are set in one place, an error of steer is caught inside the
module, and the module's logits are those that it computes when it is asked again.
"""
import ctypes
import sys

import torch

before = torch.randn(64, 64, generator=torch.Generator().manual_seed(1)) @ torch.ones(64, 64)
probe = ctypes.CDLL(sys.argv[1])
probe.probe_logits.restype = ctypes.c_long
error = ctypes.create_string_buffer(500)


def logits(path, ids):
    given = (ctypes.c_long * len(ids))(*ids)
    size = probe.probe_logits(path.encode(), given, len(ids), None, error, len(error))
    if size < 0:
        raise ValueError(error.value.decode())
    row = torch.empty(size)
    probe.probe_logits(path.encode(), given, len(ids), ctypes.c_void_p(row.data_ptr()), error, len(error))
    return row


first = logits(sys.argv[2], [5, 6, 7])
assert first.numel() > 100 and torch.isfinite(first).all() and first.std() > 0
assert torch.equal(first, logits(sys.argv[2], [5, 6, 7]))
assert not torch.equal(first, logits(sys.argv[2], [5, 6, 8]))
try:
    logits("nowhere", [1])
except ValueError as failure:
    assert "nowhere" in str(failure), failure
else:
    raise AssertionError("expected a folder that is not there to be refused")
assert torch.equal(before, torch.randn(64, 64, generator=torch.Generator().manual_seed(1)) @ torch.ones(64, 64))
with open("/proc/self/maps") as maps:
    loaded = {line.split()[-1] for line in maps if "libtorch_cpu" in line}
assert len(loaded) == 1, loaded
print(f"module: {first.numel()} logits beside torch {torch.__version__}")
