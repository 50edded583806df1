"""What a simulated GPU is and how much it has to do: models, their specification, and load as a function of time.

Load is made of waves whose integrals are known, so that energy at a moment follows from the moment alone: whoever
starts later sees the same counter, a little further on.
"""

import math
import random
from typing import NamedTuple

# Energy is counted from here, in seconds since 1970.
BEGIN = 1_767_225_600.0
_DAY = 86_400.0
# A GPU rests for so many seconds out of so many.
_REST, _ROUND = 4.0, 150.0


class Model(NamedTuple):
    """A GPU that can be bought.

    Attributes:
        name: as the driver writes it.
        mebibytes: of memory.
        watts: it may draw.
        idle_watts: it draws when idle.
        megahertz: of its multiprocessors, at most.
        memory_megahertz: of its memory.
        architecture: its generation.
        capability: its CUDA compute capability.
        brand: as the driver writes it.
        slowdown: degrees Celsius at which it slows down.
    """

    name: str
    mebibytes: int
    watts: float
    idle_watts: float
    megahertz: int
    memory_megahertz: int
    architecture: str
    capability: str
    brand: str = "Nvidia"
    slowdown: float = 87.0

    @property
    def data_centre(self) -> bool:
        """Whether it has what GPUs for data centres have: ECC, and no fan."""
        return self.brand != "GeForce"

    @property
    def mig(self) -> bool:
        """Whether it can be divided into instances."""
        return self.capability in {"8.0", "9.0", "10.0"}


MODELS: dict[str, Model] = {
    "b200": Model("NVIDIA B200", 183359, 1000, 140, 1965, 3996, "Blackwell", "10.0"),
    "h200": Model("NVIDIA H200", 143771, 700, 76, 1980, 3201, "Hopper", "9.0"),
    "h100": Model("NVIDIA H100 80GB HBM3", 81559, 700, 70, 1980, 2619, "Hopper", "9.0"),
    "a100": Model("NVIDIA A100-SXM4-80GB", 81920, 400, 56, 1410, 1593, "Ampere", "8.0"),
    "v100": Model("Tesla V100-SXM2-32GB", 32768, 300, 42, 1530, 877, "Volta", "7.0", "Tesla"),
    "l40s": Model("NVIDIA L40S", 46068, 350, 33, 2520, 9001, "Ada", "8.9"),
    "l4": Model("NVIDIA L4", 23034, 72, 12, 2040, 6251, "Ada", "8.9"),
    "a10": Model("NVIDIA A10", 23028, 150, 16, 1695, 6251, "Ampere", "8.6"),
    "t4": Model("Tesla T4", 15360, 70, 10, 1590, 5001, "Turing", "7.5", "Tesla"),
    "rtx4090": Model("NVIDIA GeForce RTX 4090", 24564, 450, 21, 3105, 10501, "Ada", "8.9", "GeForce"),
    "rtx3090": Model("NVIDIA GeForce RTX 3090", 24576, 350, 24, 2100, 9751, "Ampere", "8.6", "GeForce"),
}
MOST = 64  # GPUs


class Spec(NamedTuple):
    """What is simulated.

    Attributes:
        models: of the GPUs, in their order.
        shared: whether several services use each GPU.
        mig: whether the GPUs are divided into instances.
        lost: number of the GPU that is lost from time to time.
        seed: another one is another load.
    """

    models: tuple[Model, ...]
    shared: bool = False
    mig: bool = False
    lost: int | None = None
    seed: int = 0


def parse(text: str) -> Spec:
    """What a specification such as "h100x8,shared" or "h100x4,t4x2,lost=3,seed=7" says.

    Raises:
        ValueError: it cannot be; one sentence with the part that is wrong and what is known.
    """
    models: list[Model] = []
    numbers: dict[str, int] = {}
    flags: set[str] = set()
    for part in (one.strip().lower() for one in text.split(",")):
        key, equals, value = part.partition("=")
        if part in {"shared", "mig"}:
            flags.add(part)
        elif equals and key in {"lost", "seed"}:
            # isdecimal() is true of digits of all scripts, and int() reads them.
            if not value.isdecimal() or len(value) > 9:  # noqa: PLR2004
                raise ValueError(f"{part!r} expects a number from 0, for example {key}=3")
            numbers[key] = int(value)
        else:
            models += _models(part)
    if not models:
        raise ValueError(f"{text!r} names no GPU, expected for example h100x8; models are {', '.join(MODELS)}")
    if len(models) > MOST:
        raise ValueError(f"{text!r} asks for {len(models)} GPUs, at most {MOST} are simulated")
    lost = numbers.get("lost")
    if lost is not None and lost >= len(models):
        raise ValueError(f"'lost={lost}' is the number of no GPU, expected 0 to {len(models) - 1}")
    if "mig" in flags and not all(model.mig for model in models):
        known = ", ".join(name for name, model in MODELS.items() if model.mig)
        raise ValueError(f"'mig' needs GPUs that can be divided, which are {known}")
    return Spec(tuple(models), "shared" in flags, "mig" in flags, lost, numbers.get("seed", 0))


def _models(part: str) -> list[Model]:
    name, x, count = part.rpartition("x")
    if part in MODELS:
        name, count = part, "1"
    elif not x or name not in MODELS or not count.isdecimal() or len(count) > 4 or not int(count):  # noqa: PLR2004
        raise ValueError(
            f"{part!r} is not known, expected MODELxCOUNT with one of the models {', '.join(MODELS)}, "
            "or shared, mig, lost=NUMBER, seed=NUMBER"
        )
    return [MODELS[name]] * min(int(count), MOST + 1)


class Pulse(NamedTuple):
    """A smooth rise from 0 to 1 and back, once in each period.

    Attributes:
        period: in seconds.
        width: part of the period in which it is not 0.
        phase: part of the period by which it is early.
    """

    period: float
    width: float
    phase: float

    def at(self, time: float) -> float:
        """Its height."""
        place = (time / self.period + self.phase) % 1.0
        return (1 - math.cos(2 * math.pi * place / self.width)) / 2 if place < self.width else 0.0

    def integral(self, time: float) -> float:
        """Of its height, from a moment that is the same for all times."""
        whole, place = divmod(time / self.period + self.phase, 1.0)
        place = min(place, self.width)
        part = place / 2 - self.width / (4 * math.pi) * math.sin(2 * math.pi * place / self.width)
        return self.period * (whole * self.width / 2 + part)


class Load:
    """How much of a GPU one service uses: more by day than by night, with bursts of several lengths.

    Args:
        chance: decides about its bursts.
        weight: the most that it uses, 0 to 1.
    """

    __slots__ = ("_base", "_waves")

    def __init__(self, chance: random.Random, weight: float) -> None:
        base, day, burst, flutter = 0.10, 0.30, chance.uniform(0.25, 0.40), 0.15
        rest = 1 - base - day - burst - flutter
        self._base = weight * base
        self._waves = (
            (weight * day, Pulse(_DAY, 1.0, chance.uniform(-0.1, 0.1))),
            (weight * burst, Pulse(chance.uniform(40, 90), chance.uniform(0.3, 0.6), chance.random())),
            (weight * rest, Pulse(chance.uniform(300, 900), chance.uniform(0.4, 0.8), chance.random())),
            (weight * flutter, Pulse(chance.uniform(6, 14), 1.0, chance.random())),
        )

    def at(self, time: float) -> float:
        """What it uses, 0 to its weight."""
        return self._base + sum(height * pulse.at(time) for height, pulse in self._waves)

    def integral(self, time: float) -> float:
        """Seconds of the GPU that it used since a moment that is the same for all times."""
        return self._base * time + sum(height * pulse.integral(time) for height, pulse in self._waves)


def worked(time: float, phase: float) -> tuple[float, bool]:
    """For how many seconds a GPU that rests at times worked since `BEGIN`, and whether it works now.

    A GPU that never rests never shows what it draws when it is idle.

    Args:
        time: in seconds since 1970.
        phase: part of a round by which this GPU is early.
    """
    whole, place = divmod((time - BEGIN) / _ROUND + phase, 1.0)
    long = _ROUND - _REST
    return whole * long + min(place * _ROUND, long), place * _ROUND < long
