"""The folder of the contract."""

import os
import re

from ._errors import BuildError, did_you_mean
from ._world import STREAMING_WORLD

_SDK = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def find_wit(given):
    """Returns the folder of the contract."""
    beside = [os.path.join(_SDK, "wit"), os.path.join(os.path.dirname(os.path.dirname(_SDK)), "wit")]
    candidates = [given] if given else ["wit", "sdk/wit", *beside]
    for folder in candidates:
        if os.path.isfile(os.path.join(folder, "hostler.wit")):
            return folder
    where = f"{given} has no hostler.wit" if given else "this folder has no wit/hostler.wit"
    raise BuildError(f"cannot find the contract: {where}", "write it with: hostler wit wit")


def check_world(wit, world):
    """Refuses a world that the contract does not have."""
    with open(os.path.join(wit, "hostler.wit"), encoding="utf-8") as file:
        worlds = re.findall(r"^world ([a-z-]+) \{", file.read(), re.MULTILINE)
    worlds = [name for name in worlds if name.endswith("-plugin")] + [STREAMING_WORLD]
    if world not in worlds and "/" not in world:
        raise BuildError(
            f"cannot build for the world {world}: {wit} has no such world{did_you_mean(world, worlds)}",
            f"the worlds of plugins are {', '.join(worlds)}",
        )


def wit_arguments(wit, world):
    """Returns the arguments of componentize-py for the contract."""
    streaming = os.path.join(wit, "async")
    if world != STREAMING_WORLD:
        return ["-d", wit]
    if not os.path.isdir(streaming):
        raise BuildError(f"cannot find the contract of streaming models: there is no folder {streaming}",
                         "write it with: hostler wit wit")
    # The second one refers to the first one.
    return ["-d", wit, "-d", streaming]
