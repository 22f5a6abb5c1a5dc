"""The one way in which this library words the errors of others."""


def reason(error: Exception) -> str:
    """The first line of an error's message without its full stop, or the error's type where it has none."""
    return str(error).split("\n")[0].strip().rstrip(".:") or type(error).__name__
