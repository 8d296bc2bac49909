#!/usr/bin/env python3
"""A memory of millions of tokens from many documents: made, indexed and asked, with what each step takes and finds.

  bench/large/large_memory.py --books BOOKS --work out/large --tokens 16000000 --output out/large.json

BOOKS is a folder of texts (`models/train/make_books.py` makes one), cut into documents of at most --document-tokens. In some documents stands
"The pass key of NAME is NUMBER.", one each, half of them among the first tenth. Two memories are made, of that tenth and of all. Steps of
each: `ingest`, `memory index` (lists over all documents together), and `ask` with all its pass keys, once a lookup. Each question is asked
--repeat times in a row: the first time reads what it needs from the disk where memory is larger than the machine's, the others show what is
left without. A step that is interrupted goes on where it was when the same command runs again. Disk: 3.1 KB a token (of
models/memlane-nano, with lists).
"""
import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["Adam", "Agnes", "Albert", "Alice", "Amelia", "Andrew", "Anna", "Arthur", "Audrey", "Barbara", "Beatrice", "Benjamin", "Bertha",
         "Caroline", "Cecil", "Charles", "Clara", "Daisy", "Daniel", "David", "Dora", "Edgar", "Edith", "Edward", "Eleanor", "Emily", "Ernest",
         "Esther", "Eugene", "Eva", "Felix", "Fiona", "Florence", "Frances", "Frank", "George", "Gerald", "Grace", "Harold", "Harriet"]
LOOKUPS = ["exact", "ivf", "ivf:probes=1024", "ivf:probes=4096", "ivf:probes=16384"]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run_text(command: list) -> tuple[str, float]:
    begin = time.monotonic()
    run = subprocess.run([str(each) for each in command], stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        sys.exit(f"{Path(sys.argv[0]).name}: exit code {run.returncode} of: {' '.join(map(str, command))[:300]}")
    return run.stdout, time.monotonic() - begin


def run_json(command: list) -> tuple[dict, float]:
    text, seconds = run_text(command)
    return json.loads(text), seconds


def pieces(text: str, size: int):
    """The text in pieces of about so many characters, cut where a paragraph ends if there is one."""
    begin = 0
    while begin < len(text):
        end = min(len(text), begin + size)
        if end < len(text):
            paragraph = text.rfind("\n\n", begin + size // 2, end)
            end = paragraph if paragraph > 0 else end
        yield text[begin:end].strip() + "\n"
        begin = end


def with_fact(text: str, fact: str, place: random.Random) -> str:
    at = text.rfind("\n\n", 0, int(len(text) * place.uniform(0.1, 0.9)))
    at = max(at, 0)
    return f"{text[:at]}\n\n{fact}{text[at:]}"


def make_documents(args: argparse.Namespace, folder: Path) -> None:
    """Until they have args.tokens tokens, by the tokens of the first book's bytes."""
    books = sorted(args.books.glob("*.txt"))
    if not books:
        sys.exit(f"--books {args.books}: expected a folder with *.txt, found none; give another folder")
    plan, _ = run_json([args.memlane, "ingest", "--model", args.model, "--memory", folder / "none", "--plan", "--quiet", "--json", books[0]])
    # Texts differ in characters a token; a little more is read than was asked for, rather than less.
    characters = 1.03 * len(books[0].read_text(encoding="utf-8")) / plan["documents"][0]["tokens"]
    texts, total = [], 0
    for book in books:
        for piece in pieces(book.read_text(encoding="utf-8"), int(args.document_tokens * characters)):
            if total >= args.tokens * characters or len(piece) < 1000 * characters:
                continue
            texts.append(piece)
            total += len(piece)
    if total < args.tokens * characters:
        say(f"the books have only about {total / characters:,.0f} tokens")
    chance = random.Random(args.seed)
    names = NAMES[:args.facts]
    tenth = len(texts) // 10
    if tenth < len(names):
        sys.exit(f"--facts {args.facts}: expected at most a tenth of the documents, found {len(texts)} of those; ask fewer, or --tokens more")
    places = chance.sample(range(tenth), (len(names) + 1) // 2)
    places += chance.sample(range(tenth, len(texts)), len(names) - len(places))
    facts = []
    for name, place in zip(names, places):
        number = str(chance.randrange(10000, 100000))
        texts[place] = with_fact(texts[place], f"The pass key of {name} is {number}.", chance)
        facts.append({"name": name, "number": number, "document": place})
    for i, text in enumerate(texts):
        (folder / f"{i:05}.txt").write_text(text, encoding="utf-8")
    (folder / "facts.json").write_text(json.dumps(facts))


def is_right(text: str, number: str) -> bool:
    """The first five digits that are generated: the model's pieces split digits."""
    digits = "".join(each for each in text if each.isdigit())
    return digits[:5] == number


def make_memory(args: argparse.Namespace, memory: Path, documents: list) -> dict:
    """Reads what is not in the memory file, and makes lists over all documents together."""
    ingest, seconds = run_json([args.memlane, "ingest", "--model", args.model, "--memory", memory, "--json", "--max-memory-bytes",
                                args.max_memory_bytes, "--beyond", "spill", "--threads", args.threads, *documents])
    tokens = sum(each["tokens"] for each in ingest["documents"])
    say(f"{memory.name}: {tokens:,} tokens of {len(documents)} documents, {ingest['tokens_read']:,} read now in {seconds:.0f} s")
    index, seconds = run_json([args.memlane, "memory", "index", memory, "--json", "--threads", args.threads])
    say(f"{memory.name}: lists in {seconds:.0f} s")
    return {"documents": len(documents), "tokens": tokens, "file_bytes": memory.stat().st_size,
            "ingest": {key: value for key, value in ingest.items() if key != "documents"}, "index": index, "asked": []}


def ask(args: argparse.Namespace, memory: Path, lookup: str, facts: list) -> tuple[list, float]:
    """One command asks all questions: what each took the first time and, in the median, again; and seconds of the command for opening."""
    index, _, parameters = lookup.partition(":")
    flags = ["--index", index] + (["--index-parameters", parameters] if parameters else [])
    questions = args.work / "questions.txt"
    questions.write_text("".join(args.repeat * f"What is the pass key of {fact['name']}? The pass key of {fact['name']} is\n" for fact in facts))
    lines, wall = run_text([args.memlane, "ask", "--model", args.model, "--memory", memory, "--json", "--max-tokens", "8", "--ignore-eos",
                            "--max-memory-bytes", args.max_memory_bytes, "--beyond", "spill", "--threads", args.threads, *flags,
                            "--questions", questions])
    rows = []
    replies = [json.loads(line) for line in lines.splitlines()]
    if len(replies) != args.repeat * len(facts):
        sys.exit(f"{memory.name}, {lookup}: expected {args.repeat * len(facts)} replies, found {len(replies)}")
    for i, fact in enumerate(facts):
        reply, *others = replies[i * args.repeat:(i + 1) * args.repeat]
        later = {f"again_{key}": statistics.median(each[key] for each in others) for key in ("prompt_seconds", "generation_seconds") if others}
        rows.append({"name": fact["name"], "right": is_right(reply["text"], fact["number"]), "text": reply["text"],
                     "keys_scanned_per_query": reply.get("keys_scanned_per_query", reply["memory_entries"]),
                     **{key: reply[key] for key in ("memory_entries", "prompt_seconds", "generation_seconds")},
                     "peak_memory_bytes": max(each["peak_memory_bytes"] for each in (reply, *others)), **later})
        say(f"  {memory.name}, {lookup}, {fact['name']}: {reply['text']!r}, expected {fact['number']}; question "
            f"{reply['prompt_seconds']:.2f} s, tokens {reply['generation_seconds']:.2f} s")
    opening = wall - sum(reply["prompt_seconds"] + reply["generation_seconds"] for reply in replies)
    say(f"  opening {opening:.1f} s")
    return rows, opening


def again(median: dict, part: str) -> str:
    seconds = median.get(f"again_{part}_seconds")
    return "" if seconds is None else f"{seconds:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the documents and the memory file")
    parser.add_argument("--output", type=Path, help="JSON of all that was measured")
    parser.add_argument("--tokens", type=int, default=16_000_000)
    parser.add_argument("--document-tokens", type=int, default=40_000)
    parser.add_argument("--facts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lookups", nargs="+", default=LOOKUPS, help="such as exact or ivf:probes=4096")
    parser.add_argument("--repeat", type=int, default=4, help="times that each question is asked in a row; a scan of 16 million (exact) takes over a minute each")
    parser.add_argument("--max-memory-bytes", default="20G")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--memlane", type=Path, default=ROOT / "build/release/apps/memlane")
    parser.add_argument("--model", type=Path, default=ROOT / "models/memlane-nano")
    args = parser.parse_args()
    if not 2 <= args.facts <= len(NAMES):
        sys.exit(f"--facts {args.facts}: expected 2 to {len(NAMES)}")
    if args.repeat < 1:
        sys.exit(f"--repeat {args.repeat}: expected at least 1")

    folder = args.work / "documents"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "facts.json").exists():
        make_documents(args, folder)
    documents = sorted(folder.glob("*.txt"))
    facts = json.loads((folder / "facts.json").read_text())
    say(f"{len(documents)} documents")
    result = {"documents": len(documents), "facts": facts, "memories": []}
    print("| documents | entries | lookup | keys scanned | right | question s | 8 tokens s | again s | 8 tokens s | opening s | peak GiB |\n"
          "|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, count in (("tenth", len(documents) // 10), ("memory", len(documents))):
        memory = args.work / f"{name}.mlm"
        made = make_memory(args, memory, documents[:count])
        result["memories"].append(made)
        asked = [each for each in facts if each["document"] < count]
        for lookup in args.lookups:
            rows, opening = ask(args, memory, lookup, asked)
            made["asked"].append({"lookup": lookup, "opening_seconds": opening, "questions": rows})
            median = {key: statistics.median(each[key] for each in rows) for key in rows[0] if key.endswith(("seconds", "entries", "query"))}
            print(f"| {count} | {median['memory_entries']:,.0f} | `{lookup}` | {median['keys_scanned_per_query']:,.0f} | "
                  f"{sum(each['right'] for each in rows)} of {len(rows)} | {median['prompt_seconds']:.3f} | "
                  f"{median['generation_seconds']:.3f} | {again(median, 'prompt')} | {again(median, 'generation')} | {opening:.1f} | {rows[-1]['peak_memory_bytes'] / 2**30:.1f} |", flush=True)
            if args.output:
                args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
