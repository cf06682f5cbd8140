"""Files of anyone's: one error for whatever a library raises, and no memory before the sizes."""

import io
import tracemalloc

import numpy as np
import pytest
from malformed_npz import npy, npz, with_header

from cct_export.errors import InvalidData, InvalidModel
from cct_export.files import expand_user
from cct_export.untrusted import Malformed, check_size, read_npz, refusing

HOSTILE = {
    "an open bracket (TokenError)": with_header(b"{'descr': (\n"),
    "10^18 elements": npy("|u1", (10**18,)),
    "10^18 elements of no bytes": npy("<U0", (10**18,)),
    "elements beyond 64 bits": npy("<f8", (2**63, 2**63)),
    "a dimension of 400 digits": npy("|u1", (10**400,)),
    "a negative dimension": npy("|u1", (-1,)),
    "a shape that is a number": npy("|u1", 3),
    "a shape of text": npy("|u1", ("3",)),
    "a dtype that does not exist": npy("<q9", (1,), b"1"),
    "a dtype of a number": npy(3, (1,), b"1"),
    "Python objects": npy("|O", (1,), b"cos\nsystem\n"),
    "objects in a structure": npy([("a", "|O")], (1,), b"cos\nsystem\n"),
    "nested brackets": with_header(b"(" * 9000),
    "a header that is no dictionary": with_header(b"[1]"),
    "a header longer than the file": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
    "a version of the future": npy("|u1", (1,), b"1", version=9),
    "fewer bytes than it declares": npy("<f4", (4,), b"\0" * 15),
    "more bytes than it declares": npy("<f4", (4,), b"\0" * 17),
    "no array": b"text",
    "nothing": b"",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_array_that_cannot_be_is_one_error_of_one_line(case):
    refused = pytest.raises(InvalidData, match=r"^a\.npz cannot be read: ")
    with refused as error, refusing(InvalidData, "a.npz cannot be read"):
        read_npz(npz(x=HOSTILE[case]))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "array",
    [
        np.array(7),
        np.zeros((0, 3), np.float16),
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.arange(3, dtype=">i8"),
        np.array(["a", "ü", ""]),
        np.array([b"ab", b""]),
        np.array([1 + 2j]),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read_as_it_was(array, save):
    file = io.BytesIO()
    save(file, x=array, other=np.zeros(3))
    arrays = read_npz(file.getvalue(), ("x", "absent"))
    assert list(arrays) == ["x"]
    assert arrays["x"].dtype == array.dtype
    np.testing.assert_array_equal(arrays["x"], array)


def test_an_archive_that_unpacks_to_far_more_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "bomb.npz"
    zeros = np.zeros(200 << 20, np.uint8)
    np.savez_compressed(path, x=zeros)
    del zeros
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match=r"claims to hold 209,715,\d+"):
            read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_a_file_may_hold_sixteen_times_its_size_and_64_mib():
    check_size((64 << 20) + 16 * 1000, 1000)
    with pytest.raises(Malformed, match=r"it has 1,000 bytes and claims to hold 67,124,865"):
        check_size((64 << 20) + 16 * 1000 + 1, 1000)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("x"), "it is damaged, or of another format"),
        (SystemError("invalid maximum character"), "it is damaged, or of another format"),
        (MemoryError(), "there is not enough memory for it"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "it is no text in UTF-8"),
        (Malformed("it has\n7 heads"), "it has 7 heads"),
    ],
)
def test_any_error_of_a_library_becomes_one_line(error, reason):
    with pytest.raises(InvalidModel) as refused, refusing(InvalidModel, "m.keras"):
        raise error
    assert str(refused.value) == f"m.keras: {reason}"
    assert refused.value.__cause__ is error


@pytest.mark.parametrize("error", [InvalidData("images are gone"), KeyboardInterrupt()])
def test_errors_of_this_package_and_interrupts_pass(error):
    with pytest.raises(type(error)) as passed, refusing(InvalidModel, "m.keras"):
        raise error
    assert passed.value is error


def test_the_folder_of_a_user_who_does_not_exist_stays_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_user("~/x") == tmp_path / "x"
    assert str(expand_user("~nosuchuser/x")) == "~nosuchuser/x"
