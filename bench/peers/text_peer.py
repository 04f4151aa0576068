#!/usr/bin/env python3
"""The work of bench/text.cpp with Hugging Face's tokenizers (Rust), one thread.

    pip install tokenizers && text_peer.py TOKENIZER_FOLDER MMLU_TEST_FOLDER

A folder with a tokenizer.model alone needs transformers and sentencepiece too: transformers converts the model to a
`tokenizers` one. That conversion splits some runs of spaces otherwise than sentencepiece does.
"""
import json
import os
import pathlib
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
from tokenizers import Tokenizer  # noqa: E402  (reads the environment when imported)

folder = pathlib.Path(sys.argv[1])
converted = not (folder / "tokenizer.json").exists()
if converted:
    try:
        import sentencepiece  # noqa: F401
        from transformers import LlamaTokenizerFast
    except ImportError as error:
        print(json.dumps({"skipped": f"no tokenizer.json in {folder.name}, and to convert tokenizer.model: {error}"}))
        sys.exit()
    tokenizer = LlamaTokenizerFast.from_pretrained(folder).backend_tokenizer
else:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.no_truncation()
texts = []
for path in sorted(pathlib.Path(sys.argv[2]).glob("*.csv")):
    texts += [line for line in path.read_bytes().decode("utf-8", "replace").split("\n") if line]
passes = []
for _ in range(4):  # the first warms up
    start = time.process_time()
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
    passes.append(time.process_time() - start)
size = sum(len(text.encode()) for text in texts)
print(json.dumps({"converted": converted, "texts": len(texts), "bytes": size, "tokens": tokens, "seconds": round(min(passes[1:]), 4),
                  "mb_per_s": round(size / 1e6 / min(passes[1:]), 2)}))
