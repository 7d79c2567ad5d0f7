"""Unit tests of plugins, without a host and without WebAssembly.

Importing this module makes `import hostler_plugin` work in plain Python: it provides stand-ins for
the modules that componentize-py generates. A test creates a `Host`, which calls the plugin as the
real host does and answers its host calls from memory:

    import hostler_testing

    def test_doubles():
        host = hostler_testing.Host("app.py")
        [y] = host.predict({"x": [1.0, 2.0]})
        assert hostler_testing.values([y]) == {"y": [2.0, 4.0]}

An error of the contract that the plugin raises is an `Err`, as the client would receive it. What
the host would refuse is a `ContractError`, and what would end the instance is a `Trap`. Time is
simulated: sleeps and slow models take no time, and `host.now` has the seconds that passed.
"""

import os
import sys

_WORLD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "world")
if _WORLD not in sys.path:
    # Before all other folders: stubs for editors, made by `componentize-py bindings`, have the same
    # names and no behaviour.
    sys.path.insert(0, _WORLD)

from ._faults import ContractError, ModelFault, Trap  # noqa: E402
from ._host import Host, raises, values  # noqa: E402
from ._models import Model, ModelCall  # noqa: E402
from ._request import RequestData  # noqa: E402

__all__ = ["ContractError", "Host", "Model", "ModelCall", "ModelFault", "RequestData", "Trap", "raises", "values"]
