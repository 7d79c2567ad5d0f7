"""A build that cannot succeed."""


class BuildError(Exception):
    """What was attempted and why it failed, and in `mend` what to do about it."""

    def __init__(self, message, mend=""):
        super().__init__(message)
        self.mend = mend


def did_you_mean(name, known):
    """Returns ` (did you mean X?)` if one of the known names is close to `name`, else nothing."""
    import difflib

    lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.7)
    return f" (did you mean `{lower[close[0]]}`?)" if close and lower[close[0]] != name else ""
