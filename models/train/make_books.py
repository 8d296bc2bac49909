#!/usr/bin/env python3
"""Makes a directory of training books: plain text, one file a book, one paragraph a line. Needs git, nothing but the standard library.

Source: the GitHub repository mlschmitt/classic-books-markdown (public-domain texts from Project Gutenberg and Standard Ebooks).
Taken are the books that books.txt lists (first published before 1930), or with --all whatever is long enough; the books that measure
the model are left out either way. An archive made earlier (.tar.xz) or a clone of the repository can be given instead.
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
LISTED = frozenset(Path(__file__).with_name("books.txt").read_text().split())


def plain_paragraphs(markdown: str) -> list[str]:
    """The paragraphs of a markdown text without its markup."""
    text = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.S)                 # front matter
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)|<[^>\n]+>", "", text)                    # pictures, tags
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)                          # links
    text = re.sub(r"^[ \t]*[*_-]([ \t]*[*_-]){2,}[ \t]*$", "", text, flags=re.M)      # rules
    text = re.sub(r"^[ \t]*[#>]+[ \t]*", "", text, flags=re.M)                     # headings, quotes
    text = re.sub(r"[*_]{1,3}(\S(?:[^*_\n]*\S)?)[*_]{1,3}", r"\1", text)          # emphasis
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [paragraph for paragraph in paragraphs if paragraph]


def file_name(source: Path, root: Path) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", " ".join(source.relative_to(root).with_suffix("").parts)).strip("_") + ".txt"


def is_measured_on(name: str) -> bool:
    return any(title.replace(" ", "_").lower() in name.lower() for title in MEASURED_ON)


def convert(repository: Path, out: Path, listed: frozenset[str] | None = LISTED) -> int:
    """Writes the listed books of a clone (every long one if None) to `out`; returns how many."""
    out.mkdir(parents=True, exist_ok=True)
    count = 0
    for source in sorted(repository.rglob("*.md")):
        name = file_name(source, repository)
        if listed is not None and name.removesuffix(".txt") not in listed:
            continue
        text = "\n".join(plain_paragraphs(source.read_text(encoding="utf-8", errors="ignore")))
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
    parser.add_argument("--all", action="store_true", help="every book of the source, not only those of books.txt")
    args = parser.parse_args()
    listed = None if args.all else LISTED
    if args.archive:
        count = unpack(args.archive, args.out)
    elif args.clone:
        count = convert(args.clone, args.out, listed)
    else:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["git", "clone", "--depth", "1", SOURCE, folder], check=True)
            count = convert(Path(folder), args.out, listed)
    if count == 0:
        raise SystemExit(f"{args.out}: no books were found")
    print(f"{count} books in {args.out}")


if __name__ == "__main__":
    main()
