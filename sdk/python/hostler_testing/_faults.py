"""What a test gets when a plugin violates the contract."""


class Trap(BaseException):
    """The host would end the instance here: it would be a trap, or a value that componentize-py
    cannot pass on. A plugin cannot catch it, so it is no `Exception`."""

    is_trap = True


class ModelFault(Trap):
    """The function of the test that answers calls to a model has a fault. The cause has its
    exception."""


class ContractError(AssertionError):
    """The plugin returned something that the host refuses. The client would receive 500, with the
    name of the plugin."""
