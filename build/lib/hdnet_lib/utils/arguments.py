"""Options of commands and scripts."""

import argparse
from collections.abc import Callable


def at_least(lowest: int) -> Callable[[str], int]:
    """For ``type=`` of an option: a whole number that is not below ``lowest``."""

    def parse(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {lowest}, not {text!r}.")
        return int(text)

    return parse
