"""Plants mistakes in new projects, and checks what an author reads.

    python3 tests/authors/mistakes/run.py HOSTLER [--sdk sdk] [--short] [--record FILE]

Each mistake is a small edit of a transformer that `hostler new` created. It is met where an author
meets it: in `hostler build`, or else in `hostler predict`. The message must name the plugin, the
function, and the line or the key. The exit code is 1 if one does not.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from table import MISTAKES  # noqa: E402

LANGUAGES = ("rust", "python", "ts", "js")
SDK = {"rust": "rust", "python": "python", "ts": "js", "js": "js"}
SOURCE = {"rust": "src/lib.rs", "python": "app.py", "ts": "app.ts", "js": "app.js"}
# Not part of what `hostler sdk` writes.
LEFT_OUT = shutil.ignore_patterns("tests", "node_modules", "target", "wit", ".gitignore", "package-lock.json",
                                  "__pycache__", "*.egg-info", ".*_cache")
# A build that goes on for longer is at fault itself.
PATIENCE_S = 600
# Lines about the progress of tools, which say nothing about a mistake.
PROGRESS = re.compile(
    r"^\s*(Compiling|Finished|Locking|Updating|Adding|Downloaded|Downloading|Blocking|added \d+ packages"
    r"|Component built|built |\S+: [\d.]+ MiB, role|INFO ONNX Runtime loaded)"
)


class Project:
    """A project of one language, which is built once, and then for each mistake."""

    def __init__(self, hostler, language, folder, sdk):
        self.hostler, self.language = hostler, language
        self.name = f"my-{language}"
        self.folder = folder / self.name
        if not self.folder.exists():
            self.run("new", language, "transformer", self.name, cwd=folder)
        if sdk is not None:
            self.take(sdk)
        self.pristine = {
            file: (self.folder / file).read_bytes()
            for file in (SOURCE[language], "hostler.toml", "request.json", "tsconfig.json")
            if (self.folder / file).exists()
        }
        code, text = self.run("build")
        if code != 0:
            sys.exit(f"cannot build the project in {language}:\n{text}")

    def take(self, sdk):
        """Takes the SDK and the template of a working tree in place of those of the program."""
        # The modes stay: npm has made programs of the SDK executable.
        shutil.copytree(sdk / SDK[self.language], self.folder / "sdk", ignore=LEFT_OUT, dirs_exist_ok=True,
                        copy_function=shutil.copyfile)
        templates = sdk / "templates"
        for part in ("common-transformer", f"{self.language}/common", f"{self.language}/transformer"):
            for file in (templates / part).rglob("*"):
                if not file.is_file():
                    continue
                target = self.folder / str(file.relative_to(templates / part)).removesuffix(".in")
                target.parent.mkdir(parents=True, exist_ok=True)
                content = file.read_bytes().replace(b"{{name}}", self.name.encode())
                target.write_bytes(content.replace(b"{{crate}}", self.name.replace("-", "_").encode()))

    def run(self, *arguments, cwd=None):
        """Returns the exit code and what the author reads."""
        command = [self.hostler, *arguments]
        if hasattr(os, "nice"):
            command = ["nice", "-n", "19", *command]
        environment = {**os.environ, "NO_COLOR": "1", "CARGO_TERM_COLOR": "never"}
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=PATIENCE_S,
        )
        return done.returncode, self.plain(done.stdout)

    def plain(self, text):
        """Returns a text without what differs from run to run and from machine to machine."""
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        for folder in (str(self.folder), os.path.realpath(self.folder)):
            text = text.replace(f"file://{folder}/", "").replace(folder + "/", "").replace(folder, ".")
        text = text.replace(os.path.expanduser("~"), "~")
        text = re.sub(r"^\d{4}-\d\d-\d\dT[\d:.]+Z +", "", text, flags=re.MULTILINE)
        text = re.sub(r"stopped after \d+ ms", "stopped after N ms", text)
        return "\n".join(line.rstrip() for line in text.splitlines() if not PROGRESS.match(line)).strip("\n")

    def restore(self):
        for file, content in self.pristine.items():
            self.write(file, content)

    def write(self, file, content):
        path = self.folder / file
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)

    def plant(self, plant):
        """Makes the edits. Returns the places at fault, as `file:line`, with the texts of the lines."""
        texts = {file: content.decode() for file, content in self.pristine.items()}
        for file, old, new in plant.edits:
            if old not in texts[file]:
                raise ValueError(f"{file} of the project in {self.language} has no {old!r}")
            texts[file] = texts[file].replace(old, new, 1)
        places = {}
        for file, text in texts.items():
            for number, line in enumerate(text.split("\n"), 1):
                if "§" in line:
                    places[f"{file}:{number}"] = line.replace("§", "").strip()
            content = text.replace("§", "").encode("utf-8", "surrogateescape")
            self.write(file, content)
        return places

    def meet(self, plant):
        """Makes a mistake, and returns its places and what the author reads."""
        places = self.plant(plant)
        code, text = self.run("build")
        command = "build"
        if code == 0:
            built = text
            command = "predict"
            code, text = self.run("predict", "request.json")
            text = "\n".join(part for part in (built, text) if part)
        return list(places), {"command": f"hostler {command}", "code": code, "text": text, "lines": list(places.values())}


def missing(project, plant, places, met):
    """Returns which of plugin, function and place the message lacks."""
    text, lacks = met["text"], []
    if met["code"] == 0:
        return ["error"]
    if project.name not in text:
        lacks.append("plugin")
    if plant.function is not None and not re.search(rf"\b{plant.function}\b", text):
        # A compiler shows the line itself.
        shows_line = met["command"] == "hostler build" and any(line and line in text for line in met["lines"])
        lacks += [] if shows_line else ["function"]
    # TypeScript writes `app.ts(3,5)`.
    shown = re.sub(r"(\.tsx?)\((\d+),\d+\)", r"\1:\2", text)
    if not (plant.key and plant.key in text) and not any(re.search(rf"{re.escape(place)}\b", shown) for place in places):
        lacks.append("line")
    return lacks


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("hostler", help="the program")
    parser.add_argument("--sdk", type=Path, help="a folder `sdk` of a working tree, in place of the program's SDKs")
    parser.add_argument("--folder", type=Path, help="where the projects are; kept. Default: a temporary folder")
    parser.add_argument("--language", action="append", choices=LANGUAGES, help="may be repeated; default: all")
    parser.add_argument("--only", action="append", help="the id of a mistake; may be repeated")
    parser.add_argument("--short", action="store_true", help="three mistakes for each language")
    parser.add_argument("--record", type=Path, help="a JSON file for the messages; what it has of others is kept")
    parser.add_argument("--show", action="store_true", help="prints each message")
    given = parser.parse_args()
    hostler = str(Path(given.hostler).absolute())
    folder = given.folder or Path(tempfile.mkdtemp(prefix="mistakes-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        failures = check(given, hostler, folder.absolute())
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


def check(given, hostler, folder):
    failures = count = 0
    print(f"{'mistake':20} {'language':8} {'met in':16} {'lacks':24} {'s':>5}")
    for language in given.language or LANGUAGES:
        project = Project(hostler, language, folder, given.sdk and given.sdk.absolute())
        try:
            for mistake in MISTAKES:
                if given.only and mistake.id not in given.only or given.short and not mistake.is_short:
                    continue
                plant, started = mistake.plants[language], time.monotonic()
                if plant.absent:
                    continue
                places, met = project.meet(plant)
                lacks = missing(project, plant, places, met)
                count += 1
                failures += bool(lacks)
                seconds = time.monotonic() - started
                print(f"{mistake.id:20} {language:8} {met['command']:16} {', '.join(lacks) or '-':24} {seconds:5.1f}",
                      flush=True)
                if given.show:
                    print("    " + met["text"].replace("\n", "\n    "))
                if given.record:
                    record(given.record, mistake.id, language, {**met, "lacks": lacks, "places": places})
        finally:
            project.restore()
    print(f"{count} messages, {failures} of them lack something")
    return failures


def record(path, mistake, language, met):
    known = json.loads(path.read_text()) if path.exists() else {}
    known.setdefault(mistake, {})[language] = met
    content = json.dumps(known, indent=1) + "\n"
    path.write_text(content)


if __name__ == "__main__":
    sys.exit(main())
