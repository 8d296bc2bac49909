"""Draws a training log as an SVG picture: the losses of prose, of answers and of repeats against tokens seen. No plotting library."""
import argparse
import json
import math
from pathlib import Path

CURVES = (("prose", "books", "#1f6f8b"), ("again", "repeated spans and noise", "#b3742a"), ("answers", "answers from memory", "#a8325a"))
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 360, 56, 16, 40, 44


def read_log(file: Path) -> list[dict]:
    """The rows of a log, of repeated steps the last (a run that was interrupted logs some steps again)."""
    rows = {}
    for line in file.read_text().splitlines():
        row = json.loads(line)
        rows[row["step"]] = row
    return [rows[step] for step in sorted(rows)]


def smooth(values: list[float | None], reach: int = 5) -> list[float | None]:
    """Running means over up to 2 * reach + 1 neighbours."""
    out = []
    for i in range(len(values)):
        near = [value for value in values[max(0, i - reach):i + reach + 1] if value is not None]
        out.append(sum(near) / len(near) if near else None)
    return out


def draw(rows: list[dict], title: str) -> str:
    last, highest = rows[-1]["step"], 8
    across = lambda step: LEFT + (WIDTH - LEFT - RIGHT) * step / last
    down = lambda loss: TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(loss, highest) / highest)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', f'<text x="{LEFT}" y="18" font-size="14">{title}</text>']
    for loss in range(0, highest + 1, 2):
        y = down(loss)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/><text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{loss}</text>')
    for step in range(0, last + 1, _round_step(last)):
        parts.append(f'<text x="{across(step):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{step}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">step</text>')
    parts.append(f'<text x="14" y="{HEIGHT / 2}" transform="rotate(-90 14 {HEIGHT / 2})" text-anchor="middle">loss, nats a token</text>')
    for index, (key, label, colour) in enumerate(CURVES):
        points = [(row["step"], value) for row, value in zip(rows, smooth([row.get(key) for row in rows])) if value is not None]
        path = "L".join(f"{across(step):.1f} {down(value):.1f}" for step, value in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{WIDTH - RIGHT - 8}" y="{TOP + 14 + 16 * index}" text-anchor="end" fill="{colour}">{label}</text>')
    return "\n".join(parts + ["</svg>"]) + "\n"


def _round_step(last: int) -> int:
    """A round distance between marks that gives four to ten of them."""
    power = 10 ** int(math.log10(max(last, 10) / 4))
    return max(1, next(power * factor for factor in (1, 2, 5, 10) if last / (power * factor) <= 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--title", default="Training loss by kind of token (running mean)")
    args = parser.parse_args()
    args.out.write_text(draw(read_log(args.log), args.title))


if __name__ == "__main__":
    main()
