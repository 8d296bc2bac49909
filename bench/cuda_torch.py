#!/usr/bin/env python3
"""The rows of bench_cuda that PyTorch can do too, on the same GPU: one JSON line each. Does nothing without PyTorch."""

import json
import statistics
import sys
import time

try:
    import torch
except ImportError:
    print("skipped: no PyTorch")
    sys.exit(0)
if not torch.cuda.is_available():
    print("skipped: no GPU that PyTorch can use")
    sys.exit(0)

HEADS, HEAD_DIM, HIDDEN, INTERMEDIATE = 32, 100, 3200, 8640


def random(*shape):
    return torch.rand(*shape, device="cuda", dtype=torch.bfloat16) * 2 - 1


def seconds(run, calls):
    """The median of five rounds after a warm-up."""
    run()
    times = []
    for _ in range(5):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            run()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) / calls)
    return statistics.median(times)


def report(row, run, calls):
    try:
        print(json.dumps({"row": row, "torch_ms": 1e3 * seconds(run, calls)}), flush=True)
    except torch.cuda.OutOfMemoryError:
        print(json.dumps({"row": row, "torch_ms": None, "why": "out of memory"}), flush=True)
    torch.cuda.empty_cache()


def whole_passes():
    """A model of shape A, without rotation: one token behind 80 others, and a window."""
    layers = [
        ([random(HIDDEN, HIDDEN) for _ in range(4)], random(INTERMEDIATE, HIDDEN), random(INTERMEDIATE, HIDDEN),
         random(HIDDEN, INTERMEDIATE))
        for _ in range(26)
    ]
    head = random(32000, HIDDEN)
    functional = torch.nn.functional

    def norm(x):
        return functional.rms_norm(x, (HIDDEN,))

    for tokens, past, name in ((1, 80, "decode, shape A, no memory, bfloat16"), (2048, 0, "prefill of 2048, shape A, bfloat16")):
        text, keys, values = random(tokens, HIDDEN), random(HEADS, past, HEAD_DIM), random(HEADS, past, HEAD_DIM)

        def whole():
            x = text
            for (wq, wk, wv, wo), gate, up, down in layers:
                h = norm(x)
                q, k, v = ((h @ w.T).view(tokens, HEADS, HEAD_DIM).transpose(0, 1) for w in (wq, wk, wv))
                attended = functional.scaled_dot_product_attention(
                    q[None], torch.cat((keys, k), 1)[None], torch.cat((values, v), 1)[None], is_causal=tokens > 1
                )
                x = x + attended[0].transpose(0, 1).reshape(tokens, HIDDEN) @ wo.T
                h = norm(x)
                x = x + (functional.silu(h @ gate.T) * (h @ up.T)) @ down.T
            return norm(x[-1:]) @ head.T

        report(name, whole, 10 if tokens == 1 else 2)


@torch.inference_mode()
def main():
    a, b = random(8192, 8192), random(8192, 8192)
    report("matmul 8192 x 8192 x 8192, with rounding of inputs", lambda: a @ b.T, 5)
    del a, b
    qkvo = [random(HIDDEN, HIDDEN) for _ in range(4)]
    gate, up, down = random(INTERMEDIATE, HIDDEN), random(INTERMEDIATE, HIDDEN), random(HIDDEN, INTERMEDIATE)
    for tokens, name in ((1, "products of a layer, 1 token"), (2048, "products of a layer, 2048 tokens")):
        h = random(tokens, HIDDEN)

        def layer():
            for w in qkvo:
                h @ w.T
            (torch.nn.functional.silu(h @ gate.T) * (h @ up.T)) @ down.T

        report(name, layer, 10)
    del qkvo, gate, up, down
    whole_passes()

    windows = int(sys.argv[1]) if len(sys.argv) > 1 else 512
    for entries in (16 * 2048, windows * 2048):
        keys, values = random(1, HEADS, entries, HEAD_DIM), random(1, HEADS, entries, HEAD_DIM)
        for tokens in (1, 2048):
            q = random(1, HEADS, tokens, HEAD_DIM)
            report(
                f"dense attention, {tokens} token{'s' if tokens > 1 else ''} over {entries} entries",
                lambda: torch.nn.functional.scaled_dot_product_attention(q, keys, values),
                10 if tokens == 1 else 1,
            )
            # LongLLaMA's way: all scores, a softmax over them in float32, their product with the values.
            report(
                f"LongLLaMA's way, {tokens} token{'s' if tokens > 1 else ''} over {entries} entries",
                lambda: torch.softmax((q @ keys.transpose(2, 3)) / HEAD_DIM**0.5, -1, dtype=torch.float32).to(q.dtype)
                @ values,
                10 if tokens == 1 else 1,
            )
            some = q[:, :, :256]
            report(
                f"exact top-32, {min(tokens, 256)} token{'s' if tokens > 1 else ''} over {entries} entries",
                lambda: torch.topk(some @ keys.transpose(2, 3), 32),
                10 if tokens == 1 else 1,
            )


main()
