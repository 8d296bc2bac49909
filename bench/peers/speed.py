#!/usr/bin/env python3
"""memlane and llama.cpp at the same size with random weights, turn by turn on the same machine: tokens a second, and their ratio.

  bench/peers/build-llama-cpp                                        # prints where llama-bench is
  python3 -m venv out/peers/venv && out/peers/venv/bin/pip install -r bench/peers/requirements.txt
  out/peers/venv/bin/python bench/peers/speed.py --shape b

Prefill: one window of 2048 tokens without logits of all of them. Decode: one token at a time, behind nothing or behind `--depth` tokens. There
the two compute different functions: llama.cpp attends to all tokens in every layer, memlane to one window, and in its memory layers to
all of the memory (`dense`) or to the best 128 entries (`exact`): the same text behind, not the same work. llama.cpp's best of several
settings (flash attention on, off) is taken. Medians of the rounds; a round runs both programs once.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# memlane's flags for a format, and the llama.cpp types that compete with it
FORMATS = {
    "float32": (["--compute", "float32"], ["F32"]),
    "bfloat16": ([], ["BF16"]),
    "int8": (["--weights", "int8"], ["Q8_0"]),
    "int4": (["--weights", "int4"], ["Q4_0", "Q8_0"]),
}


def gguf_of(folder: Path, shape: str, kind: str) -> Path:
    path = folder / f"random-{shape}-{kind}.gguf"
    if not path.exists():
        part = path.with_suffix(".part")
        subprocess.run([sys.executable, HERE / "random_gguf.py", "--shape", shape, "--type", kind, part], check=True)
        part.rename(path)
    return path


class Llama:
    def __init__(self, program: Path, model: Path, threads: int):
        self.command = [program, "-m", model, "-t", str(threads), "-r", "1", "-o", "json", "-ngl", "0"]

    def tokens_per_second(self, what: list[str], flash: str) -> float:
        run = subprocess.run([*self.command, *what, "-fa", flash], check=True, capture_output=True, text=True)
        return json.loads(run.stdout)[0]["avg_ts"]


def memlane_tokens_per_second(program: Path, args: argparse.Namespace, flags: list[str], what: str, lookup: str, depth: int) -> float:
    command = [program, "bench", "speed", "--shape", args.shape, "--threads", str(args.threads), "--rounds", "1", "--what", what,
               "--decode-tokens", str(args.decode_tokens), "--memory", str(depth), "--lookups", lookup, "--ring-mib", "256", "--json", *flags]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    [cell] = json.loads(run.stdout)["cells"]
    return cell["tokens"] / cell["seconds"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("a", "b"), default="b", help="of bench speed")
    parser.add_argument("--formats", default="float32,bfloat16,int8,int4", help="of memlane's weights")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--depth", type=int, default=0, help="tokens behind a decoded one, a multiple of 2048; 0: prefill, and decode behind nothing")
    parser.add_argument("--lookups", default="dense,exact", help="of memlane, behind --depth tokens")
    parser.add_argument("--decode-tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memlane", type=Path, default=HERE.parents[1] / "build/release/apps/memlane")
    parser.add_argument("--llama-bench", type=Path, default=HERE.parents[1] / "out/peers/llama.cpp/bin/llama-bench")
    parser.add_argument("--models", type=Path, default=HERE.parents[1] / "out/peers", help="folder that GGUF files are written to and kept in")
    args = parser.parse_args()
    rows = []
    for name in args.formats.split(","):
        flags, kinds = FORMATS[name]
        for what in ["decode"] if args.depth else ["prefill", "decode"]:
            theirs = ["-p", "2048", "-n", "0"] if what == "prefill" else ["-p", "0", "-n", str(args.decode_tokens)]
            if args.depth:
                theirs += ["-d", str(args.depth)]
            measured: dict[str, list[float]] = {}
            for _ in range(args.rounds):
                for lookup in args.lookups.split(",") if args.depth else ["dense"]:
                    label = f"memlane {name}" + (f" {lookup}" if args.depth else "")
                    measured.setdefault(label, []).append(
                        memlane_tokens_per_second(args.memlane, args, flags, what, lookup, args.depth))
                for kind in kinds:
                    llama = Llama(args.llama_bench, gguf_of(args.models, args.shape, kind), args.threads)
                    for flash in ("0", "1"):
                        measured.setdefault(f"llama.cpp {kind} fa {flash}", []).append(llama.tokens_per_second(theirs, flash))
            middle = {label: statistics.median(values) for label, values in measured.items()}
            peers = {label: value for label, value in middle.items() if label.startswith("llama.cpp")}
            for label, value in middle.items():
                row = {"what": what, "depth": args.depth, "runs": label, "tokens_per_second": value, "rounds": measured[label]}
                if label not in peers:
                    row["ratio"] = {peer: value / theirs for peer, theirs in peers.items()}
                rows.append(row)
                ratios = "".join(f"  {ratio:.2f} x {peer}" for peer, ratio in row.get("ratio", {}).items())
                print(f"{what:8}{args.depth:8}  {label:28}{value:10.2f} tok/s{ratios}", file=sys.stderr, flush=True)
    json.dump({"shape": args.shape, "threads": args.threads, "rows": rows}, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
