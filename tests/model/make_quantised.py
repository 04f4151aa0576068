"""Writes tests/data/model/quantised_<method>.safetensors: small quantised matrices, each with what it stands for
(`expected.NAME`), computed here by the published formulas in numpy. Run: python3 tests/model/make_quantised.py OUT"""
import json
import struct
import sys
from pathlib import Path

import numpy as np

rng = np.random.default_rng(7)
DTYPES = {"float32": "F32", "float16": "F16", "int32": "I32", "uint8": "U8", "int8": "I8"}


def save(path, tensors, f8=()):
    header, data = {}, b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        dtype = "F8_E4M3" if name in f8 else DTYPES[str(array.dtype)]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def pack(values, axis, order=range(8)):
    """Eight 4-bit values along an axis in one int32; place i holds value order[i]."""
    values = np.moveaxis(values.astype(np.uint32), axis, -1)
    values = values.reshape(*values.shape[:-1], -1, 8)
    out = np.zeros(values.shape[:-1], np.uint32)
    for place, which in enumerate(order):
        out |= values[..., which] << np.uint32(4 * place)
    return np.moveaxis(out, -1, axis).view(np.int32)


def gptq(out, rows=24, inputs=128, group=64, shuffled=False, one=1):
    """AutoGPTQ: qweight [in/8, out], qzeros [groups, out/8] holding zero - 1 (v1), scales [groups, out], g_idx [in]."""
    groups = inputs // group
    q = rng.integers(0, 16, (inputs, rows))
    zero = rng.integers(1, 16, (groups, rows))
    scale = rng.uniform(0.01, 0.1, (groups, rows)).astype(np.float16)
    g = np.arange(inputs) // group
    if shuffled:
        g = rng.permutation(g)
    w = scale[g].astype(np.float32) * (q - zero[g]).astype(np.float32)
    return {f"{out}.qweight": pack(q, 0), f"{out}.qzeros": pack(zero - one, 1), f"{out}.scales": scale,
            f"{out}.g_idx": g.astype(np.int32), f"expected.{out}.weight": w.T.astype(np.float32)}


def awq(out, rows=24, inputs=128, group=64):
    """AutoAWQ, GEMM: qweight [in, out/8], qzeros [groups, out/8], both with columns in the order 0 2 4 6 1 3 5 7."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    groups = inputs // group
    q = rng.integers(0, 16, (inputs, rows))
    zero = rng.integers(0, 16, (groups, rows))
    scale = rng.uniform(0.01, 0.1, (groups, rows)).astype(np.float16)
    g = np.arange(inputs) // group
    w = scale[g].astype(np.float32) * (q - zero[g]).astype(np.float32)
    return {f"{out}.qweight": pack(q, 1, order), f"{out}.qzeros": pack(zero, 1, order), f"{out}.scales": scale,
            f"expected.{out}.weight": w.T.astype(np.float32)}


def e4m3(code):
    """OCP 8-bit floating point, E4M3: bias 7, no infinity, 0x7f and 0xff are NaN."""
    code = code.astype(np.int64)
    sign = np.where(code & 128, -1.0, 1.0)
    exponent, mantissa = (code >> 3) & 15, code & 7
    return (sign * np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))).astype(np.float32)


def fp8():
    tensors, f8 = {}, []
    codes = rng.integers(0, 127, (20, 24)) | (rng.integers(0, 2, (20, 24)) << 7)
    values = e4m3(codes)
    for name, scale in (("blocks", rng.uniform(0.01, 1, (3, 2))), ("tensor", rng.uniform(0.01, 1, ())),
                        ("row", rng.uniform(0.01, 1, (20, 1)))):
        scale = scale.astype(np.float32)
        full = np.repeat(np.repeat(scale, 8, 0)[:20], 16, 1)[:, :24] if name == "blocks" else scale
        tensors[f"{name}.weight"] = codes.astype(np.uint8)
        f8.append(f"{name}.weight")
        tensors[f"{name}.weight_scale_inv" if name == "blocks" else f"{name}.weight_scale"] = scale
        tensors[f"expected.{name}.weight"] = values * full
    tensors["tensor.input_scale"] = np.float32(3).reshape(())
    return tensors, f8


NF4 = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
                1.0], np.float32)  # QLoRA, arXiv:2305.14314, appendix E


def bitsandbytes(name, nested):
    """Serialised 4-bit state: two codes a byte, the high half first; absmax a block, itself 8-bit where nested."""
    shape, block, outer = (24, 32), 64, 4
    codes = rng.integers(0, 16, shape)
    flat = codes.reshape(-1)
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "float16", "shape": list(shape)}
    blocks = flat.size // block
    out = {f"{name}.weight": ((flat[0::2] << 4) | flat[1::2]).astype(np.uint8).reshape(-1, 1), f"{name}.weight.quant_map": NF4}
    if nested:
        table = np.sort(rng.uniform(-1, 1, 256)).astype(np.float32)
        inner = rng.integers(0, 256, blocks)
        largest = rng.uniform(0.5, 2, blocks // outer).astype(np.float32)
        state |= {"nested_blocksize": outer, "nested_offset": 0.25, "nested_dtype": "float32"}
        absmax = table[inner] * np.repeat(largest, outer) + np.float32(0.25)
        out |= {f"{name}.weight.absmax": inner.astype(np.uint8), f"{name}.weight.nested_absmax": largest,
                f"{name}.weight.nested_quant_map": table}
    else:
        absmax = rng.uniform(0.5, 2, blocks).astype(np.float32)
        out[f"{name}.weight.absmax"] = absmax
    text = json.dumps(state).encode()
    out[f"{name}.weight.quant_state.bitsandbytes__nf4"] = np.frombuffer(text, np.uint8)
    out[f"expected.{name}.weight"] = (NF4[flat] * np.repeat(absmax, block)).reshape(shape).astype(np.float32)
    return out


def int8():
    """LLM.int8(): rows of int8 times the row's largest value over 127."""
    codes, largest = rng.integers(-127, 128, (6, 16)).astype(np.int8), rng.uniform(0.1, 3, 6).astype(np.float32)
    return {"eight.weight": codes, "eight.SCB": largest,
            "expected.eight.weight": codes.astype(np.float32) * (largest / np.float32(127))[:, None]}


def mxfp4():
    """OCP microscaling: E2M1 codes, the low half of a byte first, and a power of two for 32 of them."""
    table = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0.0, -.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    experts, rows, across = 3, 4, 2
    packed = rng.integers(0, 256, (experts, rows, across, 16)).astype(np.uint8)
    scale = rng.integers(120, 132, (experts, rows, across)).astype(np.uint8)
    values = np.stack([table[packed & 15], table[packed >> 4]], -1).reshape(experts, rows, across, 32)
    values = values * np.exp2(scale.astype(np.float32) - 127)[..., None]
    return {"gate_up_proj_blocks": packed, "gate_up_proj_scales": scale,
            "expected.gate_up_proj": values.reshape(experts, rows, -1)}


out = Path(sys.argv[1])
save(out / "quantised_gptq.safetensors", gptq("plain") | gptq("shuffled", shuffled=True))
save(out / "quantised_gptq_v2.safetensors", gptq("plain", one=0))
save(out / "quantised_awq.safetensors", awq("plain"))
tensors, names = fp8()
save(out / "quantised_fp8.safetensors", tensors, names)
save(out / "quantised_bitsandbytes.safetensors", bitsandbytes("plain", False) | bitsandbytes("nested", True) | int8())
save(out / "quantised_mxfp4.safetensors", mxfp4())
