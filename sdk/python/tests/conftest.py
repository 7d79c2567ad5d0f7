"""Makes the tests run in a clone, without an installation."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
SDK = str(Path(__file__).parent.parent)
if SDK not in sys.path:
    sys.path.insert(0, SDK)

pytest_plugins = ["hostler_testing.pytest_plugin"]
