"""Identifiers."""

from fs_common.ids import shown_client


def test_what_is_shown_of_a_client_does_not_give_its_id_away() -> None:
    client = bytes(range(16))
    assert shown_client(client) == "00010203"
    assert shown_client(client) != shown_client(bytes(range(1, 17)))
