"""What a process can run: the names, versions and aliases of its job classes, as workers tell it to each other and to people."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from rf_jobs.model.jobclass import Registry

MAX_BYTES = 256 * 1024
"""Of a catalog as it is stored: some 4,000 classes. A longer one is cut."""


class Catalog(msgspec.Struct, frozen=True, omit_defaults=True):
    """Job classes by name."""

    classes: dict[str, int] = {}
    """Name to version."""
    aliases: dict[str, str] = {}
    """An earlier name to today's."""
    complete: bool = True
    """False where it was too long and was cut."""

    def can_run(self, name: str, version: int = 1) -> bool | None:
        """Whether a job of this class name and version can be run; None where that can't be told."""
        known = self.classes.get(self.aliases.get(name, name))
        if known is None:
            return False if self.complete else None
        return version <= known


def catalog_of(registry: Registry) -> Catalog:
    """What is registered now."""
    entries = [registry.get(name) for name in registry.names()]
    return Catalog(
        {entry.name: entry.version for entry in entries},
        {alias: entry.name for entry in entries for alias in entry.aliases},
    )


def encode(catalog: Catalog) -> tuple[str, bytes]:
    """Its digest and its bytes: equal catalogs have equal ones."""
    data = _encoder.encode(catalog)
    while len(data) > MAX_BYTES:
        kept = sorted(catalog.classes)[: len(catalog.classes) * 3 // 4]
        aliases = {alias: name for alias, name in catalog.aliases.items() if name in kept} if kept else {}
        catalog = Catalog({name: catalog.classes[name] for name in kept}, aliases, complete=False)
        data = _encoder.encode(catalog)
    return blake2b(data, digest_size=8).hexdigest(), data


def decode(data: bytes | None) -> Catalog | None:
    """A catalog from its bytes; None where there are none, or nobody can read them."""
    try:
        return None if data is None else _decoder.decode(data)
    except msgspec.MsgspecError:
        return None


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Catalog)
