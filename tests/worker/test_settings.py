"""The worker's environment."""

from __future__ import annotations

import pytest

from orbtrio.errors import ConfigError
from orbtrio.worker.settings import VARIABLES, WorkerSettings

NEEDED = {"WORKER_TYPE": "embedding", "WORKER_SECRET": "hush"}


def test_defaults_are_those_of_the_spec() -> None:
    """That of MAX_BATCH_SIZE depends on the handler: `test_runtime` has it."""
    settings = WorkerSettings.from_environ(NEEDED)
    assert settings == WorkerSettings(
        worker_type="embedding",
        worker_secret="hush",
        server_url="ws://localhost:5000/ws",
        max_batch_size=None,
        max_latency=30.0,
        model_id=None,
        inline_resources=False,
        log_level="info",
    )


def test_every_variable_is_read() -> None:
    settings = WorkerSettings.from_environ(
        {
            "WORKER_TYPE": "llm",
            "WORKER_SECRET": "hush",
            "SERVER_URL": "wss://engine.example/ws",
            "MAX_BATCH_SIZE": "4",
            "MAX_LATENCY_MS": "12.5",
            "MODEL_ID": "org/model",
            "ORB_INLINE_RESOURCES": "1",
            "ORB_BUSY_POLL_US": "500",
            "LOG_LEVEL": "DEBUG",
        }
    )
    assert settings == WorkerSettings(
        worker_type="llm",
        worker_secret="hush",
        server_url="wss://engine.example/ws",
        max_batch_size=4,
        max_latency=0.0125,
        model_id="org/model",
        inline_resources=True,
        busy_poll_us=500,
        log_level="DEBUG",
    )


def test_defaults_in_the_help_are_those_in_force() -> None:
    shown = {name: variable.default for name, variable in VARIABLES.items() if variable.default}
    assert WorkerSettings.from_environ(NEEDED | shown) == WorkerSettings.from_environ(NEEDED)


def test_environ_is_the_default_source(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORKER_SECRET", "hush")
    assert WorkerSettings.from_environ(worker_type="llm").worker_secret == "hush"


def test_program_brings_its_own_worker_type() -> None:
    assert WorkerSettings.from_environ({"WORKER_SECRET": "s"}, worker_type="llm").worker_type == "llm"
    assert WorkerSettings.from_environ(NEEDED, worker_type="llm").worker_type == "embedding"


def test_empty_variables_count_as_unset() -> None:
    environ = NEEDED | {"MAX_BATCH_SIZE": "", "MODEL_ID": "", "SERVER_URL": ""}
    assert WorkerSettings.from_environ(environ) == WorkerSettings.from_environ(NEEDED)


def test_builtin_is_no_model_id() -> None:
    assert WorkerSettings.from_environ(NEEDED | {"MODEL_ID": "builtin"}).model_id is None


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), (" True ", True), ("on", True), ("0", False), ("no", False)]
)
def test_inline_resources_are_asked_for_in_any_usual_word(text: str, value: bool) -> None:
    settings = WorkerSettings.from_environ(NEEDED | {"ORB_INLINE_RESOURCES": text})
    assert settings.inline_resources is value


def test_what_the_models_library_reads_is_left_to_it() -> None:
    """Spec: "Configuration"."""
    theirs = {"HF_TOKEN": "hf_hush", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert theirs.keys() <= VARIABLES.keys()
    assert WorkerSettings.from_environ(NEEDED | theirs) == WorkerSettings.from_environ(NEEDED)


def test_secret_is_in_no_repr() -> None:
    assert "hush" not in repr(WorkerSettings.from_environ(NEEDED))


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("WORKER_TYPE", "", "WORKER_TYPE is not set"),
        ("WORKER_TYPE", "a/b", "without a slash"),
        ("WORKER_SECRET", "", "WORKER_SECRET is not set"),
        ("SERVER_URL", "localhost:5000", "ws://localhost:5000/ws"),
        ("SERVER_URL", "http://localhost:5000/ws", "ws://localhost:5000/ws"),
        ("SERVER_URL", "ws:///ws", "ws://localhost:5000/ws"),
        ("SERVER_URL", "ws://localhost:99999/ws", "ws://localhost:5000/ws"),
        ("MAX_BATCH_SIZE", "0", "from 1 to 1000"),
        ("MAX_BATCH_SIZE", "1001", "from 1 to 1000"),
        ("MAX_BATCH_SIZE", "many", "set it to a whole number"),
        ("MAX_BATCH_SIZE", "1.5", "set it to a whole number"),
        ("MAX_LATENCY_MS", "0", "above 0"),
        ("MAX_LATENCY_MS", "-5", "above 0"),
        ("MAX_LATENCY_MS", "nan", "above 0"),
        ("MAX_LATENCY_MS", "inf", "above 0"),
        ("MAX_LATENCY_MS", "soon", "a number, e.g. 30000"),
        ("ORB_INLINE_RESOURCES", "maybe", "set it to 1 or 0"),
        ("ORB_BUSY_POLL_US", "0.5", "set it to a whole number"),
        ("ORB_BUSY_POLL_US", "-1", "from 0 to 1000000"),
        ("ORB_BUSY_POLL_US", "1000001", "from 0 to 1000000"),
        ("LOG_LEVEL", "loud", "debug, info, warn, error"),
    ],
)
def test_wrong_value_is_named_with_its_remedy(name: str, value: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        WorkerSettings.from_environ(NEEDED | {name: value})
    assert name in str(caught.value)
    assert hint in str(caught.value)
    assert "hush" not in str(caught.value)
