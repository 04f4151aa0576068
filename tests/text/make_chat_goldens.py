#!/usr/bin/env python3
"""Golden conversations of any chat template, rendered by jinja2 as transformers does, for the suite GoldenChat.

    pip install jinja2 tokenizers sentencepiece
    make_chat_goldens.py OUT NAME=TEMPLATE_FILE=TOKENIZER_FOLDER ...
    STEER_GOLDEN_DIR=OUT/golden STEER_TOKENIZERS=OUT/tokenizers build/release/tests/test_text --gtest_filter='GoldenChat.*'

TEMPLATE_FILE is a model's own chat_template.jinja, or the "chat_template" of its tokenizer_config.json as a file. No such
file is part of this project. Ids are those of the rendered text, from tokenizer.json by `tokenizers`, or from
tokenizer.model by sentencepiece, a piece of text between control tokens at a time.
"""
import json
import pathlib
import re
import shutil
import sys

from jinja2.exceptions import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

U, A, S = "user", "assistant", "system"
CONVERSATIONS = [
    [(U, "Hello!")],
    [(S, "You are terse."), (U, "What is 2+2?")],
    [(S, "You are terse."), (U, "What is 2+2?"), (A, "4")],
    [(U, "Hi"), (A, "Hello, how can I help?"), (U, "Tell me a joke.")],
    [(S, "  padded system  \n"), (U, "  padded user  "), (A, "\n padded answer \n"), (U, "next\n\n")],
    [(S, ""), (U, "empty system")],
    [(U, "")],
    [(S, "only a system message")],
    [(S, "s"), (U, "   ")],
    [(U, "\u4f60\u597d \U0001f468\u200d\U0001f469\u200d\U0001f467 caf\u00e9 cafe\u0301"), (A, "\u3000wide\u00a0space\u3000"), (U, "\x1cq\x1f")],
    [(U, "literal <|eot_id|>, <end_of_turn>, <|im_end|>, </s> and [/INST] inside")],
    [(U, "a"), (A, "b"), (U, "c"), (A, "d"), (U, "e"), (A, "f"), (U, "g")],
    [(U, "one"), (U, "two")],
    [(A, "an answer first")],
    [(U, "q"), (S, "a system message in the middle"), (U, "r")],
    [(U, "q"), (A, "<think>\nhm\n</think>\n\nA"), (U, "r"), (A, "<think>\n\nagain\n</think>\n\n\nB")],
    [(U, "q"), (A, "<think>\nhm\n</think>\n\nA"), (U, "<tool_response>\n7\n</tool_response>"), (A, "B")],
    [(U, "q"), (A, "<think>no end"), (A, "two answers</think> in a row"), (A, "\n\nB\n")],
    [(U, "q"), (A, "</think></think>x</think>y")],
]


def refuse(message):
    raise TemplateError(message)


def encoder_of(folder):
    """The ids of a text, and the texts of BOS and EOS."""
    if (folder / "tokenizer.json").exists():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text()) if path.exists() else {}
        token = lambda key: (config.get(key) or {}).get("content") if isinstance(config.get(key), dict) else config.get(key)
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids, token("bos_token"), token("eos_token"), config
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    bos, eos = model.id_to_piece(model.bos_id()), model.id_to_piece(model.eos_id())

    def encode(text):
        ids = []
        for part in re.split(f"({re.escape(bos)}|{re.escape(eos)})", text):
            ids += [model.piece_to_id(part)] if part in (bos, eos) else model.encode(part)
        return ids

    return encode, bos, eos, {}


out = pathlib.Path(sys.argv[1])
environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
environment.globals["raise_exception"] = refuse
for argument in sys.argv[2:]:
    name, template_file, folder = argument.split("=")
    folder = pathlib.Path(folder)
    source = pathlib.Path(template_file).read_text()
    template = environment.from_string(source)
    encode, bos, eos, config = encoder_of(folder)
    target = out / "tokenizers" / name
    target.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("tokenizer.*"):
        shutil.copyfile(file, target / file.name)
    (target / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": source}))
    rows = []
    for conversation in CONVERSATIONS:
        for prompt in (True, False):
            for date in [None, "1 Dec 2024"] if "date_string" in source else [None]:
                kwargs = {"add_generation_prompt": prompt} | ({"date_string": date} if date else {})
                messages = [{"role": role, "content": content} for role, content in conversation]
                row = {"messages": messages, "kwargs": kwargs}
                try:
                    row["text"] = template.render(messages=messages, bos_token=bos or "", eos_token=eos or "", **kwargs)
                    row["ids"] = encode(row["text"])
                except TemplateError as error:
                    row["error"] = str(error)
                rows.append(row)
    (out / "golden" / "tokenizers").mkdir(parents=True, exist_ok=True)
    path = out / "golden" / "tokenizers" / f"chat.{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")
    print(f"{path}: {len(rows)} conversations, {sum('error' in row for row in rows)} of them refused by the template")
