#!/usr/bin/env python3
"""Gemma 3 from a GGUF file as a Hugging Face folder, and what transformers computes from it.

usage: make_gemma_folder.py NAME.gguf TOKENIZER OUT

Writes OUT/model.safetensors (the GGUF's weights dequantised to f32, by the names and with the gains of published files),
OUT/config.json as transformers writes it, the files of the folder TOKENIZER, and OUT/reference.json: for each prompt of
NAME.json beside the GGUF its ids by tokenizers, the ten largest logits of the last position, logsumexp, mean and
standard deviation, and 24 greedy ids. The tests of GGUF models (STEER_GGUF_DIR) run every folder that holds a
reference.json. Needs torch, transformers 5.23, safetensors, tokenizers and gguf.
"""
import json
import pathlib
import shutil
import sys

import gguf
import torch
import transformers
from safetensors.torch import save_file

source, tokenizer, out = map(pathlib.Path, sys.argv[1:4])
out.mkdir(parents=True, exist_ok=True)
reader = gguf.GGUFReader(source)
BLOCK = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
         "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
         "attn_k_norm": "self_attn.k_norm", "post_attention_norm": "post_attention_layernorm",
         "ffn_norm": "pre_feedforward_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def plain_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{BLOCK[part]}.weight"


def key(name, missing=None):
    field = reader.fields.get(f"gemma3.{name}")
    return field.contents() if field else missing


tensors = {}
for tensor in reader.tensors:
    values = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type)).float()
    values = values.reshape([int(n) for n in reversed(tensor.shape)])
    if tensor.name.endswith("norm.weight"):
        values = values - 1  # GGUF keeps 1 + weight
    tensors[plain_name(tensor.name)] = values.contiguous()
save_file(tensors, out / "model.safetensors", {"format": "pt"})

layers = key("block_count")
config = transformers.Gemma3TextConfig(
    vocab_size=tensors["model.embed_tokens.weight"].shape[0], hidden_size=key("embedding_length"),
    intermediate_size=key("feed_forward_length"), num_hidden_layers=layers, num_attention_heads=key("attention.head_count"),
    num_key_value_heads=key("attention.head_count_kv"), head_dim=key("attention.key_length"),
    max_position_embeddings=key("context_length"), rms_norm_eps=key("attention.layer_norm_rms_epsilon"),
    sliding_window=key("attention.sliding_window"), query_pre_attn_scalar=key("attention.key_length"),
    layer_types=["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)],
    rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": key("rope.freq_base", 1e6)},
                     "sliding_attention": {"rope_type": "default", "rope_theta": key("rope.freq_base_swa", 1e4)}})
config.architectures = ["Gemma3ForCausalLM"]
config.save_pretrained(out)
for file in tokenizer.iterdir():
    shutil.copyfile(file, out / file.name)
del tensors

model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, attn_implementation="eager").eval()
encode = transformers.AutoTokenizer.from_pretrained(out)
reference = {"model": source.name, "prompts": {}}
for name, prompt in json.loads(source.with_suffix(".json").read_text())["prompts"].items():
    ids = encode(prompt["text"])["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].double()
        greedy = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=24,
                                min_new_tokens=24, do_sample=False, eos_token_id=None)[0, len(ids):]
    top = logits.topk(10)
    reference["prompts"][name] = {
        "text": prompt["text"], "ids": ids, "top10": [[i, v] for i, v in zip(top.indices.tolist(), top.values.tolist())],
        "logsumexp": logits.logsumexp(0).item(), "mean": logits.mean().item(), "std": logits.std().item(),
        "greedy24": greedy.tolist()}
(out / "reference.json").write_text(json.dumps(reference) + "\n")
print(f"{len(reference['prompts'])} prompts in {out / 'reference.json'}")
