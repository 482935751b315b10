"""Which version of each service is active: the small part of the manifest that clients look at once a second.

It is written with the manifest in one transaction and carries its number, so that a client whose definitions are older
knows to read them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from forebay.errors import FormatError


@dataclass(frozen=True)
class Active:
    """The version that the bare name of each service means, by manifest `number`."""

    number: int
    services: Mapping[str, int]

    def encode(self) -> bytes:
        """Its bytes."""
        return msgspec.json.encode(self, order="sorted")

    @staticmethod
    def decode(data: bytes) -> Active:
        """What its bytes say. Raises `FormatError`."""
        try:
            found: Active = msgspec.json.decode(data, type=Active)
        except msgspec.DecodeError as error:
            raise FormatError(
                f"What the online store says of active services cannot be read ({error}); run `forebay apply` again"
            ) from None
        return found
