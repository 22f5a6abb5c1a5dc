"""Memory between layers: keep it, instead of giving it back to the system and asking for it again."""

import ctypes
import sys

# Names and numbers of <malloc.h> of the GNU C library.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> bool:
    """Let the C library reuse freed memory, for this whole process; True where that can be done (glibc).

    Its default hands every large tensor back to the system when it is freed, and the next layer's tensor is then filled
    with new pages, one fault each. On large images this costs more than the arithmetic. Only commands of this project
    call it; a program of yours may, before its first large tensor.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    done = [mallopt(option, 2**31 - 1) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)]
    return all(done)
