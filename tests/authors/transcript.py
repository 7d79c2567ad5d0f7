"""Goes from nothing to a served plugin in each language and role, and prints the times.

    python3 tests/authors/transcript.py HOSTLER [--language rust]

Everything happens in a temporary folder, with the program and the tools of the languages. For each
project: `hostler new`, the first `hostler build` (which installs what the language needs), a build after
an edit, `hostler test`, `hostler dev` until the first answer, and an edit until the answer has changed.
"""

import argparse
import http.client
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROLES = {
    "rust": ("transformer", "model", "executor", "streaming-model"),
    "python": ("transformer", "model", "executor", "streaming-model"),
    "js": ("transformer", "model", "executor"),
    "ts": ("transformer", "model", "executor"),
    "go": ("transformer", "model", "executor"),
    "c": ("transformer", "model", "executor"),
}
SOURCE = {"rust": "src/lib.rs", "python": "app.py", "js": "app.js", "ts": "app.ts", "go": "app.go", "c": "app.c"}
PATIENCE_S = 600


def timed(*command, cwd):
    began = time.monotonic()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return time.monotonic() - began


class Dev:
    def __init__(self, hostler, folder):
        self.began = time.monotonic()
        command = [hostler, "dev", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines, self.port = [], None
        self.listening = threading.Event()
        threading.Thread(target=self.read, daemon=True).start()
        if not self.listening.wait(PATIENCE_S):
            sys.exit("hostler dev does not listen:\n" + "".join(self.lines))

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            found = re.search(r"listening http=\S+?:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                self.listening.set()

    def generation_is(self, number):
        """Returns once the host has loaded a policy with this number."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if any(f"generation={number}" in line for line in list(self.lines)):
                return
            time.sleep(0.02)
        sys.exit(f"no generation {number}:\n" + "".join(self.lines))

    def answer(self, path, body):
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port)
                connection.request("POST", path, body)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status == 200:
                    return text
            except OSError:
                pass
            time.sleep(0.02)
        sys.exit("no answer:\n" + "".join(self.lines))

    def stop(self):
        self.process.terminate()
        self.process.wait()


def project(hostler, language, role, folder):
    name = f"{language}-{role}"
    times = [timed(hostler, "new", language, role, name, cwd=folder)]
    path = folder / name
    times.append(timed(hostler, "build", cwd=path))
    source = path / SOURCE[language]
    text = source.read_text()
    comment = "#" if language == "python" else "//"
    source.write_text(f"{text}\n{comment} An edit.\n")
    times.append(timed(hostler, "build", cwd=path))
    times.append(timed(hostler, "test", cwd=path))
    dev = Dev(hostler, path)
    request = ("/predict/stream" if role == "streaming-model" else "/predict", (path / "request.json").read_text())
    try:
        dev.answer(*request)
        times.append(time.monotonic() - dev.began)
        change = edited(text)
        saved = time.monotonic()
        source.write_text(change)
        dev.generation_is(2)
        dev.answer(*request)
        times.append(time.monotonic() - saved)
    finally:
        dev.stop()
    return times


def edited(text):
    """Returns the source with another number, the name of another metric, or other words in a message."""
    if '"again"' in text:
        return text.replace('"again"', '"anew"')
    factor = re.search(r"\b2(\.0)?(?= ?\*)|(?<=\* )2\b|(?<=\*= )2\b", text)
    if factor:
        return text[: factor.start()] + "3" + text[factor.start() + 1:]
    message = re.search(r"""["']([a-z][a-z ,]{8,})["']""", text)
    if message is None:
        sys.exit(f"nothing to edit in:\n{text}")
    return text[: message.start(1)] + "z" + text[message.start(1):]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hostler", type=Path)
    parser.add_argument("--language")
    arguments = parser.parse_args()
    hostler = arguments.hostler.resolve()
    print("| project | new | first build | build after an edit | test | dev, to the first answer | edit, to the new answer |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for language, roles in ROLES.items():
            if arguments.language not in (None, language):
                continue
            for role in roles:
                times = project(hostler, language, role, Path(folder))
                print(f"| {language} {role} | " + " | ".join(f"{seconds:.1f} s" for seconds in times) + " |", flush=True)


if __name__ == "__main__":
    main()
