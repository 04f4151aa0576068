"""Reads reference vectors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

DTYPES = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "I32": torch.int32, "BF16": torch.bfloat16}


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and its metadata: a reader of the tests' own."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    meta = head.pop("__metadata__", {})
    out = {}
    for name, entry in head.items():
        begin, end = (8 + size + o for o in entry["data_offsets"])
        dtype = DTYPES[entry["dtype"]]
        shape = entry["shape"]
        assert end - begin == math.prod(shape) * dtype.itemsize
        raw = torch.frombuffer(bytearray(data[begin:end]) or bytearray(1), dtype=torch.uint8)
        out[name] = raw[: end - begin].view(dtype).reshape(shape)
    return out, meta
