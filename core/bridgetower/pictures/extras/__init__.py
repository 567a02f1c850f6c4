"""Formats that an optional library reads: HEIF, JPEG XL, raw files of cameras.

`sniff` tells from the content which extra a picture needs, and `extra` which library that is and how to install it.
`heif`, `jxl` and `raw` import the libraries, and are imported with the first picture of their kind. `bmff`, `tiff_tags`
and `jpeg_xl` parse headers: they find cut files, and values that the libraries leave out.

Imported by `pictures.decode`; `extra` also by retrieval and transfer.
"""
