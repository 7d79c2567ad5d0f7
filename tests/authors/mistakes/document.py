"""Writes `docs/measured/author-mistakes.md` from what `run.py --record` has recorded.

    python3 tests/authors/mistakes/document.py BEFORE.json AFTER.json > docs/measured/author-mistakes.md

A message that only one of the files has is shown once.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from table import MISTAKES  # noqa: E402

LANGUAGES = {"rust": "Rust", "python": "Python", "ts": "TypeScript", "js": "JavaScript"}


def main(before, after):
    before, after = (json.loads(Path(path).read_text()) for path in (before, after))
    print((Path(__file__).parent / "head.txt").read_text().rstrip() + "\n")
    print("| mistake | " + " | ".join(LANGUAGES.values()) + " |\n|---|" + "---|" * len(LANGUAGES))
    for mistake in MISTAKES:
        cells = [cell(mistake.id, language, before, after) for language in LANGUAGES]
        print(f"| [{mistake.title}](#{mistake.id}) | " + " | ".join(cells) + " |")
    for mistake in MISTAKES:
        print(f'\n## {mistake.id}\n\n{mistake.title[0].upper()}{mistake.title[1:]}.')
        for language, name in LANGUAGES.items():
            show(name, before.get(mistake.id, {}).get(language), after.get(mistake.id, {}).get(language))


def cell(id, language, before, after):
    shown = [lacks(one[id][language]) for one in (before, after) if language in one.get(id, {})]
    return " → ".join(dict.fromkeys(shown)) or ("as JavaScript" if language == "ts" else "not recorded")


def lacks(met):
    return ", ".join(met["lacks"]) or "names all"


def show(name, before, after):
    before, after = (met if met and met["text"] is not None else None for met in (before, after))
    if before is None and after is None:
        return
    if before is None or after is None or text(before) == text(after):
        met = before or after
        print(f"\n{name}, in `{met['command']}`:\n\n```text\n{text(met)}\n```")
        return
    print(f"\n{name}, before, in `{before['command']}`:\n\n```text\n{text(before)}\n```")
    print(f"\nAfter, in `{after['command']}`:\n\n```text\n{text(after)}\n```")


def text(met):
    return "\n".join(line for line in met["text"].splitlines() if "INFO ONNX Runtime loaded" not in line)


if __name__ == "__main__":
    main(*sys.argv[1:])
