"""The shape of the code: who may import whom, who may wait, and what is shipped."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

LAYERS = [
    {"errors", "message", "text", "ring", "glyphs", "logs", "progress"},
    {"keys", "checks", "helping", "password"},
    {"values"},
    {"scripts", "server"},
    {"io"},
    {"topology"},
    {"about", "remedies"},
    {"connect"},
    {"cache", "lease"},
    {"pipeline", "source", "place"},
    {"work", "command", "look", "doctor"},
    {"worker", "metrics"},
    {"live"},
    {"view"},
    {"picture"},
    {"options", "demo", "top"},
    {"opening"},
    {"modes"},
    {"watching"},
    {"cli_cache", "cli_server", "cli_watch"},
    {"cli"},
    {"__main__"},
]
"""From the bottom to the top: a module imports only what stands below it, or beside it when both
are parts of one package."""
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted((ROOT / "distlock").rglob("*.py"))
WAITERS = {"io", "server"}  # the embedded server is waited for by looking at its lock


def layer(path: Path) -> str:
    """The module of the top level that a file belongs to."""
    first = path.relative_to(ROOT / "distlock").parts[0]
    return first.removesuffix(".py")


def imported(tree: ast.AST, path: Path) -> set[str]:
    """The modules of ours that a file imports, outside of TYPE_CHECKING."""
    found = set()
    depth = len(path.relative_to(ROOT / "distlock").parts)
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == depth and id(node) not in skipped:
            names = [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
            found.update(name for name in names if name != "__version__")
    return found


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_only_go_down(path: Path) -> None:
    mine = layer(path)
    if mine in ("__init__", "lua"):
        return
    for name in imported(ast.parse(path.read_text()), path):
        assert RANK[name] < RANK[mine] or name == mine, f"{mine} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_io_waits_and_knows_threads_and_event_loops(path: Path) -> None:
    if layer(path) in WAITERS:
        return
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
            assert not names & {"asyncio", "threading", "select", "selectors"}
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "time.sleep" or layer(path) == "work"


def test_the_view_knows_no_redis_command() -> None:
    for name in ("view", "picture", "cli", "options"):
        text = (ROOT / "distlock" / f"{name}.py").read_text()
        assert "execute_command" not in text
        assert "import redis" not in text


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_module_opens_with_its_rules_and_stays_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 320
    if text:
        assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_public_function_says_what_it_does(path: Path) -> None:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    nodes = list(ast.parse(path.read_text()).body)
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            nodes += node.body
        if isinstance(node, kinds) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path}: {node.name}"


def test_the_help_needs_neither_redis_nor_rich() -> None:
    code = "import sys; import distlock.cli; print('redis' in sys.modules, 'rich' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert said.stdout.split() == ["False", "False"], said.stderr


def test_what_ships_names_every_package_and_the_scripts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in MODULES if path.name[:2] == "__"
    }
    assert set(project["tool"]["setuptools"]["packages"]) == packages
    data = project["tool"]["setuptools"]["package-data"]
    assert data["distlock.lua"] == ["*.lua"]
    assert data["distlock"] == ["py.typed"]
