"""Tell from its content, not from its name, which optional library a picture needs."""

from bridgetower.pictures.extras import bmff, tiff_tags
from bridgetower.pictures.extras.extra import Extra

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_JXL_SIGNATURES = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")  # of a codestream, and of a file in boxes
_RAW_SIGNATURES = (
    b"FUJIFILMCCD-RAW",
    b"FOVb",  # Sigma
    b"\0MRM",  # Minolta
    b"II\x1a\0\0\0HEAPCCDR",  # Canon, CRW
    b"IIU\0",  # Panasonic, Leica
    b"IIRO",  # Olympus
    b"IIRS",
    b"MMOR",
)
_CR3_BRAND = b"crx "
_DNG_VERSION, _CR2_SLICES, _LEAF = 50706, 50752, 34310  # tags
_RAW_PHOTOMETRIC = frozenset({32803, 34892})  # a mosaic, and its three colours
# Sony, Nikon, Samsung, Kodak, Pentax
_RAW_COMPRESSION = frozenset({32767, 34713, 32770, 65000, 65535})


def extra_for(data: bytes) -> Extra | None:
    """Return the extra that reads this content; None for formats that Pillow reads, and for what is no picture."""
    if data.startswith(_JXL_SIGNATURES):
        return Extra.JXL
    brands = bmff.brands(data)
    if brands & _HEIF_BRANDS and not brands & _AVIF_BRANDS:
        return Extra.HEIF
    if _CR3_BRAND in brands or data.startswith(_RAW_SIGNATURES) or _is_raw_tiff(data):
        return Extra.RAW
    return None


def _is_raw_tiff(data: bytes) -> bool:
    """Return whether a file built like a TIFF comes from the sensor of a camera: DNG, CR2, NEF, ARW, PEF and others."""
    found = tiff_tags.directories(data)
    if data[8:12] in (b"IIII", b"MMMM") and data[12:16] in (b"TwaR", b"RawT"):  # Phase One
        return bool(found)
    return any(
        not directory.entries.keys().isdisjoint((_DNG_VERSION, _CR2_SLICES, _LEAF))
        or directory.number(tiff_tags.PHOTOMETRIC) in _RAW_PHOTOMETRIC
        or directory.number(tiff_tags.COMPRESSION) in _RAW_COMPRESSION
        for directory in found
    )
