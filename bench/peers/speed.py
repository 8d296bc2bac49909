#!/usr/bin/env python3
"""memlane and llama.cpp at the same size with random weights, turn by turn on the same machine: tokens a second, and their ratio.

  bench/peers/build-llama-cpp                                        # prints where llama-bench and behind are
  python3 -m venv out/peers/venv && out/peers/venv/bin/pip install -r bench/peers/requirements.txt
  out/peers/venv/bin/python bench/peers/speed.py --shape b
  out/peers/venv/bin/python bench/peers/speed.py --shape a --formats int8 --depth 32768
  out/peers/venv/bin/python bench/peers/speed.py --shape b --formats bfloat16 --depth 2048,16384,32768 --what window --extrapolate 262144

Prefill: one window of 2048 tokens without logits of all of them. Decode: one token at a time, behind nothing or behind `--depth` tokens.
Window: 2048 tokens that are read behind `--depth` tokens, and in memlane go to memory (`bench speed --what ingest`). Behind tokens
the two compute different functions: llama.cpp attends to all tokens in every layer, memlane to one window, and in its memory layers to
all of the memory (`dense`) or to the best 128 entries (`exact`): the same text behind, not the same work. llama.cpp's best of several
settings (flash attention on, off; of a window also batches of 512 and 2048 on the machine) is taken. Medians of the rounds; a round
runs both programs once.

The tokens behind are 512 and copies of their keys and values in llama.cpp (behind.cpp), random entries in memlane: the time of a step
depends on how many there are, not on what they hold.

With `--extrapolate TOKENS` and windows at several depths, a line through the seconds of a window at each depth (least squares) says what a window
behind TOKENS would take, and all windows up to there: a calculation, not a measurement.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
WINDOW = 2048
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


class Behind:
    """llama.cpp behind `depth` tokens: copies of the first 512, see behind.cpp."""

    def __init__(self, args: argparse.Namespace, model: Path, depth: int):
        self.command = [args.llama_bench.with_name("behind"), model, "--behind", str(depth), "--threads", str(args.threads),
                        "--rounds", "1", "--tokens", str(args.decode_tokens), "--ubatch", args.ubatch]

    def tokens_per_second(self, what: str, flash: str) -> dict[str, float]:
        """By the setting's name, which is flash attention and, of a window, tokens that are computed together."""
        command = [*self.command, "--what", what, "--flash", "on" if flash == "1" else "off"]
        measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        if what == "decode":
            return {f"fa {flash}": measured["decode"]["tokens_per_second"]}
        return {f"fa {flash} ub {each['ubatch']}": each["tokens_per_second"] for each in measured["window"]}


class Line:
    """Seconds of a window behind so many tokens, by least squares."""

    def __init__(self, seconds: dict[int, float]):
        depths, values = list(seconds), list(seconds.values())
        self.slope, self.intercept = statistics.linear_regression(depths, values)

    def window(self, depth: int) -> float:
        return self.intercept + self.slope * depth

    def all_windows(self, tokens: int) -> float:
        return sum(self.window(depth) for depth in range(0, tokens, WINDOW))


def memlane_tokens_per_second(program: Path, args: argparse.Namespace, flags: list[str], what: str, lookup: str, depth: int) -> float:
    command = [program, "bench", "speed", "--shape", args.shape, "--threads", str(args.threads), "--rounds", "1",
               "--what", "ingest" if what == "window" else what, "--decode-tokens", str(args.decode_tokens), "--memory", str(depth),
               "--lookups", lookup, "--ring-mib", "256", "--json", *flags]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    [cell] = json.loads(run.stdout)["cells"]
    return cell["tokens"] / cell["seconds"]


def rounds_of(args: argparse.Namespace, name: str, what: str, depth: int) -> dict[str, list[float]]:
    """Tokens a second of each round, by what ran."""
    flags, kinds = FORMATS[name]
    kinds = args.types.split(",") if args.types else kinds
    measured: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for lookup in args.lookups.split(",") if depth else ["dense"]:
            label = f"memlane {name}" + (f" {lookup}" if depth else "")
            measured.setdefault(label, []).append(memlane_tokens_per_second(args.memlane, args, flags, what, lookup, depth))
        for kind in kinds:
            model = gguf_of(args.models, args.shape, kind)
            for flash in args.flash.split(","):
                if depth:
                    values = Behind(args, model, depth).tokens_per_second(what, flash)
                else:
                    theirs = ["-p", str(WINDOW), "-n", "0"] if what == "prefill" else ["-p", "0", "-n", str(args.decode_tokens)]
                    values = {f"fa {flash}": Llama(args.llama_bench, model, args.threads).tokens_per_second(theirs, flash)}
                for setting, value in values.items():
                    measured.setdefault(f"llama.cpp {kind} {setting}", []).append(value)
    return measured


def rows_of(what: str, depth: int, measured: dict[str, list[float]]) -> list[dict]:
    middle = {label: statistics.median(values) for label, values in measured.items()}
    peers = {label: value for label, value in middle.items() if label.startswith("llama.cpp")}
    rows = []
    for label, value in middle.items():
        row = {"what": what, "depth": depth, "runs": label, "tokens_per_second": value, "rounds": measured[label]}
        if label not in peers:
            row["ratio"] = {peer: value / theirs for peer, theirs in peers.items()}
        rows.append(row)
        ratios = "".join(f"  {ratio:.2f} x {peer}" for peer, ratio in row.get("ratio", {}).items())
        print(f"{what:8}{depth:8}  {label:28}{value:10.2f} tok/s{ratios}", file=sys.stderr, flush=True)
    return rows


def extrapolated(rows: list[dict], tokens: int) -> list[dict]:
    seconds: dict[str, dict[int, list[float]]] = {}  # several where two formats compete with the same
    for row in rows:
        if row["what"] == "window":
            seconds.setdefault(row["runs"], {}).setdefault(row["depth"], []).append(WINDOW / row["tokens_per_second"])
    lines = []
    for label, measured in seconds.items():
        by_depth = {depth: statistics.median(values) for depth, values in measured.items()}
        line = Line(by_depth)
        lines.append({"runs": label, "tokens": tokens, "seconds_by_depth": by_depth, "seconds_per_token_behind": line.slope,
                      "seconds_behind_nothing": line.intercept, "window_seconds": line.window(tokens),
                      "all_windows_seconds": line.all_windows(tokens)})
        print(f"calculated for {tokens}: {label:28} a window {line.window(tokens):9.2f} s, all {line.all_windows(tokens):9.0f} s",
              file=sys.stderr, flush=True)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("a", "b"), default="b", help="of bench speed")
    parser.add_argument("--formats", default="float32,bfloat16,int8,int4", help="of memlane's weights")
    parser.add_argument("--types", help="of llama.cpp's weights, such as BF16,Q8_0 (default: those that compete with the format)")
    parser.add_argument("--flash", default="0,1", help="llama.cpp's flash attention off, on")
    parser.add_argument("--ubatch", default="512,2048", help="tokens that llama.cpp computes together in a window behind --depth tokens")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--depth", default="0", help="tokens behind, multiples of 2048 separated by commas; 0: prefill, and decode behind nothing")
    parser.add_argument("--what", default="decode", help="behind --depth tokens: of decode and window")
    parser.add_argument("--extrapolate", type=int, help="tokens that windows at several depths are extrapolated to")
    parser.add_argument("--lookups", default="dense,exact", help="of memlane, behind --depth tokens")
    parser.add_argument("--decode-tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memlane", type=Path, default=HERE.parents[1] / "build/release/apps/memlane")
    parser.add_argument("--llama-bench", type=Path, default=HERE.parents[1] / "out/peers/llama.cpp/bin/llama-bench",
                        help="behind is expected beside it")
    parser.add_argument("--models", type=Path, default=HERE.parents[1] / "out/peers", help="folder that GGUF files are written to and kept in")
    args = parser.parse_args()
    depths = [int(depth) for depth in args.depth.split(",")]
    if args.extrapolate and (len(set(depths)) < 2 or 0 in depths or "window" not in args.what.split(",")):
        parser.error("--extrapolate: expected --what window and at least two depths other than 0")
    rows = []
    for name in args.formats.split(","):
        for depth in depths:
            for what in args.what.split(",") if depth else ["prefill", "decode"]:
                rows += rows_of(what, depth, rounds_of(args, name, what, depth))
    result = {"shape": args.shape, "threads": args.threads, "rows": rows}
    if args.extrapolate:
        result["extrapolated"] = extrapolated(rows, args.extrapolate)
    json.dump(result, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
