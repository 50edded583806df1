"""What exporters raise.

ValueError
└── ConfigError     a file, key or flag that cannot work: one sentence with the file, the key, the value and what was
                    expected; the command prints it and exits with 2
"""


class ConfigError(ValueError):
    """A setting that cannot work; the message names file, key, value and what was expected."""
