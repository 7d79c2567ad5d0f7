"""`python -m hostler_build`, and the command `hostler-build`."""

import argparse
import os
import sys

from . import BuildError, build


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="hostler-build", description="Builds a plugin of Hostler in Python: a WebAssembly component."
    )
    parser.add_argument("source", nargs="?", default="app.py", help="the module with the role; default: app.py")
    parser.add_argument("-o", "--output", help="the component; default: the name of the source, with .wasm")
    parser.add_argument("--wit", help="the contract, as `hostler wit FOLDER` writes it; default: wit or sdk/wit")
    parser.add_argument("--path", action="append", default=[], help="a folder of installed packages; may be repeated")
    parser.add_argument("--world", help="the WIT world; default: chosen by what the source defines and imports")
    given = parser.parse_args(arguments)
    output = given.output or os.path.splitext(os.path.basename(given.source))[0] + ".wasm"
    try:
        role, printed = build(given.source, output, given.wit, given.path, given.world)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        for line in error.mend.splitlines():
            print(f"  {line}", file=sys.stderr)
        return 1
    if printed.strip():
        print(printed.rstrip())
    size = os.path.getsize(output) / (1 << 20)
    print(f"{output}: {size:.1f} MiB, role {role.name}, world {role.world}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
