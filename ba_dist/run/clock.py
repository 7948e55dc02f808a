"""Where the time of training goes."""


class StepClock:
    """Units a second and seconds of waiting for input, warm-up apart.

    The first steps of a process build the graph; they do not count.

    Args:
        unit: what is counted, as the task says: images, tokens.
    """

    WARM_UP = 2

    def __init__(self, unit: str):
        self._unit = f"{unit}_per_second"
        self._steps = 0
        self._units = self._seconds = self._waited = 0.0
        self._recent: list[tuple[float, float, float]] = []

    def step(self, units: float, seconds: float, input_wait: float) -> None:
        """Counts one step of so many units, and seconds, some of which waited for input."""
        self._steps += 1
        if self._steps > self.WARM_UP:
            self._units += units
            self._seconds += seconds
            self._waited += input_wait
        self._recent.append((units, seconds, input_wait))

    def recent(self) -> dict[str, float]:
        """Units a second, and seconds a step waited for input, since this was last asked."""
        units, seconds, waits = (sum(column) for column in zip(*self._recent, strict=True))
        steps = len(self._recent)
        self._recent = []
        return {self._unit: units / max(seconds, 1e-9), "input_wait": waits / steps}

    def speed(self) -> dict[str, float]:
        """Units a second of all steps after warm-up; of none, 0."""
        return {self._unit: self._units / self._seconds if self._seconds else 0.0}

    def waited(self) -> float:
        """Share of the time after warm-up in which training waited for input."""
        return self._waited / self._seconds if self._seconds else 0.0
