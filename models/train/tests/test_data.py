"""What the generators draw: repeatable, of the right length, and never in the benchmark's words."""
import random
import re
import unittest
from pathlib import Path

import torch

from fot import evaluate, wording
from fot.batches import joined, make_batch
from fot.documents import ANSWER
from fot.held_out import HELD_OUT_PHRASES, contains_held_out
from fot.schedule import NANO, SMOKE
from tests.fixtures import tiny_documents


class HeldOut(unittest.TestCase):
    def test_phrases_are_found_whatever_their_case_and_spacing(self):
        self.assertTrue(contains_held_out("and then the\nPass  Key is"))
        self.assertFalse(contains_held_out("the access code is 12345. Remember: it is a code"))

    def test_what_is_measured_with_is_held_out(self):
        for sentence in evaluate.TASK.split(". ") + evaluate.SENTENCES.split(". "):
            self.assertTrue(contains_held_out(sentence), sentence)

    def test_what_the_command_measures_with_is_held_out(self):
        source = (Path(__file__).parents[3] / "runtime" / "recall.cc").read_text(encoding="utf-8")
        literals = re.findall(r'"((?:[^"\\\n]|\\.)*)"', re.sub(r'"\s*\n\s*"', "", source))
        wordings = [text for text in literals if len(text.split()) >= 4 and ";" not in text]  # others are messages
        self.assertGreater(len(wordings), 20)
        for text in wordings:
            self.assertTrue(contains_held_out(text), text)

    def test_no_wording_list_contains_them(self):
        lists = [value for value in vars(wording).values() if isinstance(value, (tuple, list))]
        self.assertFalse([text for items in lists for text in map(str, items) if contains_held_out(text)])

    def test_no_generated_document_contains_them(self):
        documents = tiny_documents()
        for kind in ("prose", "facts", "named", "repeats"):
            for seed in range(40):
                text = documents.tokenizer.decode(documents.draw(random.Random(seed), 600, {kind: 1.0}).ids)
                self.assertFalse(contains_held_out(text), (kind, seed))

    def test_books_lose_the_paragraphs_that_contain_them(self):
        documents = tiny_documents()
        text = documents.tokenizer.decode(documents.corpus.tokens.tolist())
        self.assertFalse([phrase for phrase in HELD_OUT_PHRASES if phrase.lower() in text.lower()])


class Drawing(unittest.TestCase):
    def test_every_kind_has_the_length_asked_for_and_one_weight_a_token(self):
        documents = tiny_documents()
        for kind in documents.kinds:
            document = documents.draw(random.Random(4), 301, {kind: 1.0})
            self.assertEqual((len(document.ids), len(document.weights)), (301, 301), kind)

    def test_every_answer_was_stated_before(self):
        documents, found = tiny_documents(), 0
        for kind in ("facts", "named"):
            for seed in range(20):
                document = documents.draw(random.Random(seed), 900, {kind: 1.0})
                answers = [i for i in range(900) if document.weights[i] == ANSWER]
                if answers:
                    first, last = answers[0], answers[0]
                    while last + 1 in answers:
                        last += 1
                    answer = documents.tokenizer.decode(document.ids[first:last + 1])
                    found += answer in documents.tokenizer.decode(document.ids[:first])
                else:                                                # a long list or a late question was cut off
                    found += 1
        self.assertEqual(found, 40)

    def test_most_documents_with_facts_ask_for_them(self):
        documents = tiny_documents()
        asking = sum(ANSWER in documents.draw(random.Random(seed), 900, {kind: 1.0}).weights
                     for kind in ("facts", "named") for seed in range(20))
        self.assertGreaterEqual(asking, 34)

    def test_a_batch_depends_on_seed_and_step_only(self):
        documents = tiny_documents()
        one, other = make_batch(documents, SMOKE, 5, 128), make_batch(documents, SMOKE, 4, 128)
        again = make_batch(documents, SMOKE, 5, 128)
        self.assertTrue(torch.equal(one.ids, again.ids) and torch.equal(one.places, again.places)
                        and torch.equal(one.layout.negatives, again.layout.negatives))
        self.assertFalse(torch.equal(one.ids, other.ids))

    def test_targets_are_the_next_tokens_across_windows(self):
        batch = make_batch(tiny_documents(), SMOKE, 0, 128)
        ids, targets = batch.ids.view(2, -1), batch.targets.view(2, -1)
        self.assertTrue(torch.equal(ids[:, 1:], targets[:, :-1]))

    def test_negatives_come_from_other_documents_and_grow(self):
        batch = make_batch(tiny_documents(), SMOKE, 5, 128)
        for document, row in enumerate(batch.layout.negatives.tolist()):
            self.assertTrue(row)
            self.assertTrue(all(window // batch.layout.per_document != document for window in row))
        self.assertEqual(NANO.negatives(0), 0)
        self.assertGreater(NANO.negatives(NANO.cycles[0].phases[0].steps - 1), NANO.negatives(NANO.cycles[0].phases[0].steps // 2))

    def test_learning_rate_starts_protected_and_ends_low(self):
        rates = [NANO.learning_rate(step) for step in range(NANO.steps)]
        self.assertLessEqual(max(rates[:NANO.cycles[0].protected_steps]), NANO.cycles[0].protected_lr * 1.001)
        first, second = rates[:NANO.cycles[0].steps], rates[NANO.cycles[0].steps:]
        for cycle, each in zip(NANO.cycles, (first, second)):
            self.assertLess(each[-1], 2 * cycle.final_lr)
        self.assertAlmostEqual(max(first), 4.7e-4, delta=0.1e-4)     # the rates that the model card names
        self.assertAlmostEqual(max(second), 6e-4, delta=0.1e-4)

    def test_joined_windows_are_the_same_documents_in_one_window_each(self):
        batch = make_batch(tiny_documents(), SMOKE, 5, 128)
        whole = joined(batch, 512, "a")
        self.assertTrue(torch.equal(whole.ids.flatten(), batch.ids.flatten()))
        self.assertEqual(whole.ids.shape[0], batch.layout.documents)
        self.assertEqual(whole.layout.per_document, 1)
        self.assertLessEqual(int(whole.places.max()) + whole.ids.shape[1], 512)


if __name__ == "__main__":
    unittest.main()
