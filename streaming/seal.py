"""What the workers of a flow send each other carries a seal, so that none of them unpickles what another process sent.

    worker ── pickle ── seal ─▶ socket of 127.0.0.1 ─▶ is it ours? ── unpickle ─▶ worker
                          ╲______ a key that the parent made for this flow ______╱

Bytewax listens on a port until all workers are connected, believes whoever connects, and pickles what travels, by
`pickle.dumps` and `pickle.loads` of the standard library. Lives here: putting a sealed pair in their place, in the
processes of workers alone. Invariant: there, `pickle.loads` opens nothing that was not sealed with the flow's key.
"""

from __future__ import annotations

import hashlib
import hmac
import pickle
import secrets
from dataclasses import dataclass, field
from typing import Any

from forebay.errors import StoreError

KEY_BYTES, SEAL_BYTES = 32, 16
HELD_MAX = 256
"""Items of a message that are pickled once, more than one poll gives; all of a longer one are pickled twice."""
_dumps, _loads = pickle.dumps, pickle.loads


def new_key() -> bytes:
    """A key for one flow, which its parent hands to its workers when it starts them."""
    return secrets.token_bytes(KEY_BYTES)


@dataclass(frozen=True)
class Seal:
    """Seals and opens what travels between the workers that have a key."""

    key: bytes = field(repr=False)
    held: dict[int, tuple[Any, bytes]] = field(default_factory=dict, repr=False, compare=False)
    """What was pickled once, by its id, and what that made."""

    def dumps(self, item: Any, *how: Any, **more: Any) -> bytes:
        """An item pickled, behind its seal."""
        if how or more:
            return self._sealed(_dumps(item, *how, **more))
        if id(item) in self.held:
            return self.held.pop(id(item))[1]
        sealed = self._sealed(_dumps(item))
        self.held[id(item)] = (item, sealed)
        if len(self.held) > HELD_MAX:
            del self.held[next(iter(self.held))]
        return sealed

    def loads(self, sealed: Any, **how: Any) -> Any:
        """The item of its bytes. Raises `StoreError` where another one made them."""
        view = memoryview(sealed)
        body = view[SEAL_BYTES:]
        if not hmac.compare_digest(self._of(body), bytes(view[:SEAL_BYTES])):
            raise StoreError("What came over the connection to another worker was not sent by one of this flow")
        return _loads(body, **how)

    def put_on(self) -> None:
        """Let this process, a worker's, pickle and unpickle by it from now on."""
        pickle.dumps, pickle.loads = self.dumps, self.loads

    def _sealed(self, body: bytes) -> bytes:
        return self._of(body) + body

    def _of(self, body: Any) -> bytes:
        return hashlib.blake2b(body, key=self.key, digest_size=SEAL_BYTES).digest()
