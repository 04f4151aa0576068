#!/usr/bin/env python3
"""Writes files that have the headers and sizes of a published model and SAE and no contents: sparse, a few hundred KB on
disk. They show what `mmlu_tradeoff --plan` says before 16 or 141 GB are downloaded; nothing can be computed with them.

usage: make_shapes.py FOLDER {llama-3.1-8b,llama-3.3-70b} --tokenizer FOLDER_WITH_TOKENIZER_FILES
"""
import argparse
import json
import pathlib
import shutil
import struct

# width, layers, heads, key-value heads, MLP width, safetensors shards, the SAE's file: config.json of the published models
# and the SAE's model cards.
MODELS = {
    "llama-3.1-8b": (4096, 32, 32, 8, 14336, 4, "Llama-3.1-8B-Instruct-SAE-l19.pth"),
    "llama-3.3-70b": (8192, 80, 64, 8, 28672, 30, "Llama-3.3-70B-Instruct-SAE-l50.pt"),
}
VOCABULARY = 128256
FEATURES = 65536


def sparse(path, parts):
    """Writes (bytes or a number of zeros) one after another, the zeros as holes."""
    with open(path, "wb") as file:
        for part in parts:
            if isinstance(part, int):
                file.seek(part, 1)
            else:
                file.write(part)
        file.truncate(max(file.tell(), path.stat().st_size))


def save_safetensors(path, shapes):
    header, offset = {}, 0
    for name, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + 2 * count]}
        offset += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    sparse(path, [struct.pack("<Q", len(text)), text, offset])


def save_model(folder, width, layers, heads, kv_heads, mlp, shards):
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "intermediate_size": mlp, "vocab_size": VOCABULARY,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False,
        "attention_bias": False, "mlp_bias": False, "rope_theta": 500000.0, "torch_dtype": "bfloat16",
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192},
        "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009]}
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    kv = width // heads * kv_heads
    shapes = {"model.embed_tokens.weight": [VOCABULARY, width]}
    for i in range(layers):
        layer = f"model.layers.{i}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{layer}{name}.weight"] = [width]
        for name, out, size in (("self_attn.q_proj", width, width), ("self_attn.k_proj", kv, width),
                                ("self_attn.v_proj", kv, width), ("self_attn.o_proj", width, width),
                                ("mlp.gate_proj", mlp, width), ("mlp.up_proj", mlp, width), ("mlp.down_proj", width, mlp)):
            shapes[f"{layer}{name}.weight"] = [out, size]
    shapes["model.norm.weight"] = [width]
    shapes["lm_head.weight"] = [VOCABULARY, width]
    names, index = list(shapes), {}
    for shard in range(shards):
        held = names[len(names) * shard // shards:len(names) * (shard + 1) // shards]
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        save_safetensors(folder / file, {name: shapes[name] for name in held})
        index.update({name: file for name in held})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def long(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def pickled(tensors):
    """A state dict of f32 tensors, as torch.save writes it: protocol 2, storages by persistent id."""
    items = b""
    for key, (name, shape) in enumerate(tensors.items()):
        count, strides = 1, []
        for size in reversed(shape):
            strides.insert(0, count)
            count *= size
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(key)) + text("cpu") + long(count) + b"tQ"
        sizes = b"(" + b"".join(map(long, shape)) + b"t(" + b"".join(map(long, strides)) + b"t"
        items += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + long(0) + sizes + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}(" + items + b"u."


def save_sae(path, width):
    """The layout of Goodfire's files in PyTorch's zip container, stored, with 64-bit sizes throughout."""
    shapes = {"encoder_linear.weight": [FEATURES, width], "encoder_linear.bias": [FEATURES],
              "decoder_linear.weight": [width, FEATURES], "decoder_linear.bias": [width]}
    entries = [("archive/data.pkl", pickled(shapes)), ("archive/version", b"3\n")]
    for key, shape in enumerate(shapes.values()):
        entries.append((f"archive/data/{key}", 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)))
    parts, directory, offset = [], b"", 0
    for name, content in entries:
        size = content if isinstance(content, int) else len(content)
        raw, wide = name.encode(), struct.pack("<HHQQ", 1, 16, size, size)
        fields = struct.pack("<HHHHHIII", 45, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)
        pad = -(offset + 30 + len(raw) + len(wide) + 4) % 64  # PyTorch aligns storages
        extra = wide + struct.pack("<HH", 0x4246, pad) + b"\0" * pad
        local = b"PK\3\4" + fields + struct.pack("<HH", len(raw), len(extra)) + raw + extra
        parts += [local, content]
        wide = struct.pack("<HHQQQ", 1, 24, size, size, offset)
        directory += (b"PK\1\2" + struct.pack("<H", 45) + fields + struct.pack("<HHHHHII", len(raw), len(wide), 0, 0, 0, 0, 0xFFFFFFFF)
                      + raw + wide)
        offset += len(local) + size
    count = len(entries)
    end = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(directory), offset)
    end += b"PK\6\7" + struct.pack("<IQI", 0, offset + len(directory), 1)
    end += b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    sparse(path, parts + [directory, end])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True, help="tokenizer.json or tokenizer.model, and its configuration")
    args = parser.parse_args()
    *sizes, sae = MODELS[args.model]
    args.folder.mkdir(parents=True, exist_ok=True)
    save_model(args.folder, *sizes)
    save_sae(args.folder / sae, sizes[0])
    for file in args.tokenizer.glob("tokenizer*"):
        shutil.copy(file, args.folder)
    files = [path for path in args.folder.iterdir()]
    print(f"{args.folder}: {sum(f.stat().st_size for f in files) / 1e9:.1f} GB shown, "
          f"{sum(f.stat().st_blocks * 512 for f in files) / 1e6:.1f} MB on disk")


if __name__ == "__main__":
    main()
