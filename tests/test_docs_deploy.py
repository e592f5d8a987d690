"""The samples for platforms: what they copy is there, what they run can be run.

No image is built here: that would need a Docker engine, and what it does is what
test_packaging.py does without one.
"""

from __future__ import annotations

import fnmatch
import json
import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.commands import unknown
from tests.pages import ROOT
from worker.duration import parse_duration

DOCKER = ROOT / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def instructions(name: str) -> list[str]:
    """The instructions of the Dockerfile with that name; continued lines in one."""
    text = (DOCKER / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    found = [line.partition(" ") for line in text.splitlines() if not line.startswith("#")]
    return [rest.strip() for word, _, rest in found if word == name]


def services(file: str) -> Any:
    return yaml.safe_load((DOCKER / file).read_text("utf-8"))["services"]


def copied() -> list[str]:
    words = [line.split() for line in instructions("COPY") if "--from" not in line]
    return [source for line in words for source in line[:-1]]


def test_the_image_copies_what_is_there() -> None:
    assert copied()
    for source in copied():
        assert (ROOT / source).exists(), source


def test_and_its_context_holds_it() -> None:
    """.dockerignore leaves out everything that it does not name."""
    ignore = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert ignore[0] == "*"
    kept = [line[1:] for line in ignore if line.startswith("!")]
    for source in copied():
        assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), source
    assert sorted(kept) == sorted(copied())


def test_the_image_installs_extras_that_exist() -> None:
    [extras] = [
        found[1] for line in instructions("RUN") if (found := re.search(r"\[(.+?)\]", line))
    ]
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_the_worker_is_process_1_and_not_root() -> None:
    """In the form of a list, which no shell runs: a shell would keep the signals to itself."""
    [entry], [command] = instructions("ENTRYPOINT"), instructions("CMD")
    assert json.loads(entry) == ["worker"]
    assert "worker" in PROJECT["scripts"]
    assert unknown(["worker", *json.loads(command)]) is None
    [user] = instructions("USER")
    assert user not in ("root", "0")
    assert any(f" {user}" in line for line in instructions("RUN") if "useradd" in line)
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize("name", ["migrate", "worker"])
def test_compose(name: str) -> None:
    one = services("compose.yaml")[name]
    assert unknown(["worker", *one["command"]]) is None
    assert (DOCKER / one["build"]["context"] / one["build"]["dockerfile"]).exists()
    for volume in one["volumes"]:
        assert (DOCKER / volume.split(":")[0]).is_file()
    grace = parse_duration(one["environment"]["DUEROW_GRACE"])
    if "stop_grace_period" in one:
        assert grace < parse_duration(one["stop_grace_period"])


def test_render() -> None:
    [one] = services("render.yaml")
    for key in ("preDeployCommand", "startCommand"):
        assert unknown(one[key].split()) is None
    said = {variable["key"]: variable.get("value") for variable in one["envVars"]}
    assert parse_duration(said["DUEROW_GRACE"]) < one["maxShutdownDelaySeconds"] <= 300


def test_the_procfile() -> None:
    lines = (ROOT / "Procfile").read_text("utf-8").splitlines()
    told = dict(line.split(": ") for line in lines)
    assert set(told) == {"release", "worker"}
    for typed in told.values():
        assert unknown(typed.split()) is None
