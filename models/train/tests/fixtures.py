"""A tiny corpus and tokenizer made once for the tests."""
import functools
import random
import tempfile
from pathlib import Path

import sentencepiece

from fot.books import Corpus
from fot.documents import Documents
from fot.model import ModelConfig
from fot.tokenizer import train_tokenizer

WORDS = ("the of and a to in he was that his it her with as had she for on at by which have not but from they were all "
         "house river garden morning evening letter window door captain sister winter summer voice silence mountain").split()
FOLDER = Path(tempfile.mkdtemp(prefix="fot-tests-"))


def make_books(folder: Path) -> Path:
    rng = random.Random(0)
    folder.mkdir(exist_ok=True)
    for book in range(3):
        lines = [" ".join(rng.choices(WORDS, k=30)).capitalize() + "." for _ in range(400)]
        lines.insert(7, "Here we go, said the captain, there and back again.")        # held out: must not reach training
        (folder / f"book{book}.txt").write_text("\n".join(lines))
    return folder


@functools.cache
def tiny_documents() -> Documents:
    books, tokenizer = make_books(FOLDER / "books"), FOLDER / "tokenizer.model"
    train_tokenizer(books, tokenizer, vocab_size=400, every=1)
    return Documents(Corpus.load(books, tokenizer, FOLDER), sentencepiece.SentencePieceProcessor(model_file=str(tokenizer)))


def tiny_config() -> ModelConfig:
    return ModelConfig(vocab_size=400, hidden_size=64, intermediate_size=96, num_layers=3, head_dim=16, mem_layers=(1,), window=128,
                       last_context_length=32)
