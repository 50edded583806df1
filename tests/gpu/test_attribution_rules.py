"""Rules that name services: what they give, and one sentence for what cannot work."""

from __future__ import annotations

import re
from typing import Any

import pytest

from infermeter_exporters.errors import ConfigError
from infermeter_exporters.gpu.attribution_rules import named, rules

RULES: list[Any] = [
    {
        "match": {"namespace": "ml-(.*)", "container": "(?P<what>face|object)-.*"},
        "service": r"{what}-\1",
        "tests": [
            {"given": {"namespace": "ml-prod", "container": "face-7"}, "service": "face-prod"},
            {"given": {"namespace": "web", "container": "face-7"}, "service": None},
        ],
    },
    {"match": {"slurm_job": 42, "user": "ann"}, "service": "job {slurm_job} of {user}"},
    {"match": {"unit": "(_?)(.*)@.*"}, "service": r"\1\2"},
    {"match": {"compose_service": "face"}, "service": "{compose_project}"},
    {"match": {"process": "face.*"}, "service": "face"},
]


@pytest.mark.parametrize(
    ("facts", "service"),
    [
        ({"namespace": "ml-prod", "container": "object-1"}, "object-prod"),
        ({"namespace": "ml-prod", "container": "objects"}, None),
        ({"slurm_job": "42", "user": "ann"}, "job 42 of ann"),
        ({"slurm_job": "421", "user": "ann"}, None),
        ({"unit": "_idle@1.service"}, "idle"),
        ({"compose_service": "face", "compose_project": "shop"}, "shop"),
        ({"compose_service": "face", "process": "faces"}, "face"),
        ({"process": "face" + "x" * 1000}, "face"),
        ({}, None),
    ],
)
def test_names(facts: dict[str, str], service: str | None) -> None:
    """All of a match must fit wholly; the first rule that gives a name counts."""
    assert named(rules(RULES, "f"), facts) == service


def test_no_rules() -> None:
    """Nothing is named by nothing."""
    assert rules([], "f") == []
    assert named([], {"process": "face"}) is None


ONE = {"process": "(.*)"}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "f is {}, expected a list of match and service"),
        (["face"], "f[0] is 'face', expected a mapping with match, service, tests"),
        ([{"match": ONE}], "f[0] has no service, expected a match and the service that it gives"),
        ([{"service": "a"}], "f[0] has no match, expected a match and the service that it gives"),
        ([{"match": ONE, "service": "a", "if": 1}], "f[0] has the key 'if', expected match, service, tests"),
        ([{"match": {}, "service": "a"}], "f[0].match is empty, expected at least one of container, image"),
        ([{"match": {"pid": "1"}, "service": "a"}], "f[0].match has the key 'pid', expected container, image"),
        ([{"match": {"pod": "("}, "service": "a"}], "f[0].match.pod is '(', expected a regular expression: missing )"),
        ([{"match": {"pod": True}, "service": "a"}], "f[0].match.pod is True, expected a regular expression"),
        ([{"match": ONE, "service": ""}], "f[0].service is '', expected a name"),
        ([{"match": ONE, "service": 3}], "f[0].service is 3, expected a name"),
        ([{"match": ONE, "service": "_a"}], "f[0].service is '_a', expected a name that does not begin with an under"),
        ([{"match": ONE, "service": "a" * 257}], "f[0].service has 257 characters, expected at most 256"),
        (
            [{"match": ONE, "service": r"\2"}],
            r"f[0].service is '\\2', expected references to groups of match, which ha",
        ),
        ([{"match": ONE, "service": "{b}"}], "expected the name of a group or subject, 'b' is neither"),
        ([{"match": ONE, "service": "a", "tests": {}}], "f[0].tests is {}, expected a list of given and service"),
        (
            [{"match": ONE, "service": "a", "tests": [{"given": {}}]}],
            "f[0].tests[0] has no service, expected what is given and the service that must come out",
        ),
        (
            [{"match": ONE, "service": "a", "tests": [{"given": {"pod": []}, "service": "a"}]}],
            "f[0].tests[0].given.pod is [], expected a string",
        ),
        (
            [{"match": ONE, "service": "a", "tests": [{"given": {}, "service": 1}]}],
            "f[0].tests[0].service is 1, expected a name, or null where the rule must not fit",
        ),
        (
            [{"match": ONE, "service": r"\1", "tests": [{"given": {"process": "face"}, "service": "faces"}]}],
            "f[0].tests[0].service is 'faces', but the rule gives 'face'",
        ),
    ],
)
def test_mistakes(data: object, sentence: str) -> None:
    """Each is one sentence: where, what is there, what was expected."""
    with pytest.raises(ConfigError, match=re.escape(sentence)) as raised:
        rules(data, "f")
    assert "\n" not in str(raised.value)
