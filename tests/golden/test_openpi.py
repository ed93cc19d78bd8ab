"""openpi's captured messages, and what the comparison finds when one is not what it should be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from steer.errors import SpecError
from tests.golden.compare_openpi import compare

GOLDEN = Path(__file__).parent / "openpi"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, tmp_path / "openpi"))


def failed(folder: Path) -> set[tuple[str, str]]:
    return {(one.source, one.quantity) for one in compare(folder) if not one.passed}


def test_every_captured_message_is_read_and_written_as_it_was() -> None:
    found = list(compare(GOLDEN))
    assert {one.source for one in found} >= {path.name for path in GOLDEN.glob("*.bin")}
    assert all(one.passed for one in found), [one for one in found if not one.passed]


def test_a_changed_number_is_found(copy: Path) -> None:
    path = copy / "reply_droid.bin"
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    assert failed(copy) == {("reply_droid.bin", "sha256"), ("reply_droid.bin", "decoded")}


def test_a_changed_description_is_found(copy: Path) -> None:
    path = copy / "obs_dtypes.json"
    described = json.loads(path.read_text())
    described["decodes_to"]["py"]["int"] = 1.0
    path.write_text(json.dumps(described))
    assert failed(copy) == {("obs_dtypes.bin", "decoded")}


def test_a_broken_upgrade_is_found(copy: Path) -> None:
    path = copy / "handshake_server_to_client.bin"
    path.write_bytes(path.read_bytes().replace(b"101 Switching", b"404 Switching"))
    assert ("handshake_server_to_client.bin", "upgraded") in failed(copy)


def test_a_foreign_accept_key_is_found(copy: Path) -> None:
    path = copy / "handshake_server_to_client.bin"
    path.write_bytes(path.read_bytes().replace(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"))
    assert ("handshake_server_to_client.bin", "the accept key fits") in failed(copy)


def test_a_truncated_message_is_an_error(copy: Path) -> None:
    path = copy / "obs_libero.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SpecError, match="no openpi message"):
        list(compare(copy))


def test_a_message_without_description_is_an_error(copy: Path) -> None:
    (copy / "obs_aloha.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no obs_aloha\.json"):
        list(compare(copy))


@pytest.mark.parametrize("direction", ["client_to_server", "server_to_client"])
def test_half_a_connection_is_an_error(copy: Path, direction: str) -> None:
    (copy / f"handshake_{direction}.bin").unlink()
    with pytest.raises(FileNotFoundError):
        list(compare(copy))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(compare(tmp_path))
