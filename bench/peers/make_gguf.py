"""Writes a GGUF file of chosen shapes with random Q4_K weights (down and unembedding Q6_K, as Q4_K_M has them): layers of
models too large to be at hand, for their speed. Tokenizer and settings are those of another GGUF file of the family qwen2.

usage: make_gguf.py FROM.gguf OUT.gguf [--layers 4 --width 4096 --heads 32 --kv-heads 8 --mlp 14336]
"""
import argparse

import gguf
import numpy


def blocks(rng, rows, columns, kind):
    """Random blocks with small finite scales."""
    block, size = {"Q4_K": (256, 144), "Q6_K": (256, 210)}[kind]
    raw = rng.integers(0, 256, (rows, columns // block, size), dtype=numpy.uint8)
    half = lambda value: numpy.frombuffer(numpy.float16(value).tobytes(), numpy.uint8)
    if kind == "Q4_K":  # scale of scales, scale of minima
        raw[..., 0:2], raw[..., 2:4] = half(1e-4), half(7e-4)
    else:
        raw[..., 208:210] = half(1e-5)
    return raw.reshape(rows, -1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("out")
    for name, value in dict(layers=4, width=4096, heads=32, kv_heads=8, mlp=14336).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    args = parser.parse_args()
    source = gguf.GGUFReader(args.source)
    sizes = {"qwen2.block_count": args.layers, "qwen2.embedding_length": args.width,
             "qwen2.feed_forward_length": args.mlp, "qwen2.attention.head_count": args.heads,
             "qwen2.attention.head_count_kv": args.kv_heads}
    writer = gguf.GGUFWriter(args.out, "qwen2", use_temp_file=True)
    for field in source.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = sizes.get(field.name, field.contents())
        kind = field.types[0]
        writer.add_key_value(field.name, value, kind, sub_type=field.types[1] if kind == gguf.GGUFValueType.ARRAY else None)
    vocab = len(source.fields["tokenizer.ggml.tokens"].data)
    rng = numpy.random.default_rng(0)

    def matrix(name, rows, columns, kind="Q4_K"):
        writer.add_tensor(name, blocks(rng, rows, columns, kind), raw_dtype=gguf.GGMLQuantizationType[kind])

    def vector(name, size, value):
        writer.add_tensor(name, numpy.full(size, value, numpy.float32))

    keys = args.width // args.heads * args.kv_heads
    matrix("token_embd.weight", vocab, args.width)
    vector("output_norm.weight", args.width, 1)
    matrix("output.weight", vocab, args.width, "Q6_K")
    for layer in range(args.layers):
        at = f"blk.{layer}."
        vector(at + "attn_norm.weight", args.width, 1)
        vector(at + "ffn_norm.weight", args.width, 1)
        for name, rows in (("q", args.width), ("k", keys), ("v", keys)):
            matrix(f"{at}attn_{name}.weight", rows, args.width, "Q6_K" if name == "v" else "Q4_K")
            vector(f"{at}attn_{name}.bias", rows, 0)
        matrix(at + "attn_output.weight", args.width, args.width)
        matrix(at + "ffn_gate.weight", args.mlp, args.width)
        matrix(at + "ffn_up.weight", args.mlp, args.width)
        matrix(at + "ffn_down.weight", args.width, args.mlp, "Q6_K")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
