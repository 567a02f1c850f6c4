"""Formats that Pillow does not read: HEIF, JPEG XL, raw files of cameras, deep TIFF, JPEG 2000 and JPEG, each by an
optional library; deep and large Photoshop documents, by `psd`.

`sniff` tells from the content which extra a picture needs, and `extra` which library that is and how to install it.
`pictures.tiff` and `pictures.trusted` tell which pictures need `deep`. `heif`, `jxl`, `raw` and `deep` import the
libraries, and are imported with the first picture of their kind. `bmff`, `tiff_tags`, `jpeg_xl` and `jpeg_2000` parse
headers: they find cut files, and values that the libraries leave out.

Imported by `pictures.decode`; `extra` also by retrieval and transfer.
"""
