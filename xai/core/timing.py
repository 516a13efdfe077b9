"""What took how long, for whoever waited."""

import time

from rich.markup import escape

from xai.core.progress import console

STARTED = time.perf_counter()
"""When this module was imported: about when the process began, where the command line imports it first."""


class Stopwatch:
    """Seconds by what was done in them, from the beginning of the process on."""

    def __init__(self) -> None:
        self._last = STARTED
        self._laps: dict[str, float] = {}

    def lap(self, what: str) -> None:
        """What was done since the last call."""
        now = time.perf_counter()
        self._laps[what] = self._laps.get(what, 0.0) + now - self._last
        self._last = now

    def tell(self) -> None:
        """One line of all of them."""
        parts = [f"{what} {seconds:.1f} s" for what, seconds in self._laps.items() if seconds >= 0.05]
        whole = sum(self._laps.values())
        console.print(escape(f"time: {', '.join(parts)}; {whole:.0f} s in all"), highlight=False, soft_wrap=True)
