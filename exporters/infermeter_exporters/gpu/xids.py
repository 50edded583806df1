"""Errors that the driver reports by number, and who is to blame for them."""

# XIDs that are shown at 0 before they come, so that `increase()` sees the first one, by what is to be done about them.
CLASSES: dict[int, str] = {
    # A process did something wrong: the GPU is as good as before.
    13: "application",
    31: "application",
    43: "application",
    45: "application",
    68: "application",
    109: "application",
    # The memory or the board is failing.
    48: "hardware",
    62: "hardware",
    63: "hardware",
    64: "hardware",
    74: "hardware",
    79: "hardware",
    92: "hardware",
    94: "hardware",
    95: "hardware",
    140: "hardware",
    # The firmware or the driver stopped.
    61: "driver",
    69: "driver",
    119: "driver",
    120: "driver",
    154: "driver",
}


def class_of(code: int) -> str:
    """The value of the label `class` for an XID; `other` for one that is in no list."""
    return CLASSES.get(code, "other")
