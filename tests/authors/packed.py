"""Builds a plugin with the SDK of the program, and again with the packed SDK, and compares the answers.

    python3 tests/authors/packed.py HOSTLER TARGET

TARGET is the target folder of this repository, where `cargo xtask test` has packed the SDKs in
Rust, Python and JavaScript. The exit code is 1 if an answer differs.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VALUES = [41, 0.1, -3, 1e10, 16777217, "a text", None, [1], {"value": 1}]


def run(*command, cwd, fails=False):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0 and not fails:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done


def answers(hostler, folder):
    """Returns what the plugin of a project answers: the result, or the last line of the error."""
    seen = []
    for value in VALUES:
        (folder / "asked.json").write_text(json.dumps({"model": "plus", "data": {"value": value}}))
        done = run(hostler, "predict", "asked.json", cwd=folder, fails=True)
        seen.append(done.stdout if done.returncode == 0 else done.stderr.strip().splitlines()[-1])
    return seen


def take_packed(language, folder, target):
    """Replaces the SDK of a project by the packed one, and builds again."""
    version = "0.1.0"
    if language == "rust":
        with tarfile.open(target / f"package/hostler-plugin-{version}.crate") as crate:
            crate.extractall(folder / "packed", filter="data")
        cargo = folder / "Cargo.toml"
        packed = f"packed/hostler-plugin-{version}"
        cargo.write_text(cargo.read_text().replace('path = "sdk"', f'path = "{packed}"'))
        assert packed in cargo.read_text()
    elif language == "python":
        wheel = target / f"dist/hostler_plugin-{version}-py3-none-any.whl"
        run(".venv/bin/python", "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", wheel,
            cwd=folder)
    else:
        run("npm", "install", "--no-audit", "--no-fund", "--loglevel=error",
            target / f"dist/hostler-plugin-{version}.tgz", cwd=folder)


def main():
    hostler, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    differ = 0
    with tempfile.TemporaryDirectory() as root:
        for language in ("rust", "python", "js"):
            folder = Path(root) / f"my-{language}"
            run(hostler, "new", language, "transformer", folder.name, cwd=root)
            run(hostler, "build", cwd=folder)
            before = answers(hostler, folder)
            take_packed(language, folder, target)
            run(hostler, "build", cwd=folder)
            after = answers(hostler, folder)
            same = sum(one == other for one, other in zip(before, after))
            print(f"{language}: {same} of {len(VALUES)} answers are the same bytes, such as {before[0].strip()} and {before[5]}")
            differ += same != len(VALUES)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
