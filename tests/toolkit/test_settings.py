from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from orbtrio.errors import ConfigError
from orbtrio.toolkit import settings as toolkit_settings_module
from orbtrio.toolkit.settings import ToolkitSettings, load

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NEEDED = {
    "ENGINE_ID": "words",
    "WORKER_SECRET": "very secret",
    "VERITONE_WEBHOOK_PROCESS": "http://0.0.0.0:8888/process",
}


def test_what_an_image_sets_is_enough() -> None:
    settings = load(
        ["/engine", "--port", "8888"], {**NEEDED, "VERITONE_WEBHOOK_READY": "http://0.0.0.0:8888/ready"}
    )
    assert settings.command == ("/engine", "--port", "8888")
    assert settings.worker.worker_type == "et:words"
    assert settings.process_url == "http://0.0.0.0:8888/process"
    assert settings.ready_url == "http://0.0.0.0:8888/ready"
    assert settings.concurrency == 1


def test_options_end_where_the_program_begins() -> None:
    settings = load(["--engine-id", "mine", "--", "node", "main.js", "--console"], NEEDED)
    assert (settings.engine_id, settings.command, settings.console) == (
        "mine",
        ("node", "main.js", "--console"),
        False,
    )


def test_et_60_id_comes_from_flag_environment_or_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"engineId": "from-manifest"}')
    nameless = {name: value for name, value in NEEDED.items() if name != "ENGINE_ID"}
    for argv, environ, expected in (
        (["--engine-id", "flag", "x"], NEEDED, "flag"),
        (["x"], NEEDED, "words"),
        (["x"], {**nameless, "ENGINE_IDS": "one, two"}, "one"),
        (["x"], nameless, "from-manifest"),
    ):
        assert load(argv, environ, manifest=manifest).engine_id == expected


@pytest.mark.parametrize("content", ['{"engineId": 5}', "[]", '{"engineId": ""}'])
def test_manifest_without_an_id_is_none(tmp_path: Path, content: str) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(content)
    with pytest.raises(ConfigError, match="set ENGINE_ID or use --engine-id"):
        load(["x"], {**NEEDED, "ENGINE_ID": ""}, manifest=manifest)


def test_manifest_that_is_broken_is_named(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text("{")
    with pytest.raises(ConfigError, match=re.escape(str(manifest))):
        load(["x"], {**NEEDED, "ENGINE_ID": ""}, manifest=manifest)


@pytest.mark.parametrize(
    ("argv", "changes", "message"),
    [
        ([], {}, "name its program"),
        (["x"], {"VERITONE_WEBHOOK_PROCESS": ""}, "VERITONE_WEBHOOK_PROCESS.*expected one"),
        (["x"], {"VERITONE_WEBHOOK_PROCESS": "localhost/process"}, "expected a whole URL.*localhost"),
        (
            ["x"],
            {"VERITONE_WEBHOOK_READY": "http://[::1/ready"},
            "VERITONE_WEBHOOK_READY.*expected a whole URL",
        ),
        (["x"], {"VERITONE_CONCURRENT_TASKS": "0"}, "VERITONE_CONCURRENT_TASKS.*from 1"),
        (["x"], {"WORKER_SECRET": ""}, "WORKER_SECRET is not set"),
        (["x"], {"AIWARE_REDIS_HOST": "redis"}, "set both or neither"),
        (["x"], {"AIWARE_REDIS_PORT": "6379"}, "set both or neither"),
        (["x"], {"AIWARE_REDIS_HOST": "redis", "AIWARE_REDIS_PORT": "70000"}, "expected a port"),
        (["--no-such-flag", "x"], {}, "no-such-flag"),
    ],
)
def test_what_cannot_work_is_named(argv: list[str], changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(argv, {**NEEDED, **changes})


def test_et_138_redis_needs_host_and_port() -> None:
    assert load(["x"], NEEDED).redis is None
    environ = {**NEEDED, "AIWARE_REDIS_HOST": "redis", "AIWARE_REDIS_PORT": "6379"}
    assert load(["x"], environ).redis == ("redis", 6379)


def test_worker_type_of_the_shell_means_nothing() -> None:
    settings = load(["x"], {**NEEDED, "WORKER_TYPE": "embedding", "SERVER_URL": "ws://elsewhere:5000/ws"})
    assert (settings.worker.worker_type, settings.worker.server_url) == ("et:words", "ws://elsewhere:5000/ws")


def test_directories_are_below_the_volume_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for volume, expected in ((tmp_path, tmp_path), (tmp_path / "none", None)):
        monkeypatch.setattr(toolkit_settings_module, "_CACHE", volume)
        found = load(["x"], NEEDED).cache_directory
        assert found == expected or (expected is None and "orbtrio-toolkit" in found.name)


def test_secrets_are_in_no_repr() -> None:
    shown = repr(load(["x"], {**NEEDED, "AIWARE_CONTROLLER_TOKEN": "also secret"}))
    assert "secret" not in shown


def test_help_names_every_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        load(["--help"], {})
    assert exit.value.code == 0
    shown = capsys.readouterr().out
    for name in ("ENGINE_ID", "VERITONE_WEBHOOK_READY", "SERVER_URL", "WORKER_SECRET", "AIWARE_REDIS_HOST"):
        assert name in shown


def test_one_may_be_made_by_hand(toolkit_settings: Callable[..., ToolkitSettings]) -> None:
    assert toolkit_settings(concurrency=3).concurrency == 3
    with pytest.raises(ConfigError, match="ENGINE_ID"):
        toolkit_settings(engine_id=None)


def test_the_console_alone_needs_no_secret_and_something_must_be_served(tmp_path: Path) -> None:
    argv = ["--engine-id", "words", "--process-url", "http://127.0.0.1:8888/process", "--no-worker"]
    settings = load([*argv, "--console", "--", "./words"], {}, manifest=tmp_path / "none")
    assert settings.no_worker
    assert settings.console
    with pytest.raises(ConfigError, match="then nothing is served; add --console"):
        load([*argv, "--", "./words"], {}, manifest=tmp_path / "none")
