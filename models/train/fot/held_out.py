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
    "What follows is a register, one entry a line",
    "Later one of its entries has to be looked up",
    "Look up the entry",
    "When the old lighthouse was sold",
    "How much did the tower by the sea cost its buyer",
    "The price in crowns was",
    "At the last harvest",
    "How large was the crop of fruit that",
    "The crop was",
    "left to the town holds",
    "How many books did",
    "The books were in all",
    "From the harbour to the mine",
    "walk to reach the pit",
    "The walk took, in paces",
    "In the great storm",
    "How big was the flock that bad weather took from",
    "was built from exactly",
    "How many blocks of rock did",
    "The blocks used were",
    "candles to the abbey",
    "How many lights do the monks buy from",
    "Their order is",
    "The crew under captain",
    "How many fish did the boat of",
    "The catch was",
)

_PATTERN = re.compile("|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in HELD_OUT_PHRASES), re.IGNORECASE)


def contains_held_out(text: str) -> bool:
    """True if a benchmark phrase occurs in the text, whatever its case and spacing."""
    return _PATTERN.search(text) is not None
