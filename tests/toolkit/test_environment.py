from __future__ import annotations

import pytest

from orbtrio.toolkit.environment import engine_environment


def test_et_49_platform_variables_stay_here() -> None:
    ours = {
        "PATH": "/bin",
        "AIWARE_REDIS_HOST": "redis",
        "aiware_x": "1",
        "VERITONE_WEBHOOK_PROCESS": "http://x",
    }
    assert engine_environment(ours) == {
        "PATH": "/bin",
        "aiware_x": "1",
        "VERITONE_WEBHOOK_PROCESS": "http://x",
    }


@pytest.mark.parametrize("listed", ["AIWARE_BUILD_ID,AIWARE_xyz", " AIWARE_BUILD_ID , ,AIWARE_xyz,"])
def test_et_50_white_list_is_of_exact_names(listed: str) -> None:
    ours = {"AIWARE_ENV_WHITE_LIST": listed, "AIWARE_BUILD_ID": "b", "AIWARE_xyz": "z", "AIWARE_xyz2": "no"}
    assert engine_environment(ours) == {"AIWARE_BUILD_ID": "b", "AIWARE_xyz": "z"}


def test_et_51_controller_is_always_on_the_list() -> None:
    expected = {"AIWARE_CONTROLLER": "http://c"}
    assert engine_environment({"AIWARE_CONTROLLER": "http://c"}) == expected
    # A flag names another than the environment does.
    assert engine_environment({"AIWARE_CONTROLLER": "http://d"}, "http://c") == expected
    assert engine_environment({}, "http://c") == expected


@pytest.mark.parametrize(
    "name", ["WORKER_SECRET", "CLIENT_TOKEN", "CLIENT_TOKENS", "AIWARE_CONTROLLER_TOKEN"]
)
def test_secrets_stay_here_whatever_the_list_says(name: str) -> None:
    assert name not in engine_environment({"AIWARE_ENV_WHITE_LIST": name, name: "secret"})


def test_et_57_runner_of_node_red_finds_its_flow_and_plugins() -> None:
    flow = {"AIWARE_BUILD_RUNTIME": "/cache/runtime.json", "AIWARE_AUTOMATE_SHARE_FOLDER": "/plugins"}
    assert engine_environment({**flow, "AIWARE_OTHER": "1"}) == flow


def test_et_58_nothing_is_added_for_other_engines() -> None:
    assert engine_environment({"AIWARE_AUTOMATE_SHARE_FOLDER": "/plugins"}) == {}
