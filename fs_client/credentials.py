"""What a client shows to whom: its token to metadata servers, the pass that they give it to storage daemons.

A token in a file is read anew for each connection, so that one which was rotated is taken from the file by programs
that run for long. Nothing here prints a secret.

Called by: `fs_client.aio`. Page: docs/SECURITY.md.
"""

from collections.abc import Awaitable, Callable, Collection

import msgspec

from fs_client.options import Options
from fs_common.errors import Code, EmberError
from fs_common.peers import Address
from fs_common.records.session import Hello, Welcome


class Credentials:
    """A `fs_common.peers.Introduction`."""

    def __init__(self, options: Options, hello: Hello) -> None:
        self._options = options
        self._hello = hello
        self._metadata: Collection[Address] = frozenset(options.addresses)
        self._token = ""
        """As it was read last."""
        self._pass = b""
        self.fetch_pass: Callable[[], Awaitable[bytes]] | None = None
        """Asks a metadata server for a new one."""

    def expect_cluster(self, cluster: str) -> None:
        """From now on servers of other clusters are refused."""
        self._hello = msgspec.structs.replace(self._hello, cluster=cluster)

    def hello(self, address: Address) -> Hello:
        if address in self._metadata:
            token = self._read_token()
            return msgspec.structs.replace(self._hello, token=token) if token else self._hello
        return msgspec.structs.replace(self._hello, shown_pass=self._pass) if self._pass else self._hello

    def _read_token(self) -> str:
        try:
            self._token = self._options.read_token()
        except OSError as error:
            # Somebody replaces the file just now, or has put it away: what was read before may be good still.
            if not self._token:
                path = self._options.token_file
                text = error.message if isinstance(error, EmberError) else f"token_file {path}: {error.strerror}"
                raise EmberError(Code.UNAUTHENTICATED, text) from None
        return self._token

    def greeted(self, address: Address, welcome: Welcome) -> None:
        if address in self._metadata:
            self._pass = welcome.given_pass

    async def renew(self, address: Address) -> bool:
        if self.fetch_pass is None or address in self._metadata:
            return False
        self._pass = await self.fetch_pass()
        return bool(self._pass)
