"""Settings of the engine: defaults, the order of their sources, what is refused; and secrets stay secret."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from orbtrio.engine import config
from orbtrio.engine.config import Config, load, settings_table
from orbtrio.errors import ConfigError

SECRET = "correct horse battery staple"


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "engine.toml"


class TestConfig:
    def test_a_secret_is_all_it_takes(self) -> None:
        settings = Config(worker_secret=SECRET)
        settings.check()
        assert (settings.server_host, settings.server_port) == ("localhost", 5000)
        assert settings.store_root == Path.home() / ".local/share/unblink-engine"
        assert settings.job_timeout == 300.0
        assert settings.max_client_message_bytes == 32 << 20
        assert settings.affinity == {"video_segmentation": "cross_job_id", "motion_energy": "media_id"}
        assert len(settings.worker_types) == 11

    def test_is_frozen(self) -> None:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            Config().server_port = 1  # type: ignore[misc]

    def test_can_be_varied(self) -> None:
        settings = attrs.evolve(Config(worker_secret=SECRET, client_tokens={"t": "x"}), server_port=0)
        assert (settings.worker_secret, settings.client_tokens, settings.server_port) == (
            SECRET,
            {"t": "x"},
            0,
        )

    def test_lists_may_be_lists(self) -> None:
        assert Config(worker_types=["*"]).worker_types == ("*",)  # type: ignore[arg-type]

    def test_does_not_look_at_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORKER_SECRET", SECRET)
        monkeypatch.setenv("SERVER_PORT", "1")
        assert Config() == Config(worker_secret=None, server_port=5000)

    def test_secrets_are_not_in_its_repr(self) -> None:
        shown = repr(Config(worker_secret=SECRET, client_tokens={SECRET: "tenant"}))
        assert SECRET not in shown
        assert "worker_secret='***'" in shown

    @pytest.mark.parametrize(
        "wrong",
        [
            {"server_port": 65536},
            {"server_port": "5000"},
            {"worker_secret": ""},
            {"job_timeout": 0},
            {"job_timeout": float("nan")},
            {"max_deliveries": 0},
            {"log_level": "loud"},
            {"xdg_data_home": "relative"},
            {"tls_certificate": "cert.pem"},
            {"tls_key": "key.pem"},
            {"worker_types": "embedding"},
            {"insecure_no_secret": 1},
        ],
    )
    def test_refuses_what_cannot_work(self, wrong: dict[str, Any]) -> None:
        (name,) = wrong
        with pytest.raises(ConfigError, match=rf"{name} \([A-Z_]+\)"):
            Config(**wrong)

    def test_tls_files_come_in_pairs(self) -> None:
        settings = Config(tls_certificate=Path("a.pem"), tls_key=Path("b.pem"))
        assert (settings.tls_certificate, settings.tls_key) == (Path("a.pem"), Path("b.pem"))


class TestCheck:
    """P-06, B-44."""

    def test_needs_a_worker_secret(self) -> None:
        with pytest.raises(ConfigError, match=r"WORKER_SECRET is not set.*--insecure-no-secret"):
            Config().check()
        Config(insecure_no_secret=True).check()

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
    def test_this_machine_needs_no_client_tokens(self, host: str) -> None:
        Config(worker_secret=SECRET, server_host=host).check()

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "localhost.example.org"])
    def test_the_network_does(self, host: str) -> None:
        settings = Config(worker_secret=SECRET, server_host=host)
        with pytest.raises(ConfigError, match=rf"SERVER_HOST is {re.escape(host)} and CLIENT_TOKENS not set"):
            settings.check()
        attrs.evolve(settings, client_tokens={"token": "tenant"}).check()
        attrs.evolve(settings, insecure_no_client_token=True).check()


class TestLoad:
    def test_nothing_said(self) -> None:
        assert load([], {}) == Config()

    def test_every_setting_from_the_environment(self) -> None:
        environ = {
            "SERVER_HOST": "0.0.0.0",
            "SERVER_PORT": "0",
            "WORKER_SECRET": SECRET,
            "CLIENT_TOKENS": "a=x,b=y",
            "XDG_DATA_HOME": "/data",
            "LOG_LEVEL": "DEBUG",
            "WORKER_TYPES": "*",
            "ORB_FLAT_TYPES": "llm",
            "ORB_AFFINITY": "a=b",
            "ORB_JOB_TIMEOUT": "1.5",
            "ORB_STORE_QUOTA_BYTES": "1 GiB",
            "ORB_INSECURE_NO_SECRET": "true",
            "PATH": "/bin",
        }
        assert load([], environ) == Config(
            server_host="0.0.0.0",
            server_port=0,
            worker_secret=SECRET,
            client_tokens={"a": "x", "b": "y"},
            xdg_data_home=Path("/data"),
            log_level="debug",
            worker_types=("*",),
            flat_types=("llm",),
            affinity={"a": "b"},
            job_timeout=1.5,
            store_quota_bytes=1 << 30,
            insecure_no_secret=True,
        )

    def test_flags_before_environment_before_file(self, toml: Path) -> None:
        toml.write_text("[engine]\nserver_port = 1\nmax_clients = 1\nmax_workers = 1\n")
        environ = {"SERVER_PORT": "2", "ORB_MAX_CLIENTS": "2", "ORB_CONFIG": "no such file"}
        settings = load(["--server-port", "3", "--config", str(toml)], environ)
        assert (settings.server_port, settings.max_clients, settings.max_workers) == (3, 2, 1)
        assert settings.max_unregistered == Config().max_unregistered

    def test_flag_without_value(self) -> None:
        assert load(["--insecure-no-secret"], {"ORB_INSECURE_NO_SECRET": "off"}).insecure_no_secret
        assert not load([], {"ORB_INSECURE_NO_SECRET": "off"}).insecure_no_secret

    def test_empty_variables_count_as_none(self) -> None:
        assert load([], {"WORKER_SECRET": "", "SERVER_PORT": "", "XDG_DATA_HOME": ""}) == Config()

    @pytest.mark.parametrize(
        ("argv", "environ", "problem"),
        [
            (["--server-port", "x"], {}, r"server_port \(SERVER_PORT\): expected a whole number .* not 'x'"),
            ([], {"SERVER_PORT": "x"}, r"server_port \(SERVER_PORT\): expected a whole number .* not 'x'"),
            ([], {"ORB_JOB_TIMEOUT": "-1"}, r"job_timeout \(ORB_JOB_TIMEOUT\): expected seconds"),
            (["--job-timout", "1"], {}, r"No such option.*--job-timout"),
            (["--server-port"], {}, r"--server-port"),
            (["stray"], {}, r"unexpected extra argument"),
            (
                ["--config", "/no/such/file"],
                {},
                r"config \(ORB_CONFIG\): cannot read '/no/such/file': No such file",
            ),
            (
                [],
                {"CLIENT_TOKENS": "a"},
                r"client_tokens \(CLIENT_TOKENS\): expected pairs .* number 1 is none",
            ),
            ([], {"WORKER_SECRET": "\udcff"}, r"worker_secret \(WORKER_SECRET\): expected UTF-8"),
        ],
    )
    def test_usage_errors_name_the_culprit(
        self, argv: list[str], environ: dict[str, str], problem: str
    ) -> None:
        with pytest.raises(ConfigError, match=problem):
            load(argv, environ)

    @pytest.mark.parametrize("option", ["--help", "--version"])
    def test_information_ends_the_program(self, option: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            load([option], {"SERVER_PORT": "nonsense"})
        assert caught.value.code == 0
        assert "orbtrio" in capsys.readouterr().out

    def test_help_shows_flag_variable_and_default(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            load(["--help"], {"WORKER_SECRET": SECRET, "CLIENT_TOKENS": f"{SECRET}=x"})
        text = " ".join(capsys.readouterr().out.split())
        for known in config._SETTINGS:
            if known.secret:
                assert known.name.replace("_", "-") + " " not in text
            else:
                assert f"{known.flag} " in text
                assert known.env in text
        assert "[ORB_STORE_QUOTA_BYTES; default: 8 GiB]" in text
        assert SECRET not in text

    def test_version_of_a_checkout(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def not_installed(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", not_installed)
        with pytest.raises(SystemExit):
            load(["--version"], {})
        assert capsys.readouterr().out == "orbtrio, version (not installed)\n"
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.2.3")
        with pytest.raises(SystemExit):
            load(["--version"], {})
        assert capsys.readouterr().out == "orbtrio, version 1.2.3\n"


class TestFile:
    def load(self, toml: Path, text: str) -> Config:
        toml.write_text(text)
        return load(["--config", str(toml)], {})

    def test_has_types_of_its_own(self, toml: Path) -> None:
        settings = self.load(
            toml,
            """
            [engine]
            server_port = 1
            job_timeout = 2
            grace_period = 0.5
            store_quota_bytes = "1 GiB"
            worker_types = ["a", "b"]
            flat_types = "c, d"
            affinity = {a = "b"}
            insecure_no_secret = true
            tls_certificate = "cert.pem"
            tls_key = "/keys/key.pem"

            [worker]
            anything = 1
            """,
        )
        assert settings == Config(
            server_port=1,
            job_timeout=2.0,
            grace_period=0.5,
            store_quota_bytes=1 << 30,
            worker_types=("a", "b"),
            flat_types=("c", "d"),
            affinity={"a": "b"},
            insecure_no_secret=True,
            tls_certificate=toml.parent / "cert.pem",
            tls_key=Path("/keys/key.pem"),
        )

    def test_may_be_without_settings(self, toml: Path) -> None:
        assert self.load(toml, "") == Config()

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("[engine]\njob_timout = 1", r"unknown setting job_timout; is it job_timeout\?"),
            ("[engine]\nzzz = 1", r"unknown setting zzz$"),
            (
                "[engine]\nserver_port = true",
                r"server_port \(SERVER_PORT\): expected a whole number.*not True",
            ),
            ("[engine]\nserver_port = 1.5", r"server_port \(SERVER_PORT\): expected a whole number.*not 1.5"),
            ("[engine]\nworker_types = [1]", r"worker_types \(WORKER_TYPES\)"),
            ("[engine]\njob_timeout = inf", r"job_timeout \(ORB_JOB_TIMEOUT\)"),
            ("[engine.worker_types]\na = 1", r"worker_types \(WORKER_TYPES\)"),
            ("server_port = 1", r"server_port stands outside of a table"),
            ("engine = 1", r"engine stands outside of a table"),
            ("[engine", r"engine\.toml: Expected"),
            (f"[engine]\nworker_secret = '{SECRET}'", r"worker_secret must not .* use worker_secret_file"),
            (
                f"[engine]\nclient_tokens = {{'{SECRET}' = 'x'}}",
                r"client_tokens must not .* client_tokens_file",
            ),
            ("[engine]\nconfig = 'other.toml'", r"unknown setting config"),
        ],
    )
    def test_mistakes_are_named(self, toml: Path, text: str, problem: str) -> None:
        with pytest.raises(ConfigError, match=problem) as caught:
            self.load(toml, text)
        assert SECRET not in str(caught.value)

    def test_that_is_not_text(self, toml: Path) -> None:
        toml.write_bytes(b"\xff")
        with pytest.raises(ConfigError, match="not UTF-8"):
            load(["--config", str(toml)], {})


class TestSecretsInFiles:
    def test_from_wherever_the_path_comes(self, tmp_path: Path, toml: Path) -> None:
        (tmp_path / "secret").write_text(SECRET + "\n")
        (tmp_path / "tokens").write_text("a=x\nb=y\n")
        toml.write_text("[engine]\nworker_secret_file = 'secret'\nclient_tokens_file = 'tokens'\n")
        expected = Config(worker_secret=SECRET, client_tokens={"a": "x", "b": "y"})
        secret, tokens = str(tmp_path / "secret"), str(tmp_path / "tokens")
        assert load(["--config", str(toml)], {}) == expected
        assert load([], {"WORKER_SECRET_FILE": secret, "CLIENT_TOKENS_FILE": tokens}) == expected
        assert load(["--worker-secret-file", secret, "--client-tokens-file", tokens], {}) == expected

    def test_not_beside_the_secret_itself(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text(SECRET)
        with pytest.raises(ConfigError, match="WORKER_SECRET and WORKER_SECRET_FILE are both set"):
            load([], {"WORKER_SECRET": "x", "WORKER_SECRET_FILE": str(tmp_path / "secret")})

    def test_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"worker_secret_file \(WORKER_SECRET_FILE\): cannot read"):
            load(["--worker-secret-file", str(tmp_path / "none")], {})

    def test_that_is_empty(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("\n")
        with pytest.raises(ConfigError, match=r"worker_secret \(WORKER_SECRET\): expected text"):
            load(["--worker-secret-file", str(tmp_path / "secret")], {})

    def test_no_flag_takes_a_secret(self) -> None:
        for flag in ("--worker-secret", "--client-tokens"):
            with pytest.raises(ConfigError, match="No such option") as caught:
                load([flag, SECRET], {})
            assert SECRET not in str(caught.value)
            with pytest.raises(ConfigError, match="No such option") as caught:
                load([f"{flag}={SECRET}"], {})
            assert SECRET not in str(caught.value)


def test_every_setting_is_documented() -> None:
    table = settings_table()
    for known in (*config._SETTINGS, *config._FILES.values(), config._CONFIG_FILE):
        assert f"| `{known.env}` |" in table
        assert known.help.endswith(".")
        assert known.env.startswith("ORB_") or known.name.upper() == known.env
    assert "| `ORB_STORE_QUOTA_BYTES` | `--store-quota-bytes` | `8 GiB` |" in table
    assert all(line.count("|") == 5 for line in table.splitlines())
    names = [known.env for known in config._SETTINGS]
    assert len(set(names)) == len(names) == len(attrs.fields(Config))
