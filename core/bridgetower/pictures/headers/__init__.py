"""Parsers of file headers: boxes, tags of TIFF, and the colours of JPEG XL.

They tell the kind of a file, that it was cut, and values that the decoders leave out. They take bytes, and import no
other package and no library.
"""
