"""`make sbom`: what is in each image, as CycloneDX 1.6 JSON that was held against the schema.

Read from the built images themselves: Python packages from their metadata, Debian's from dpkg's list. What the lock of
an image pins must be what it holds, or no list is written.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from devcluster.errors import ClusterError
from devcluster.images import ROOT, opened
from devcluster.paths import Paths, cache_paths

FOLDER = ROOT / "sbom"
SITE_PACKAGES = "opt/tunesmith/env/lib/python3*/site-packages"
DPKG_STATUS = Path("var/lib/dpkg/status")
OS_RELEASE = Path("etc/os-release")


@dataclass(frozen=True, order=True)
class Package:
    """A package of an image."""

    kind: str
    """pypi, or the name of the Debian-like system: the type, or the namespace, of its package URL."""
    name: str
    version: str
    architecture: str = ""
    license: str = ""
    """An SPDX expression; empty where the package gives none."""

    def component(self) -> Component:
        """The package as a CycloneDX component."""
        debian = {"type": "deb", "namespace": self.kind, "qualifiers": {"arch": self.architecture}}
        where = {"type": "pypi"} if self.kind == "pypi" else debian
        url = PackageURL(name=self.name, version=self.version, **where)
        licenses = [LicenseExpression(self.license)] if self.license else []
        return Component(
            type=ComponentType.LIBRARY,
            name=self.name,
            version=self.version,
            purl=url,
            bom_ref=str(url),
            licenses=licenses,
        )


def python_packages(site_packages: Path) -> Iterator[Package]:
    """The distributions in a folder of site-packages."""
    for folder in site_packages.glob("*.dist-info"):
        found = PathDistribution(folder)
        license = found.metadata["License-Expression"] or ""
        yield Package("pypi", canonicalize_name(found.name), found.version, license=license)


def debian_packages(status: str, system: str) -> Iterator[Package]:
    """The installed packages in dpkg's status file (deb822: stanzas of `Field: value`)."""
    for stanza in status.split("\n\n"):
        fields = dict(re.findall(r"^(\S+): (.*)$", stanza, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            yield Package(system, fields["Package"], fields["Version"], fields.get("Architecture", ""))


def differences(lock: str, packages: Iterable[Package]) -> list[str]:
    """Differences between an image and its lock. A pin may have a condition, such as another version of Python."""
    lines = (line.removesuffix(" \\") for line in lock.splitlines() if re.match(r"[a-z0-9]", line))
    pins = [Requirement(line) for line in lines]
    allowed = {(pin.name, next(iter(pin.specifier)).version) for pin in pins}
    held = {(package.name, package.version) for package in packages if package.kind == "pypi"}
    names = {name for name, _ in held}
    missing = sorted(pin.name for pin in pins if pin.marker is None and pin.name not in names)
    odd = [f"{name} {version} is not pinned by the lock" for name, version in sorted(held - allowed)]
    return odd + [f"{name} is missing" for name in missing]


def bill_of_materials(image: str, packages: Iterable[Package]) -> str:
    """The CycloneDX document of an image, by its full name. Raises ValueError if the schema rejects it."""
    name, _, tag = image.rpartition(":")
    root = Component(type=ComponentType.CONTAINER, name=name, version=tag, bom_ref=image)
    components = [package.component() for package in sorted(set(packages))]
    bom = Bom(components=components)
    bom.metadata.component = root
    bom.register_dependency(root, components)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"{image}: {wrong}")
    return text + "\n"


def main(paths: Paths, folder: Path = FOLDER) -> int:
    """Write the documents of the images of the last build into `folder`."""
    images: Mapping[str, str] = json.loads(paths.images.read_text()) if paths.images.exists() else {}
    if not images:
        raise ClusterError("no image has been built yet: run `make images`")
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
        with opened(paths, image) as files:
            packages = list(contents(files))
        if wrong := differences((ROOT / "locks" / f"{name}.txt").read_text(), packages):
            raise ClusterError(f"{image} differs from locks/{name}.txt; run `make images`: {'; '.join(wrong)}")
        target = folder / f"{name}.cdx.json"
        target.write_text(bill_of_materials(image, packages))
        print(f"{target.relative_to(ROOT) if target.is_relative_to(ROOT) else target}: {len(packages)} packages")
    return 0


def contents(files: Path) -> Iterator[Package]:
    """The packages in the files of an image."""
    for folder in files.glob(SITE_PACKAGES):
        yield from python_packages(folder)
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', (files / OS_RELEASE).read_text(), re.MULTILINE))
    yield from debian_packages((files / DPKG_STATUS).read_text(), release.get("ID", "debian"))


if __name__ == "__main__":
    try:
        sys.exit(main(cache_paths()))
    except ClusterError as error:
        sys.exit(f"sbom: {error}")
