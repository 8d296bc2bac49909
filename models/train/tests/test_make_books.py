"""The directory of books is made from markdown, without the books that measure the model."""
import tempfile
import unittest
from pathlib import Path

import make_books


class MakeBooks(unittest.TestCase):
    def test_markup_goes_and_a_paragraph_is_a_line(self):
        markdown = "---\ntitle: x\n---\n# Chapter *One*\n\nIt was\na [dark](http://x) and _stormy_ night.\n\n> He said:\n\n***\n"
        self.assertEqual(make_books.plain_paragraphs(markdown)[:3], ["Chapter One", "It was a dark and stormy night.", "He said:"])

    def test_a_clone_gives_the_listed_books_and_never_the_measured_ones(self):
        with tempfile.TemporaryDirectory() as folder:
            root, text = Path(folder), "A long sentence of a long book. " * 1000
            for name in ("Jack London/The House of Pride.md", "Somebody/Unlisted.md", "Arthur Conan Doyle/The Hound of the Baskervilles.md"):
                (root / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
                (root / "clone" / name).write_text(text)
            self.assertEqual(make_books.convert(root / "clone", root / "listed"), 1)
            self.assertEqual([file.name for file in (root / "listed").iterdir()], ["Jack_London_The_House_of_Pride.txt"])
            self.assertEqual(make_books.convert(root / "clone", root / "all", None), 2)

    def test_no_listed_book_is_one_the_model_is_measured_on(self):
        self.assertEqual(len(make_books.LISTED), 310)
        self.assertFalse([name for name in make_books.LISTED if make_books.is_measured_on(name)])


if __name__ == "__main__":
    unittest.main()
