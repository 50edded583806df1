"""What the library raises.

    ValueError
    └── ConfigError     an option, a name, a port or a registry that cannot work; raised where it was given

Nothing else is raised: whatever goes wrong while a call is recorded is logged once per kind and counted in
`infermeter_observations_dropped_total` (with `INFERMETER_STRICT=1` it is raised, for tests).
"""


class ReenteredError(Exception):
    """A signal handler wants a shared row while the thread that it interrupted makes one; never leaves the library."""


class DamagedError(Exception):
    """A file that is not as it was written; the message says what is wrong."""


class ConfigError(ValueError):
    """An option that cannot work; the message names the value and what was expected."""
