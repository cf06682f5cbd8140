"""The checksum in a file: it holds for the bytes that were sealed, and for no others."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cct_export.records import checksum

FIELD = b'{"content_sha256": "%b", "labels": []}'
OTHERS = st.binary(max_size=200).filter(lambda content: b"content_sha256" not in content)
OPEN = FIELD % checksum.UNSEALED.encode()


@given(before=OTHERS, after=OTHERS)
def test_a_sealed_file_is_intact_and_as_long_as_it_was(before, after):
    content = before + OPEN + after
    sealed = checksum.sealed(content)
    assert len(sealed) == len(content)
    assert sealed == before + FIELD % checksum.carried(sealed).encode() + after
    assert checksum.is_intact(sealed) is True
    assert checksum.sealed(content) == sealed


def test_no_byte_of_a_sealed_file_can_be_changed():
    sealed = checksum.sealed(b"weights" * 9 + OPEN + b"more weights")
    name = range(sealed.index(b'"content_sha256'), sealed.index(checksum.carried(sealed).encode()))
    for position in range(len(sealed)):
        for flipped in (1, 0x20, 0xFF):
            changed = bytearray(sealed)
            changed[position] ^= flipped
            # Without the field's name there is no checksum; the sidecar decides.
            expected = None if position in name else False
            assert checksum.is_intact(bytes(changed)) is expected


@given(content=OTHERS, length=st.integers(1, 200))
def test_a_file_that_was_cut_or_lengthened_is_not_intact(content, length):
    sealed = checksum.sealed(content + OPEN + content)
    assert checksum.is_intact(sealed + bytes(length)) is False
    cut = sealed[: max(len(sealed) - length, len(content) + 20)]
    assert checksum.is_intact(cut) is False


def test_an_open_or_half_checksum_is_that_of_no_file():
    for content in (OPEN, OPEN[:40], FIELD % b"", FIELD % b"\xff" * 64):
        assert checksum.is_intact(content) is False


@given(content=OTHERS)
def test_a_file_without_the_field_carries_no_checksum(content):
    assert checksum.carried(content) == ""
    assert checksum.is_intact(content) is None
    with pytest.raises(ValueError, match="no contract with an open checksum"):
        checksum.sealed(content)


def test_a_label_that_looks_like_the_field_is_no_checksum():
    label = json.dumps(['"content_sha256": "' + checksum.UNSEALED + '"']).encode()
    assert checksum.carried(label) == ""
