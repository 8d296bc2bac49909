"""Books on disk: one .txt file a book, one paragraph a line; paragraphs with benchmark wording are dropped."""
import hashlib
from pathlib import Path

import numpy as np
import sentencepiece

from .held_out import contains_held_out


def book_files(directory: Path) -> list[Path]:
    """The books of a directory (searched recursively), in a fixed order."""
    files = sorted(directory.rglob("*.txt"), key=lambda file: file.name)
    if not files:
        raise SystemExit(f"{directory}: no .txt books here; make the directory with make_books.py")
    return files


def read_book(file: Path) -> str:
    """The text of a book without the paragraphs that contain held-out wording."""
    lines = file.read_text(encoding="utf-8", errors="ignore").splitlines()
    return "\n".join(line for line in lines if not contains_held_out(line))


class Corpus:
    """All training books as one array of token ids, with the place where each book starts."""

    def __init__(self, tokens: np.ndarray, starts: np.ndarray, words: list[str]):
        self.tokens, self.starts, self.words = tokens, starts, words   # [n] uint16, [books + 1], plain words for names

    @classmethod
    def load(cls, directory: Path, tokenizer_file: Path, cache: Path) -> "Corpus":
        """Tokenizes the books once and keeps the result in the cache folder."""
        files = book_files(directory)
        listing = "".join(f"{file.name} {file.stat().st_size}\n" for file in files)
        key = hashlib.sha256(listing.encode() + tokenizer_file.read_bytes()).hexdigest()[:16]
        stored = cache / f"corpus-{key}.npz"
        if not stored.exists():
            tokens, starts, words = _tokenize(files, tokenizer_file)
            cache.mkdir(parents=True, exist_ok=True)
            np.savez(stored, tokens=tokens, starts=starts, words=np.array(words))
        data = np.load(stored)
        return cls(data["tokens"], data["starts"], data["words"].tolist())

    def passage(self, rng, length: int) -> list[int]:
        """`length` consecutive tokens of one book; a book is drawn in proportion to its length."""
        while True:
            at = rng.randrange(len(self.tokens) - length)
            book = int(np.searchsorted(self.starts, at, side="right"))
            if at + length <= self.starts[book]:
                return self.tokens[at:at + length].tolist()
            if length > self.starts[book] - self.starts[book - 1] and rng.random() < 0.01:
                return self.tokens[at:at + length].tolist()           # no book of this size: cross a border


def _tokenize(files: list[Path], tokenizer_file: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    sp = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_file))
    parts, starts, counts = [], [0], {}
    for file in files:
        text = read_book(file)
        ids = [sp.encode(text[i:i + 200_000]) for i in range(0, len(text), 200_000)]
        parts += [np.array(part, dtype=np.uint16) for part in ids]
        starts.append(starts[-1] + sum(map(len, ids)))
        for word in text[:200_000].split():
            if word.isascii() and word.isalpha() and word.islower() and 4 <= len(word) <= 10:
                counts[word] = counts.get(word, 0) + 1
    words = sorted(word for word, count in counts.items() if count >= 20)
    return np.concatenate(parts), np.array(starts), words
