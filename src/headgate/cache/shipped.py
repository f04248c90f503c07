"""The model files that ship inside the package: where they lie, and that they are the ones that were released.

The one invariant: what `verified` returns describes files whose SHA-256 digests are those of the manifest, as they are now.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

SHIPPED: Final = Path(__file__).parent / "minilm"
MODEL_MANIFEST: Final = "manifest.json"
STATIC_MANIFEST: Final = "static.json"


class Altered(Exception):
    """A file is not the one that its manifest describes."""


class Manifest(msgspec.Struct, frozen=True):
    """What the tool that wrote some files says of them: its version, how long their vectors are, and the SHA-256 of each file."""

    name: str
    version: str
    dimensions: int
    files: dict[str, str]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that stand for all the files."""
        return hashlib.sha256("".join(sorted(self.files.values())).encode()).hexdigest()[:12]


def verified(folder: Path, name: str) -> Manifest:
    """The manifest `name` in `folder`, after its files were compared with it.

    Raises Altered, OSError for what cannot be read, and msgspec.DecodeError.
    """
    manifest = msgspec.json.decode((folder / name).read_bytes(), type=Manifest)
    for file_name, expected in manifest.files.items():
        with (folder / file_name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise Altered(f"{file_name} is altered")
    return manifest
