"""Memory attention against plain attention and against a slow, direct reading of its definition."""
import math
import unittest

import torch

from fot import attention
from fot.attention import DocumentWindows, attend, attend_documents
from fot.model import Llama
from fot.seeding import initialise
from tests.fixtures import tiny_config


def random_tensors(count: int, *shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def slow_attend(queries, keys, values, mem_keys, mem_values):
    """One query and head at a time. Shapes as attend's."""
    out = torch.empty_like(queries)
    for w, t, h in torch.cartesian_prod(*(torch.arange(n) for n in queries.shape[:3])).tolist():
        seen_keys = torch.cat([keys[w, :t + 1, h], mem_keys[w, :, h]])
        seen_values = torch.cat([values[w, :t + 1, h], mem_values[w, :, h]])
        weights = (seen_keys @ queries[w, t, h] / math.sqrt(queries.shape[-1])).softmax(0)
        out[w, t, h] = weights @ seen_values
    return out


class Attention(unittest.TestCase):
    def test_one_softmax_over_window_and_memory_equals_the_definition(self):
        q, k, v = random_tensors(3, 2, 7, 3, 8)
        mk, mv = random_tensors(2, 2, 11, 3, 8)
        torch.testing.assert_close(attend(q, k, v, mk, mv), slow_attend(q, k, v, mk, mv))

    def test_gradients_are_those_of_the_definition(self):
        tensors = random_tensors(3, 1, 4, 2, 4) + random_tensors(2, 1, 5, 2, 4)
        self.assertTrue(torch.autograd.gradcheck(attend, [x.requires_grad_() for x in tensors]))

    def test_fused_path_equals_the_other_one(self):
        q, k, v = random_tensors(3, 1, attention.FUSED_FROM, 2, 8)
        mk, mv = random_tensors(2, 1, 20, 2, 8)
        short = attend(q[:, :9], k[:, :9], v[:, :9], mk, mv)
        torch.testing.assert_close(attend(q, k, v, mk, mv)[:, :9], short)

    def test_order_of_memory_rows_does_not_matter(self):
        q, k, v = random_tensors(3, 2, 7, 3, 8)
        mk, mv = random_tensors(2, 2, 11, 3, 8)
        order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(attend(q, k, v, mk[:, order], mv[:, order]), attend(q, k, v, mk, mv))

    def test_windows_of_documents_see_earlier_windows_and_negatives_only(self):
        q, r, k, v = random_tensors(4, 6, 5, 2, 4)                   # two documents of three windows
        out = attend_documents(q, r, k, v, DocumentWindows(2, 3, torch.tensor([[4], [1]])))
        flat = lambda x, *windows: torch.cat([x[w] for w in windows])[None]
        torch.testing.assert_close(out[0], attend(q[:1], r[:1], v[:1])[0])
        torch.testing.assert_close(out[2], attend(q[2:3], r[2:3], v[2:3], flat(k, 0, 1, 4), flat(v, 0, 1, 4))[0])
        torch.testing.assert_close(out[4], attend(q[4:5], r[4:5], v[4:5], flat(k, 1, 3), flat(v, 1, 3))[0])


class Model(unittest.TestCase):
    def setUp(self):
        self.model = Llama(tiny_config()).eval()
        initialise(self.model, seed=1)
        self.ids = torch.randint(3, 400, (1, 24), generator=torch.Generator().manual_seed(2))

    def test_empty_memory_equals_a_plain_llama(self):
        torch.testing.assert_close(self.model(self.ids, None, self.model.new_memory()), self.model(self.ids))

    def test_order_of_windows_in_memory_does_not_matter(self):
        torch.manual_seed(5)
        for parameter in self.model.parameters():                    # large enough weights that memory matters
            parameter.data.add_(torch.randn_like(parameter) * 0.05)
        windows = [torch.randint(3, 400, (1, 16)) for _ in range(2)]
        kept = []
        for window in windows:
            memory = self.model.new_memory()
            self.model(window, None, memory)
            kept.append(memory[1])
        results = []
        for first, second in (kept, kept[::-1]):
            memory = self.model.new_memory()
            for part in (first, second):
                memory[1].append(part.keys, part.values)
            results.append(self.model(self.ids, None, memory))
        torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)
        self.assertGreater((results[0] - self.model(self.ids)).abs().max().item(), 1e-2)

    def test_reading_window_by_window_equals_the_training_layout(self):
        windows = torch.randint(3, 400, (3, 16), generator=torch.Generator().manual_seed(8))
        trained = self.model(windows, None, DocumentWindows(1, 3, torch.empty(1, 0, dtype=torch.long)))
        memory = self.model.new_memory()
        read = torch.cat([self.model(window[None], None, memory) for window in windows])
        torch.testing.assert_close(read, trained, rtol=1e-4, atol=1e-5)

    def test_a_window_at_another_place_gives_the_same_without_memory(self):
        moved = self.model(self.ids, torch.tensor([100]))
        torch.testing.assert_close(moved, self.model(self.ids), rtol=1e-3, atol=1e-4)


if __name__ == "__main__":
    unittest.main()
