"""The table of programs and the Go modules agree, and a changed source leads to a new build."""

import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devcluster.builds import (
    OTHER_VERSIONS,
    PROGRAMS,
    SOURCES,
    Program,
    build_key,
    ensure_programs,
    missing_programs,
)
from devcluster.errors import ClusterError
from devcluster.paths import Paths
from devcluster.toolchain import GO_WANTED

FROM_MODULES = [program for program in PROGRAMS + OTHER_VERSIONS if program.source]
KUBERNETES = [program for program in FROM_MODULES if program.source == "k8s.io/kubernetes"]


def modfile(program: Program) -> str:
    return (SOURCES / program.module / program.modfile).read_text()


@pytest.mark.parametrize("program", FROM_MODULES, ids=lambda program: program.name)
def test_the_go_module_requires_the_version_of_the_table(program: Program) -> None:
    assert f"{program.source} v{program.version}" in modfile(program)


@pytest.mark.parametrize("program", FROM_MODULES, ids=lambda program: program.name)
def test_a_program_reports_the_version_of_the_table(program: Program) -> None:
    values = [value for _, value in (variable.split("=") for variable in program.variables) if value.startswith("v")]
    assert set(values) <= {f"v{program.version}"}


@pytest.mark.parametrize("program", KUBERNETES, ids=lambda program: program.name)
def test_the_staging_modules_of_kubernetes_are_all_of_its_release(program: Program) -> None:
    replaced = [line.split() for line in modfile(program).splitlines() if "=>" in line]
    assert len(replaced) >= 30
    assert all(words[0] == words[2] and f"1{words[3].removeprefix('v0')}" == program.version for words in replaced)


@pytest.mark.parametrize("program", FROM_MODULES, ids=lambda program: program.name)
def test_go_is_new_enough_for_the_modules(program: Program) -> None:
    line = next(line for line in modfile(program).splitlines() if line.startswith("go "))
    assert tuple(map(int, line.split()[1].split(".")))[:2] <= GO_WANTED


def test_servers_of_other_versions_are_in_folders_of_their_own(tmp_path: Path) -> None:
    names = [program.name for program in OTHER_VERSIONS]
    assert missing_programs(Paths(tmp_path), names) == list(OTHER_VERSIONS)
    folders = {program.folder for program in PROGRAMS + OTHER_VERSIONS}
    assert len(folders) == 1 + len(OTHER_VERSIONS)


def test_two_builds_of_a_program_at_a_time_both_find_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths, name = Paths(tmp_path), "pause"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: ensure_programs(paths, [name]), range(2)))
    assert missing_programs(paths, [name]) == []
    assert capsys.readouterr().out.count(f"build {name}") == 1


def test_a_changed_source_or_linked_version_leads_to_a_new_build(tmp_path: Path) -> None:
    shutil.copytree(SOURCES, tmp_path / "go")
    program = PROGRAMS[0]
    key = build_key(program, tmp_path / "go")
    assert build_key(program, SOURCES) == key
    assert build_key(dataclasses.replace(program, variables=("a.b=v2",)), tmp_path / "go") != key
    with (tmp_path / "go" / program.module / "main.go").open("a") as file:
        file.write("// changed\n")
    assert build_key(program, tmp_path / "go") != key


def test_a_link_of_a_program_selects_the_program(tmp_path: Path) -> None:
    missing = missing_programs(Paths(tmp_path), ["kubectl", "kubelet", "helm"])
    assert [program.name for program in missing] == ["kubernetes", "helm"]


def test_without_names_every_program_of_the_cluster_is_selected(tmp_path: Path) -> None:
    assert missing_programs(Paths(tmp_path)) == list(PROGRAMS)


def test_an_unknown_program_is_refused_with_the_list_of_known_programs(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"docker: not built here; known programs: .*kubectl"):
        missing_programs(Paths(tmp_path), ["docker"])
