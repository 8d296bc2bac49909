#!/usr/bin/env python3
"""Makes a directory of training books: plain text, one file a book, one paragraph a line. Needs git, nothing but the standard library.

Source: the GitHub repository mlschmitt/classic-books-markdown (public-domain texts from Project Gutenberg and Standard Ebooks).
The books that measure the model are left out. An archive made earlier (.tar.xz) or a clone of the repository can be given instead.
"""
import argparse
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

SOURCE = "https://github.com/mlschmitt/classic-books-markdown"
MEASURED_ON = ("Hound of the Baskervilles", "Lair of the White Worm", "Return of Tarzan", "Moby", "Swiss Family Robinson",
               "Picture of Dorian Gray", "Souls of Black Folk")
LEAST_CHARACTERS = 20_000


def plain_paragraphs(markdown: str) -> list[str]:
    """The paragraphs of a markdown text without its markup."""
    text = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.S)                 # front matter
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<[^>\n]+>", "", text)                    # pictures, tags
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)                          # links
    text = re.sub(r"^[#>\s*_-]+(?=\S)", "", text, flags=re.M)                     # headings, quotes, rules
    text = re.sub(r"[*_]{1,3}(\S(?:[^*_\n]*\S)?)[*_]{1,3}", r"\1", text)          # emphasis
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [paragraph for paragraph in paragraphs if paragraph]


def file_name(source: Path, root: Path) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", " ".join(source.relative_to(root).with_suffix("").parts)).strip("_") + ".txt"


def is_measured_on(name: str) -> bool:
    return any(title.replace(" ", "_").lower() in name.lower() for title in MEASURED_ON)


def convert(repository: Path, out: Path) -> int:
    """Writes every book of a clone to `out`; returns how many."""
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    for source in sorted(repository.rglob("*.md")):
        name, text = file_name(source, repository), "\n".join(plain_paragraphs(source.read_text(errors="ignore")))
        if len(text) >= LEAST_CHARACTERS and not is_measured_on(name):
            (out / name).write_text(text + "\n", encoding="utf-8")
            count += 1
    return count


def unpack(archive: Path, out: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as stored:
        stored.extractall(out, filter="data")
    return len(list(out.rglob("*.txt")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the directory to make")
    parser.add_argument("--archive", type=Path, help="a .tar.xz of .txt books to unpack instead")
    parser.add_argument("--clone", type=Path, help="a clone of the source repository to use instead of downloading")
    args = parser.parse_args()
    if args.archive:
        count = unpack(args.archive, args.out)
    elif args.clone:
        count = convert(args.clone, args.out)
    else:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["git", "clone", "--depth", "1", SOURCE, folder], check=True)
            count = convert(Path(folder), args.out)
    if count == 0:
        raise SystemExit(f"{args.out}: no books were found")
    print(f"{count} books in {args.out}")


if __name__ == "__main__":
    main()
