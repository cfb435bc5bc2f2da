"""Whether a PNG is whole, without a library that decodes it."""

import zlib
from pathlib import Path

from vaekit.storage.damage import Damaged
from vaekit.storage.files import require_file

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def require_png(path: Path) -> None:
    """Raise `Damaged` where a chunk of a PNG is missing, or not as its checksum says."""
    require_file(path)
    if not _is_whole(path.read_bytes()):
        raise Damaged("not a whole picture any more")


def _is_whole(content: bytes) -> bool:
    at = len(SIGNATURE)
    if content[:at] != SIGNATURE:
        return False
    while len(content) - at >= 12:
        length, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        end = at + 8 + length
        if int.from_bytes(content[end : end + 4]) != zlib.crc32(content[at + 4 : end]):
            return False
        at = end + 4
        if kind == b"IEND":
            return at == len(content)
    return False
