#!/usr/bin/env python3
"""Makes the small tokenizers of this folder and what the reference libraries say about them.

    pip install tokenizers sentencepiece && python3 make.py

byte_level.json and characters.json are tokenizer.json files, unigram.model and bpe.model sentencepiece models, all
trained on the text below. cases.jsonl: {"file", "text", "ids", "decoded"}.
"""
import io
import json
import pathlib
import random

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

here = pathlib.Path(__file__).parent
corpus = ["The quick brown fox jumps over the lazy dog.", "Pack my box with five dozen liquor jugs; 1234567890!",
          "def add(a, b):\n    return a + b\n", "Grüße aus Zürich, café naïve.", "It's what they've said: I'm not you'll see."] * 8

byte_level = Tokenizer(models.BPE())
byte_level.normalizer = normalizers.NFC()
byte_level.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
byte_level.decoder = decoders.ByteLevel()
byte_level.train_from_iterator(corpus, trainers.BpeTrainer(
    vocab_size=420, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    special_tokens=["<|begin|>", "<|im_start|>", "<|im_end|>"]))
byte_level.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("word", single_word=True, normalized=True)])
byte_level.add_special_tokens([AddedToken("<mask>", lstrip=True, rstrip=True)])
byte_level.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
byte_level.save(str(here / "byte_level.json"), pretty=False)

characters = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
characters.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
characters.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
characters.train_from_iterator(corpus, trainers.BpeTrainer(
    vocab_size=460, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]))
data = json.loads(characters.to_str())
data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
characters = Tokenizer.from_str(json.dumps(data))
characters.save(str(here / "characters.json"), pretty=False)

for kind in ("unigram", "bpe", "plain_bpe"):  # plain: of the kind that steer merges itself, Llama 2's
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=model, vocab_size=360, model_type=kind.removeprefix("plain_"), byte_fallback=True,
        user_defined_symbols=[] if kind == "plain_bpe" else ["<turn>"], normalization_rule_name="nmt_nfkc" if kind == "unigram" else "identity",
        remove_extra_whitespaces=kind == "unigram", hard_vocab_limit=False, minloglevel=2)
    (here / f"{kind}.model").write_bytes(model.getvalue())

random.seed(5)
words = ["The", "quick", " fox", " ", "  ", "\n", "\t", "I'm", "12345", "é", "e\u0301", "中文", "🙂", "👨‍👩‍👧", "<|im_end|>", "<mask>", " <mask> ",
         "<tool>", "word", " word ", "sword", "<s>", "</s>", "<turn>", "ﬁ", "\u00a0", "\u0000", "▁", "don't", "ÀÉ", "٣", "."]
texts = ["", " ", "a" * 300, "the " * 60] + ["".join(random.choices(words, k=random.randint(1, 9))) for _ in range(150)]
with open(here / "cases.jsonl", "w") as out:
    for name in ("byte_level.json", "characters.json"):
        tokenizer = Tokenizer.from_file(str(here / name))
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            out.write(json.dumps({"file": name, "text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)}) + "\n")
    def write_sentencepiece(name):
        model = sentencepiece.SentencePieceProcessor(model_file=str(here / name))
        for text in texts:
            ids = model.encode(text)
            out.write(json.dumps({"file": name, "text": text, "ids": ids, "decoded": model.decode(ids)}) + "\n")
        for _ in range(100):  # decoding of ids in any order
            ids = [random.randrange(model.get_piece_size()) for _ in range(8)]
            out.write(json.dumps({"file": name, "ids": ids, "decoded": model.decode(ids)}) + "\n")

    write_sentencepiece("unigram.model")
    write_sentencepiece("bpe.model")
    for name in ("byte_level.json", "characters.json"):
        tokenizer = Tokenizer.from_file(str(here / name))
        for _ in range(100):
            ids = [random.randrange(tokenizer.get_vocab_size()) for _ in range(8)]
            out.write(json.dumps({"file": name, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)}) + "\n")
    write_sentencepiece("plain_bpe.model")
