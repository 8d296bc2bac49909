"""Training, resuming, exporting, measuring: on a model of a few thousand parameters."""
import contextlib
import io
import json
import random
import tempfile
import unittest
from pathlib import Path

import torch
from safetensors import safe_open

from fot import checkpoint, evaluate
from fot.batches import make_batch
from fot.export import export, load_model
from fot.model import Llama
from fot.schedule import SMOKE
from fot.seeding import initialise
from fot.train import losses, make_optimizer, train
from tests.fixtures import FOLDER, tiny_config, tiny_documents


def new_model() -> Llama:
    torch.set_num_threads(1)
    model = Llama(tiny_config())
    initialise(model, seed=1)
    return model


def run(folder: Path, until: int | None = None) -> list[dict]:
    with contextlib.redirect_stdout(io.StringIO()):
        train(new_model(), tiny_documents(), SMOKE, folder, save_every=4, log_every=1, until=until)
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


class Training(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(self):
        whole = run(self.folder / "whole")
        run(self.folder / "parts", until=4)
        parts = run(self.folder / "parts")
        self.assertEqual([row["step"] for row in parts], list(range(1, SMOKE.steps + 1)))
        self.assertEqual([row["loss"] for row in parts], [row["loss"] for row in whole])

    def test_the_same_command_gives_the_same_weights(self):
        for name in ("a", "b"):
            run(self.folder / name)
        a, b = ((self.folder / name / "checkpoint.safetensors").read_bytes() for name in ("a", "b"))
        self.assertEqual(a, b)

    def test_a_checkpoint_takes_little_more_than_four_bytes_a_parameter(self):
        model = new_model()
        run(self.folder)
        parameters = sum(p.numel() for p in model.parameters())
        self.assertLess((self.folder / "checkpoint.safetensors").stat().st_size, 4.6 * parameters + 20_000)

    def test_rounding_the_optimizer_state_keeps_it_close(self):
        x = torch.randn(1000, generator=torch.Generator().manual_seed(1)) ** 3
        for levels, values in ((127, x), (255, x.abs())):
            back = checkpoint.dequantise(*checkpoint.quantise(values, levels), x.shape)
            self.assertLess((back - values).abs().max(), values.abs().max() / levels)
        self.assertTrue((checkpoint.dequantise(*checkpoint.quantise(x.abs(), 255), x.shape) > 0).all())

    def test_the_seeded_circuit_copies_from_memory_before_any_training(self):
        documents, model, means = tiny_documents(), new_model(), []
        for memory in (True, False):
            batch = make_batch(documents, SMOKE, 0, 128)
            each = losses(model, batch, torch.device("cpu"), memory)
            means.append(each[batch.weights == 4.0].mean().item())
        self.assertLess(means[0], means[1])

    def test_an_export_has_transformers_names_and_shapes_and_loads(self):
        run(self.folder)
        config, out = tiny_config(), self.folder / "model"
        export(self.folder / "checkpoint.safetensors", FOLDER / "tokenizer.model", out, config)
        self.assertEqual((out / "model.safetensors").stat().st_mode, (out / "config.json").stat().st_mode)
        with safe_open(out / "model.safetensors", "pt") as stored:
            shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}
            self.assertEqual({stored.get_slice(name).get_dtype() for name in stored.keys()}, {"BF16"})
        self.assertEqual(len(shapes), 3 + 9 * config.num_layers)
        self.assertEqual(shapes["model.embed_tokens.weight"], (400, 64))
        self.assertEqual(shapes["lm_head.weight"], (400, 64))
        self.assertEqual(shapes["model.layers.2.mlp.down_proj.weight"], (64, 96))
        self.assertEqual(shapes["model.layers.0.self_attn.q_proj.weight"], (64, 64))
        self.assertEqual(shapes["model.layers.1.post_attention_layernorm.weight"], (64,))
        stored = json.loads((out / "config.json").read_text())
        self.assertEqual((stored["model_type"], stored["mem_layers"], stored["mem_positionals"]), ("llama", [1], True))
        self.assertEqual(load_model(out).config, config)

    def test_prompts_have_the_length_asked_for_and_contain_their_answer(self):
        tokenizer, filler = tiny_documents().tokenizer, tiny_documents().corpus.tokens.tolist()
        for make, length in ((evaluate.passkey_prompt, 700), (evaluate.named_prompt, 6000)):
            ids, answer = make(tokenizer, filler, length, random.Random(1))
            self.assertEqual(len(ids), length)
            self.assertIn(tokenizer.decode(answer), tokenizer.decode(ids))

    def test_recall_and_perplexity_run_over_several_windows(self):
        documents, model = tiny_documents(), new_model()
        filler = documents.corpus.tokens.tolist()
        row = evaluate.recall(model, documents.tokenizer, evaluate.passkey_prompt, filler, 700, 1, seed=1)
        self.assertEqual((row["length"], row["trials"]), (700, 1))
        none, some = (evaluate.perplexity(model, torch.tensor(filler), 512, 2, memory) for memory in (0, 256))
        self.assertNotEqual(none, some)


if __name__ == "__main__":
    unittest.main()
