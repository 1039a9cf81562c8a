"""A token in a file, for programs and daemons whose command line and environment others can read."""

from fs_common.errors import Code, EmberError
from fs_common.security.tokens import TOKEN_TEXT_LENGTH, parse_token


def read_token_file(path: str) -> str:
    """The token in a file, which holds nothing else but white space. Raises `OSError`: it cannot be read, or holds none
    (UNAUTHENTICATED)."""
    with open(path, encoding="ascii", errors="replace") as file:
        text = file.read(4 * TOKEN_TEXT_LENGTH).strip()
    try:
        parse_token(text)
    except EmberError as error:
        raise EmberError(error.code, f"token_file {path}: {error.message}") from None
    return text


def daemon_token(path: str) -> str:
    """The same for a daemon, which waits for what is not there yet; "": it has no token file. Raises `EmberError`."""
    if not path:
        return ""
    try:
        return read_token_file(path)
    except EmberError:
        raise
    except OSError as error:
        raise EmberError(Code.CLUSTER_NOT_READY, f"token_file {path} cannot be read: {error.strerror}") from None
