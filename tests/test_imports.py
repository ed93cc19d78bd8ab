"""The direction of imports, stated once: what may know what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("steer", "policies", "critics", "robots", "sim")
FAMILIES = ("policies", "critics", "robots", "sim")
ABOVE = ("steer.cli", "steer.server", "steer.evaluation")
FRAMEWORKS = ("torch", "jax", "flax", "diffusers", "accelerate", "transformers")

# What a robot installs, and the vocabulary: importable without a framework.
TORCH_FREE = (
    "steer.client",
    "steer.data",
    "steer.wire",
    "steer.engine",
    "steer.steering",
    "steer.environment",
    "steer.registry",
)


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Names of every import statement in a file, also the ones inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def reaches(names: set[str], packages: tuple[str, ...]) -> set[str]:
    return {name for name in names if any(name == p or name.startswith(p + ".") for p in packages)}


def allowed(path: Path) -> tuple[str, ...]:
    """Which of our packages a file must not import."""
    inside = path.relative_to(ROOT)
    package = inside.parts[0]
    if inside.parts[:2] == ("steer", "cli"):
        return ()
    if package == "steer":
        return (*FAMILIES, "steer.cli")
    others = tuple(p for p in FAMILIES if p != package and not (package == "sim" and p == "robots"))
    return (*others, *ABOVE)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    assert not reaches(imports_of(path), allowed(path))


def test_the_rule_can_fail(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from critics.networks import Q\n")
    assert reaches(imports_of(bad), FAMILIES) == {"critics.networks.Q"}


@pytest.mark.parametrize("module", TORCH_FREE)
def test_a_robot_needs_no_framework(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {FRAMEWORKS!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_pickle_no_eval() -> None:
    wanted = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
    for path in modules():
        tree = ast.parse(path.read_text())
        calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        assert not calls & {"eval", "exec", "__import__"}, path
        # The one name that does not unpickle: what torch raises for a file that holds more than weights.
        names = imports_of(path) - {"pickle.UnpicklingError"}
        assert not {name.partition(".")[0] for name in names} & wanted, path
