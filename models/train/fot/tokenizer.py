"""Trains the SentencePiece tokenizer: BPE with byte fallback and single digits, Llama's conventions for spaces and special pieces."""
import argparse
import tempfile
from pathlib import Path

import sentencepiece

from .books import book_files, read_book


def train_tokenizer(books: Path, out: Path, vocab_size: int, every: int = 6) -> None:
    """Writes `out` (tokenizer.model), trained on every `every`-th paragraph of the books."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "sample.txt"
        with sample.open("w", encoding="utf-8") as file:
            for book in book_files(books):
                file.writelines(line + "\n" for line in read_book(book).split("\n")[::every] if line)
        sentencepiece.SentencePieceTrainer.train(
            input=str(sample), model_prefix=str(Path(folder) / "tokenizer"), model_type="bpe", vocab_size=vocab_size,
            byte_fallback=True, split_digits=True, add_dummy_prefix=True, normalization_rule_name="identity",
            remove_extra_whitespaces=False, character_coverage=0.9999, max_sentence_length=16384, num_threads=1,
            unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=1)
        out.write_bytes((Path(folder) / "tokenizer.model").read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the tokenizer.model to write")
    parser.add_argument("--vocab-size", type=int, default=2048)
    args = parser.parse_args()
    train_tokenizer(args.books, args.out, args.vocab_size)


if __name__ == "__main__":
    main()
