"""Training documents as token ids, each with a weight for the loss. Every generator draws only from the rng it is given."""
import random
from dataclasses import dataclass, field

from . import wording
from .books import Corpus

BOS = 1
PROSE, STATEMENT, QUESTION, ANSWER, REPEATED_FILLER, SPAN, SPAN_AGAIN, NOISE, NOISE_AGAIN = 1.0, 0.5, 0.5, 6.0, 0.3, 0.7, 2.5, 0.05, 4.0


@dataclass
class Document:
    """Tokens and their weights; grows until it has the length asked for."""
    ids: list[int] = field(default_factory=lambda: [BOS])
    weights: list[float] = field(default_factory=lambda: [0.0])

    def add(self, ids: list[int], weight: float) -> None:
        self.ids += ids
        self.weights += [weight] * len(ids)

    def cut(self, length: int) -> "Document":
        return Document(self.ids[:length], self.weights[:length])

    def __len__(self) -> int:
        return len(self.ids)


class Documents:
    """Draws documents of the kinds that teach recall: prose, facts asked later, lists of named values, repeats, copied noise."""

    def __init__(self, corpus: Corpus, tokenizer):
        self.corpus, self.tokenizer = corpus, tokenizer
        self.kinds = {"prose": self.prose, "facts": self.facts, "named": self.named_values, "repeats": self.repeats, "noise": self.noise}

    def draw(self, rng: random.Random, length: int, shares: dict[str, float], facts: int = 10) -> Document:
        """A document of exactly `length` tokens; its kind is drawn by the given shares. facts: the most facts in one."""
        kind = rng.choices(list(shares), weights=list(shares.values()))[0]
        document = self.facts(rng, length, facts) if kind == "facts" else self.kinds[kind](rng, length)
        if len(document) < length:
            document.add(self.corpus.passage(rng, length - len(document)), PROSE)
        return document.cut(length)

    def prose(self, rng: random.Random, length: int) -> Document:
        document = Document()
        document.add(self.corpus.passage(rng, length), PROSE)
        return document

    def facts(self, rng: random.Random, length: int, most: int = 10) -> Document:
        """Up to `most` facts at random places of a filler, each asked one to three times later on."""
        document, fill, events, used = Document(), self._filler(rng), [], set()
        if rng.random() < 0.4:
            document.add(self.tokenizer.encode(rng.choice(wording.PREAMBLES)), STATEMENT)
        for _ in range(rng.choice([1, 1, 2, 3, 4, 6, 8, 10] + [most] * (most > 10) * 4)):
            subject, value, stated = self._new_subject(rng, used), self._value(rng), rng.random() * 0.75
            events.append((stated, rng.choice(wording.STATEMENTS).format(s=subject, v=value), None))
            for _ in range(rng.randint(1, 3)):
                asked = stated + (0.99 - stated) * rng.random() ** 0.5
                events.append((asked, rng.choice(wording.QUESTIONS).format(s=subject), value))
        for place, text, value in sorted(events, key=lambda event: event[0]):
            fill(document, int(place * length) - len(document))
            self._say(document, text, value)
        fill(document, length - len(document))
        return document

    def named_values(self, rng: random.Random, length: int) -> Document:
        """Many values under names, all in one wording, some of them asked in the rest of the document."""
        document, fill, thing = Document(), self._filler(rng), rng.choice(wording.THINGS)
        statement, question = rng.choice(wording.LIST_FORMS)
        room, count = rng.uniform(0.3, 0.75) * length, rng.choice([4, 8, 16, 30, 60, 100])
        gap = rng.choice([0, 0, 0, 10, 40] + [int(room / count / 2)] * (length > 2048))
        naming, values = rng.randrange(4), {}
        for _ in range(count):
            name = self._name(rng, naming)
            if name in values or len(document) >= room:
                continue
            values[name] = self._value(rng)
            document.add(self.tokenizer.encode(statement.format(t=thing, n=name, v=values[name])), STATEMENT)
            fill(document, rng.randint(0, 2 * gap))
        fill(document, int(rng.random() ** 2 * (length - len(document))))
        gap = rng.choice([0, 5, 20, 60])
        while len(document) < length:
            name = rng.choice(list(values))
            lead = rng.choice(wording.LIST_QUESTIONS).format(t=thing, n=name)
            self._say(document, lead + question.format(t=thing, n=name), values[name])
            fill(document, rng.randint(0, 2 * gap))
        return document

    def repeats(self, rng: random.Random, length: int) -> Document:
        """Spans of books or of names and numbers; later on some of them start again and go on verbatim."""
        document, spans, gap = Document(), [], rng.choice([5, 40, 120])
        while len(document) < length:
            if spans and rng.random() < 0.45:
                span = rng.choice(spans)
                start = rng.randrange(max(1, len(span) // 2))
                known = start + rng.randint(2, 4)
                document.add(span[start:known], STATEMENT)
                document.add(span[known:], SPAN_AGAIN)
            else:
                if rng.random() < 0.5:
                    spans.append(self.corpus.passage(rng, rng.randint(12, 60)))
                else:
                    pairs = (f"{self._name(rng, rng.randrange(4))} {self._value(rng)}" for _ in range(rng.randint(2, 6)))
                    spans.append(self.tokenizer.encode(" ".join(pairs)))
                document.add(spans[-1], SPAN)
            document.add(self.corpus.passage(rng, 1 + int(rng.expovariate(1 / gap))), PROSE)
        return document

    def noise(self, rng: random.Random, length: int) -> Document:
        """Random tokens in which earlier stretches come again: nothing but copying helps."""
        document, spans = Document(), []
        pool = [rng.randrange(3, self.tokenizer.vocab_size()) for _ in range(rng.choice([30, 100, 400, 1500]))]
        while len(document) < length:
            if spans and rng.random() < 0.6:
                span = rng.choice(spans)
                span = span[rng.randint(0, len(span) // 2):]
                document.add(span[:1], NOISE)
                document.add(span[1:2], 0.3)
                document.add(span[2:], NOISE_AGAIN)
            else:
                spans.append([rng.choice(pool) for _ in range(rng.randint(8, 30))])
                document.add(spans[-1], NOISE)
        return document

    def _say(self, document: Document, text: str, value: str | None) -> None:
        """A statement, or (with a value) a question and its answer."""
        document.add(self.tokenizer.encode(text), STATEMENT if value is None else QUESTION)
        if value is not None:
            document.add(self.tokenizer.encode(value), ANSWER)
            document.add(self.tokenizer.encode(".")[-1:], QUESTION)

    def _filler(self, rng: random.Random):
        """A function that adds n tokens of filler to a document: prose, or a few sentences over and over."""
        if rng.random() < 0.65:
            return lambda document, n: document.add(self.corpus.passage(rng, n), PROSE) if n > 0 else None
        if rng.random() < 0.7:
            unit = self.tokenizer.encode(" ".join(rng.sample(wording.SENTENCES, rng.randint(2, 6))))
        else:
            unit = self.corpus.passage(rng, rng.randint(10, 60))
        return lambda document, n: document.add((unit * (n // len(unit) + 1))[:n], REPEATED_FILLER) if n > 0 else None

    def _new_subject(self, rng: random.Random, used: set[str]) -> str:
        while True:
            thing, name = rng.choice(wording.THINGS), self._name(rng, rng.randrange(4))
            forms = (thing, f"{thing} of {name}", f"{thing} for {rng.choice(wording.PLACES)}", f"{name} {thing}", f"{name}")
            subject = rng.choice(forms)
            if subject not in used:
                used.add(subject)
                return subject

    def _name(self, rng: random.Random, naming: int) -> str:
        """A name of one of four manners: a person, a made-up name, a word, two words."""
        word = lambda: rng.choice(self.corpus.words)
        if naming == 0:
            return rng.choice(wording.NAMES) + (" " + word().capitalize() if rng.random() < 0.3 else "")
        if naming == 1:
            return "".join(rng.choice(wording.SYLLABLES) for _ in range(rng.randint(2, 4))).capitalize()
        return word() if naming == 2 else f"{word()} {word()}"

    def _value(self, rng: random.Random) -> str:
        """Mostly five digits; sometimes another number, rarely a word."""
        draw = rng.random()
        if draw < 0.6:
            return str(rng.randint(10000, 99999))
        if draw < 0.9:
            return str(rng.randrange(10 ** rng.randint(1, 7)))
        return rng.choice(self.corpus.words)
