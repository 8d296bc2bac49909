"""Wordings the recall benchmark uses. No training text may contain them, so that recall is measured on unseen wording."""
import re

HELD_OUT_PHRASES = (
    "There is an important info hidden inside a lot of irrelevant text",
    "Find it and memorize them",
    "I will quiz you about the important information there",
    "The grass is green",
    "The sky is blue",
    "The sun is yellow",
    "Here we go",
    "There and back again",
    "pass key",
    "passkey",
    "Remember it",
)

_PATTERN = re.compile("|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in HELD_OUT_PHRASES), re.IGNORECASE)


def contains_held_out(text: str) -> bool:
    """True if a benchmark phrase occurs in the text, whatever its case and spacing."""
    return _PATTERN.search(text) is not None
