"""One table says what is built; the Go modules agree with it."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from devcluster.builds import PROGRAMS, SOURCES, Program, build_key, missing_programs
from devcluster.errors import ClusterError
from devcluster.paths import Paths
from devcluster.toolchain import GO_WANTED

FROM_MODULES = [program for program in PROGRAMS if program.source]


@pytest.mark.parametrize("program", FROM_MODULES, ids=lambda program: program.name)
def test_the_go_module_builds_the_version_of_the_table(program: Program) -> None:
    requirements = (SOURCES / program.module / "go.mod").read_text()
    assert f"{program.source} v{program.version}" in requirements


@pytest.mark.parametrize("program", FROM_MODULES, ids=lambda program: program.name)
def test_a_program_says_the_version_of_the_table(program: Program) -> None:
    named = [value for variable, value in (one.split("=") for one in program.variables) if value.startswith("v")]
    assert set(named) <= {f"v{program.version}"}


def test_the_staging_modules_of_kubernetes_are_all_of_its_release() -> None:
    lines = (SOURCES / "kubernetes" / "go.mod").read_text().splitlines()
    replaced = [line.split() for line in lines if "=>" in line]
    assert len(replaced) == 33
    assert all(words[0] == words[2] and words[3] == "v0.36.3" for words in replaced)


@pytest.mark.parametrize("module", ["kubernetes", "tools"])
def test_go_is_new_enough_for_the_modules(module: str) -> None:
    line = next(line for line in (SOURCES / module / "go.mod").read_text().splitlines() if line.startswith("go "))
    assert tuple(map(int, line.split()[1].split(".")))[:2] <= GO_WANTED


def test_a_change_of_a_source_or_of_the_linked_version_asks_for_a_new_build(tmp_path: Path) -> None:
    shutil.copytree(SOURCES, tmp_path / "go")
    program = PROGRAMS[0]
    key = build_key(program, tmp_path / "go")
    assert build_key(program, SOURCES) == key
    assert build_key(dataclasses.replace(program, variables=("a.b=v2",)), tmp_path / "go") != key
    with (tmp_path / "go" / program.module / "main.go").open("a") as file:
        file.write("// changed\n")
    assert build_key(program, tmp_path / "go") != key


def test_a_program_is_asked_for_by_any_name_that_it_is_called_by(tmp_path: Path) -> None:
    missing = missing_programs(Paths(tmp_path), ["kubectl", "kubelet", "helm"])
    assert [program.name for program in missing] == ["kubernetes", "helm"]


def test_without_names_every_program_is_asked_for(tmp_path: Path) -> None:
    assert missing_programs(Paths(tmp_path)) == list(PROGRAMS)


def test_an_unknown_program_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"docker: not built here; what is: .*kubectl"):
        missing_programs(Paths(tmp_path), ["docker"])
