"""`python -m tunesmith_api.crdgen` writes the generated files; `--check` only lists the outdated ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tunesmith_api.crdgen.files import generated_files

ROOT = Path(__file__).resolve().parents[3]


def main(arguments: list[str] | None = None) -> int:
    """Return exit code 0, or 1 if --check finds an outdated file."""
    parser = argparse.ArgumentParser(prog="python -m tunesmith_api.crdgen", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a file is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help="the project's folder")
    options = parser.parse_args(arguments)
    stale = [
        (path, text)
        for path, text in generated_files(options.root).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path, text in stale:
        print(f"{'out of date' if options.check else 'written'}: {path.relative_to(options.root)}")
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale and options.check:
        print("run: python -m tunesmith_api.crdgen", file=sys.stderr)
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
