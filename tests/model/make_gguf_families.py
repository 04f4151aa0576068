#!/usr/bin/env python3
"""Tiny models of each family that llama.cpp can hold: NAME.gguf by llama.cpp's own converter, and NAME.json with the
logits that transformers computes with the same weights. Makes tests/data/model/gguf.

usage: make_gguf_families.py LLAMA_CPP OUT

LLAMA_CPP is a llama.cpp source tree with conversion/ and gguf-py/ (the source package of llama-cpp-python 0.3.36 has
them under vendor/llama.cpp). Needs torch, transformers 5.23, safetensors and numpy. Weights are random with a fixed
seed and rounded to f16, which is how the files keep them. There is no tokenizer, so the converter's writing of one is
left out; all else in the files is the converter's.
"""
import json
import logging
import pathlib
import sys
import tempfile

root, out = map(pathlib.Path, sys.argv[1:3])
sys.path[:0] = [str(root / "gguf-py"), str(root)]

import gguf  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

logging.disable(logging.WARNING)

SIZES = dict(vocab_size=48, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, bos_token_id=0, eos_token_id=1, pad_token_id=None)
EXPERTS = dict(num_experts_per_tok=2)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=16)


def rope(theta=10000.0, **more):
    return {"rope_parameters": dict(rope_type="default", rope_theta=theta) | more}


FAMILIES = {
    "llama": ("Llama", SIZES | rope() | dict(attention_bias=True, mlp_bias=True, head_dim=10, tie_word_embeddings=False)),
    "llama3": ("Llama", SIZES | rope(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                     original_max_position_embeddings=32) | dict(tie_word_embeddings=True)),
    "llama_linear": ("Llama", SIZES | rope(rope_type="linear", factor=4.0)),
    "mixtral": ("Mixtral", SIZES | rope(1e6) | EXPERTS | dict(num_local_experts=3)),
    "ministral3": ("Ministral3", SIZES | dict(head_dim=12, rope_parameters=YARN | dict(
        mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1, beta_fast=32.0, beta_slow=0.25))),
    "qwen2": ("Qwen2", SIZES | rope(1e6)),
    "qwen3": ("Qwen3", SIZES | rope(1e6) | dict(head_dim=12)),
    "qwen2moe": ("Qwen2Moe", SIZES | rope() | EXPERTS | dict(num_experts=3, moe_intermediate_size=16,
                                                             shared_expert_intermediate_size=24)),
    "qwen3moe": ("Qwen3Moe", SIZES | rope() | EXPERTS | dict(num_experts=3, moe_intermediate_size=16, head_dim=12,
                                                             norm_topk_prob=True)),
    "qwen35": ("Qwen3_5", SIZES | dict(head_dim=16, linear_conv_kernel_dim=4, linear_key_head_dim=8,
                                       linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
                                       layer_types=["linear_attention", "full_attention"], rope_parameters=dict(
                                           rope_type="default", rope_theta=1e5, partial_rotary_factor=0.5,
                                           mrope_section=[2, 1, 1], mrope_interleaved=True))),
    "gemma": ("Gemma", SIZES | rope() | dict(head_dim=12, hidden_act="gelu_pytorch_tanh")),
    "gemma2": ("Gemma2", SIZES | rope() | dict(head_dim=12, sliding_window=6, query_pre_attn_scalar=12)),
    "gemma3": ("Gemma3", SIZES | dict(num_hidden_layers=6, intermediate_size=16, head_dim=12, sliding_window=6,
                                      query_pre_attn_scalar=12)),
    "gpt_oss": ("GptOss", SIZES | EXPERTS | dict(num_local_experts=3, head_dim=12, sliding_window=6,
                                                 layer_types=["sliding_attention", "full_attention"],
                                                 rope_parameters=YARN | dict(truncate=False, beta_fast=8.0))),
    "gpt_oss_mxfp4": ("GptOss", SIZES | EXPERTS | dict(num_local_experts=3, head_dim=12, intermediate_size=32,
                                                       sliding_window=6, rope_parameters=YARN | dict(truncate=False))),
    "olmo2": ("Olmo2", SIZES | rope(5e5)),
    "olmo3": ("Olmo3", SIZES | dict(num_hidden_layers=3, sliding_window=6, rope_parameters={
        "full_attention": YARN | dict(attention_factor=1.3),
        "sliding_attention": dict(rope_type="default", rope_theta=10000.0)},
        layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "phi3": ("Phi3", SIZES | rope() | dict(sliding_window=None)),
    "phi3_long": ("Phi3", SIZES | dict(original_max_position_embeddings=16, sliding_window=None, rope_parameters=dict(
        rope_type="longrope", rope_theta=10000.0, original_max_position_embeddings=16, partial_rotary_factor=1.0,
        factor=8.0, short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[1.0, 1.5, 3.0, 6.0]))),
    "granite": ("Granite", SIZES | rope() | dict(embedding_multiplier=3.0, attention_multiplier=0.2,
                                                 residual_multiplier=0.5, logits_scaling=2.0)),
    "smollm3": ("SmolLM3", SIZES | rope(2e6) | dict(num_hidden_layers=4, intermediate_size=16,
                                                    no_rope_layers=[1, 1, 1, 0])),
    "gpt2": ("GPT2", dict(vocab_size=48, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=48)),
    "gpt_neox": ("GPTNeoX", SIZES | dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                                              partial_rotary_factor=0.5))),
}
VARIANTS = {"llama_fuse_qkv": ("llama", dict(fuse_qkv=True))}  # the converter's own options


def without_vocabulary(cls):
    for each in cls.__mro__:
        if "set_vocab" in each.__dict__:
            each.set_vocab = lambda self: None
        for inner in list(each.__dict__.values()):
            if isinstance(inner, type) and inner is not each:
                without_vocabulary(inner)


def build(kind, settings):
    config_class = f"{kind}TextConfig" if kind in ("Qwen3_5", "Gemma3") else f"{kind}Config"
    config = getattr(transformers, config_class)(**settings)
    config._attn_implementation = "eager"
    torch.manual_seed(7)
    model = getattr(transformers, "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM")(config).float().eval()
    for name, parameter in model.named_parameters():
        scale = 0.3 if parameter.dim() > 1 else 0.2
        offset = 1.0 if "norm" in name and name.endswith("weight") or ".ln_" in name and name.endswith("weight") else 0.0
        if kind.startswith("Gemma") or kind == "Qwen3_5" and "linear_attn" not in name:
            offset = 0.0  # gains are 1 + weight
        parameter.data = (torch.randn_like(parameter) * scale + offset).half().float()
    return model


FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def pack_experts(model):
    """Random MXFP4 experts: the packed tensors, and their values in the model."""
    packed = {}
    for i, layer in enumerate(model.model.layers):
        for name in ("gate_up_proj", "down_proj"):
            weight = getattr(layer.mlp.experts, name)  # [experts, in, out]
            count, wide, tall = weight.shape
            blocks = torch.randint(0, 256, (count, tall, wide // 32, 16), dtype=torch.uint8)
            scales = torch.randint(122, 126, (count, tall, wide // 32), dtype=torch.uint8)
            values = torch.stack((FP4[(blocks & 15).long()], FP4[(blocks >> 4).long()]), -1).flatten(-2)
            values = (values * torch.exp2(scales.float() - 127)[..., None]).flatten(-2)
            weight.data = values.transpose(1, 2).contiguous()
            packed[f"model.layers.{i}.mlp.experts.{name}_blocks"] = blocks
            packed[f"model.layers.{i}.mlp.experts.{name}_scales"] = scales
    return packed


def convert(model, target, options, packed):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model.config.architectures = [type(model).__name__]
        model.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        if packed:
            plain = load_file(folder / "model.safetensors")
            kept = {n: t for n, t in plain.items() if f"{n}_blocks" not in packed}
            save_file(kept | packed, folder / "model.safetensors", {"format": "pt"})
            config["quantization_config"] = {"quant_method": "mxfp4"}
            (folder / "config.json").write_text(json.dumps(config))
        config.setdefault("n_ctx", config.get("n_positions", 0))
        config.setdefault("rotary_pct", 0.5)
        vocabulary = {f"t{i}": i for i in range(model.config.vocab_size)}  # gemma3's embedding is cut to its size
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": []}))
        hparams = config | ModelBase.load_hparams(folder, False)
        cls = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
        without_vocabulary(cls)
        if getattr(cls, "supports_mtp_export", False):
            cls.no_mtp = True  # blocks that predict further tokens
        with torch.inference_mode():
            cls(folder, gguf.LlamaFileType.MOSTLY_F16, target, eager=True, hparams=hparams, **options).write()


out.mkdir(parents=True, exist_ok=True)
for name, (kind, settings) in (FAMILIES | {n: FAMILIES[of] for n, (of, _) in VARIANTS.items()}).items():
    model = build(kind, settings)
    packed = pack_experts(model) if name == "gpt_oss_mxfp4" else {}
    ids = [(i * 7 + 3) % 48 for i in range(24)]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    convert(model, out / f"{name}.gguf", VARIANTS.get(name, (None, {}))[1], packed)
    rows = [0, 5, 11, 23]  # enough to tell, and few enough to keep
    (out / f"{name}.json").write_text(json.dumps(
        {"ids": ids, "rows": rows, "logits": [[round(x, 6) for x in logits[r].tolist()] for r in rows]}) + "\n")
    print(name, (out / f"{name}.gguf").stat().st_size)
