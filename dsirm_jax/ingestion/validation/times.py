"""Times as tables write them."""

from __future__ import annotations

import datetime
import functools
import math


@functools.lru_cache(maxsize=4096)
def seconds(text: str) -> float | None:
    """Returns a time as a number: seconds since 1970 of ISO 8601, of UTC where it names no zone."""
    try:
        number = float(text)
        return number if math.isfinite(number) else None
    except ValueError:
        pass
    try:
        time = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()
