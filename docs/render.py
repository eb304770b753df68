"""Make flowchart.png of docs/flowchart.dot: `python docs/render.py`. It needs Graphviz's `dot`.

The picture carries the SHA-256 of its source in a text chunk, so that a test can tell a picture
that was not made anew from one that was, without Graphviz.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from zlib import crc32

SOURCE = Path(__file__).with_name("flowchart.dot")
PICTURE = Path(__file__).parents[1] / "flowchart.png"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = b"Source-SHA256"


def chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kind and the data of each chunk of a PNG.

    Raises:
        ValueError: it is no PNG, or a checksum in it is wrong.
    """
    if not png.startswith(SIGNATURE):
        raise ValueError("no PNG")
    at = len(SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        body = png[at + 4 : at + 8 + length]
        if struct.unpack_from(">I", png, at + 8 + length) != (crc32(body),):
            raise ValueError(f"wrong checksum in chunk {body[:4]!r}")
        yield body[:4], body[4:]
        at += 12 + length


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))


def fingerprint(source: bytes) -> bytes:
    """What the text chunk of a picture of this source holds."""
    return KEYWORD + b"\0" + sha256(source).hexdigest().encode()


def whiten(palette: bytes) -> bytes:
    """The palette with its lightest colour white: gd rounds white to a faint yellow."""
    colours = [palette[at : at + 3] for at in range(0, len(palette), 3)]
    colours[colours.index(max(colours, key=sum))] = b"\xff\xff\xff"
    return b"".join(colours)


def render(source: bytes) -> bytes:
    """The picture of a source, with its fingerprint."""
    # Drawn by cairo, written by gd: in 256 colours it has a third of the size.
    command = ["dot", "-Tpng:cairo:gd"]
    png = subprocess.run(command, input=source, stdout=subprocess.PIPE, check=True).stdout
    picture = SIGNATURE
    for kind, data in chunks(png):
        if kind == b"IEND":
            picture += chunk(b"tEXt", fingerprint(source))
        picture += chunk(kind, whiten(data) if kind == b"PLTE" else data)
    return picture


if __name__ == "__main__":
    PICTURE.write_bytes(render(SOURCE.read_bytes()))
