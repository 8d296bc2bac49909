#!/usr/bin/env python3
"""A memory of millions of tokens from many documents: made, indexed and asked, with what each step takes and finds.

  bench/large/large_memory.py --books BOOKS --work out/large --tokens 16000000 --output out/large.json

BOOKS is a folder of texts (`models/train/make_books.py` makes one), cut into documents of at most --document-tokens. In some documents stands
"The pass key of NAME is NUMBER.", one each, half of them among the first tenth. Steps: `ingest`, `memory index`, and for a tenth of
the documents and for all of them, `ask` once a pass key and lookup. A step that is interrupted goes on where it was when the same
command runs again. Disk: 2.8 KB a token (of models/memlane-nano, with lists).
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


def run_json(command: list) -> tuple[dict, float]:
    begin = time.monotonic()
    run = subprocess.run([str(each) for each in command], stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        sys.exit(f"{Path(sys.argv[0]).name}: exit code {run.returncode} of: {' '.join(map(str, command))[:300]}")
    return json.loads(run.stdout), time.monotonic() - begin


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
    characters = len(books[0].read_text(encoding="utf-8")) / plan["documents"][0]["tokens"]
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


def ask(args: argparse.Namespace, memory: Path, lookup: str, facts: list, documents: int) -> list:
    index, _, parameters = lookup.partition(":")
    flags = ["--index", index] + (["--index-parameters", parameters] if parameters else [])
    rows = []
    for fact in facts:
        question = f"What is the pass key of {fact['name']}? The pass key of {fact['name']} is"
        reply, wall = run_json([args.memlane, "ask", "--model", args.model, "--memory", memory, "--json", "--max-tokens", "8", "--ignore-eos",
                                "--max-memory-bytes", args.max_memory_bytes, "--beyond", "spill", "--threads", args.threads, *flags,
                                "--documents", ",".join(map(str, range(documents))), question])
        rows.append({"name": fact["name"], "right": is_right(reply["text"], fact["number"]), "text": reply["text"], "command_seconds": wall,
                     **{key: reply[key] for key in ("memory_entries", "prompt_seconds", "generation_seconds", "peak_memory_bytes")}})
        say(f"  {documents} documents, {lookup}, {fact['name']}: {reply['text']!r}, expected {fact['number']}; question "
            f"{reply['prompt_seconds']:.2f} s, tokens {reply['generation_seconds']:.2f} s, command {wall:.1f} s")
    return rows


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
    parser.add_argument("--max-memory-bytes", default="20G")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--memlane", type=Path, default=ROOT / "build/release/apps/memlane")
    parser.add_argument("--model", type=Path, default=ROOT / "models/memlane-nano")
    args = parser.parse_args()
    if not 2 <= args.facts <= len(NAMES):
        sys.exit(f"--facts {args.facts}: expected 2 to {len(NAMES)}")

    folder, memory = args.work / "documents", args.work / "memory.mlm"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "facts.json").exists():
        make_documents(args, folder)
    documents = sorted(folder.glob("*.txt"))
    facts = json.loads((folder / "facts.json").read_text())
    say(f"{len(documents)} documents")
    budget = ["--max-memory-bytes", args.max_memory_bytes, "--beyond", "spill"]
    ingest, seconds = run_json([args.memlane, "ingest", "--model", args.model, "--memory", memory, "--json", *budget, "--threads", args.threads,
                                *documents])
    tokens = sum(each["tokens"] for each in ingest["documents"])
    say(f"{tokens:,} tokens in memory, {ingest['tokens_read']:,} read now in {seconds:.0f} s")
    index, seconds = run_json([args.memlane, "memory", "index", memory, "--json", "--threads", args.threads])
    say(f"lists in {seconds:.0f} s")

    result = {"documents": len(documents), "tokens": tokens, "file_bytes": memory.stat().st_size, "facts": facts,
              "ingest": {key: value for key, value in ingest.items() if key != "documents"}, "index": index, "index_seconds": seconds, "asked": []}
    print("| documents | entries | lookup | right | question s | 8 tokens s | command s | peak GiB |\n|---:|---:|---|---:|---:|---:|---:|---:|")
    for count in (len(documents) // 10, len(documents)):
        asked = [each for each in facts if each["document"] < count]
        for lookup in args.lookups:
            rows = ask(args, memory, lookup, asked, count)
            result["asked"].append({"documents": count, "lookup": lookup, "questions": rows})
            median = {key: statistics.median(each[key] for each in rows) for key in rows[0] if key.endswith(("seconds", "bytes", "entries"))}
            print(f"| {count} | {median['memory_entries']:,.0f} | `{lookup}` | {sum(each['right'] for each in rows)} of {len(rows)} | "
                  f"{median['prompt_seconds']:.2f} | {median['generation_seconds']:.2f} | {median['command_seconds']:.1f} | "
                  f"{max(each['peak_memory_bytes'] for each in rows) / 2**30:.1f} |", flush=True)
            if args.output:
                args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
