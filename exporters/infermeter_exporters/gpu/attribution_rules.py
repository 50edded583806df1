r"""Rules of the user that name services: part of the configuration file.

attribution:
  - match:                      # all of these must fit, each the whole of what it is about
      namespace: ml-(.*)
      container: (?P<what>face|object)-.*
    service: '{what}-\1'        # \1 is the first group of the first of match that has groups, {what} one by its name
    tests:                      # checked when the file is read
      - {given: {namespace: ml-prod, container: face-7}, service: face-prod}
      - {given: {namespace: web, container: face-7}, service: null}

The first rule that fits counts; what it gives is the service, before all that a process says itself.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from infermeter_exporters.errors import ConfigError
from infermeter_exporters.gpu.cgroups import LONGEST

# What a rule can be about; what is not known of a process is empty.
SUBJECTS = (
    "container",
    "image",
    "compose_project",
    "compose_service",
    "namespace",
    "pod",
    "workload",
    "unit",
    "slurm_job",
    "machine",
    "process",
    "user",
)
_KEYS = ("match", "service", "tests")
_REFERENCE = re.compile(r"\\([1-9])|\{([A-Za-z_]\w*)\}")
_RESERVED = "_"


class Rule(NamedTuple):
    """A name for processes.

    Attributes:
        match: subjects and the patterns that the whole of each must fit.
        service: the name, with references to groups.
    """

    match: Sequence[tuple[str, re.Pattern[str]]]
    service: str

    def name(self, facts: Mapping[str, str]) -> str | None:
        """The service of a process; None if the rule does not fit, or gives no name.

        Args:
            facts: values of `SUBJECTS`; of each the first 256 characters count.
        """
        numbered: tuple[str | None, ...] = ()
        named: dict[str, str] = dict(facts)
        for subject, pattern in self.match:
            found = pattern.fullmatch(facts.get(subject, "")[:LONGEST])
            if found is None:
                return None
            numbered = numbered or found.groups()
            named.update((key, value or "") for key, value in found.groupdict().items())
        name = _REFERENCE.sub(
            lambda one: (numbered[int(one[1]) - 1] or "") if one[1] else named.get(one[2], ""), self.service
        )
        return name.strip().lstrip(_RESERVED)[:LONGEST] or None


def named(rules: Sequence[Rule], facts: Mapping[str, str]) -> str | None:
    """What the first rule that fits gives; None if none does."""
    return next((name for rule in rules if (name := rule.name(facts)) is not None), None)


def rules(data: object, where: str) -> list[Rule]:
    """The rules in a part of a configuration file.

    Args:
        data: as YAML gives it.
        where: the file and the key, for messages.

    Raises:
        ConfigError: something in it cannot work, or an example does not come out as it says.
    """
    if not isinstance(data, list):
        raise ConfigError(f"{where} is {data!r}, expected a list of match and service")
    return [_rule(one, f"{where}[{place}]") for place, one in enumerate(data)]


def _rule(data: object, where: str) -> Rule:
    found = _mapping(data, where, _KEYS)
    if "match" not in found or "service" not in found:
        lacking = "match" if "match" not in found else "service"
        raise ConfigError(f"{where} has no {lacking}, expected a match and the service that it gives")
    patterns = _mapping(found["match"], f"{where}.match", SUBJECTS)
    if not patterns:
        raise ConfigError(f"{where}.match is empty, expected at least one of {', '.join(SUBJECTS)}")
    rule = Rule(
        tuple((subject, _pattern(text, f"{where}.match.{subject}")) for subject, text in patterns.items()),
        _template(found["service"], patterns, f"{where}.service"),
    )
    tests = found.get("tests")
    if tests is not None and not isinstance(tests, list):
        raise ConfigError(f"{where}.tests is {tests!r}, expected a list of given and service")
    for place, one in enumerate(tests or ()):
        _test(rule, one, f"{where}.tests[{place}]")
    return rule


def _mapping(found: object, where: str, keys: Sequence[str]) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ConfigError(f"{where} is {found!r}, expected a mapping with {', '.join(keys)}")
    for key in found:
        if key not in keys:
            raise ConfigError(f"{where} has the key {key!r}, expected {', '.join(keys)}")
    return found


def _pattern(text: object, where: str) -> re.Pattern[str]:
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)  # YAML reads the number of a job as a number
    if not isinstance(text, str):
        raise ConfigError(f"{where} is {text!r}, expected a regular expression")
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"{where} is {text!r}, expected a regular expression: {error}") from error


def _template(text: object, patterns: Mapping[str, object], where: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"{where} is {text!r}, expected a name")
    if text.startswith(_RESERVED):
        raise ConfigError(f"{where} is {text!r}, expected a name that does not begin with an underscore")
    if len(text) > LONGEST:
        raise ConfigError(f"{where} has {len(text)} characters, expected at most {LONGEST}")
    compiled = [re.compile(str(pattern)) for pattern in patterns.values()]
    groups = next((one.groups for one in compiled if one.groups), 0)
    names = {*SUBJECTS, *(name for one in compiled for name in one.groupindex)}
    for reference in _REFERENCE.finditer(text):
        if reference[1] and int(reference[1]) > groups:
            raise ConfigError(f"{where} is {text!r}, expected references to groups of match, which has {groups}")
        if reference[2] and reference[2] not in names:
            raise ConfigError(
                f"{where} is {text!r}, expected the name of a group or subject, {reference[2]!r} is neither"
            )
    return text


def _test(rule: Rule, data: object, where: str) -> None:
    test = _mapping(data, where, ("given", "service"))
    if "given" not in test or "service" not in test:
        lacking = "given" if "given" not in test else "service"
        raise ConfigError(f"{where} has no {lacking}, expected what is given and the service that must come out")
    given = _mapping(test["given"], f"{where}.given", SUBJECTS)
    for subject, value in given.items():
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise ConfigError(f"{where}.given.{subject} is {value!r}, expected a string")
    expected = test["service"]
    if expected is not None and not isinstance(expected, str):
        raise ConfigError(f"{where}.service is {expected!r}, expected a name, or null where the rule must not fit")
    name = rule.name({subject: str(value) for subject, value in given.items()})
    if name != expected:
        raise ConfigError(f"{where}.service is {expected!r}, but the rule gives {name!r}")
