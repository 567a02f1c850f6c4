"""Bytes of a picture file -> pixels.

`decode` turns any format that Pillow, or the library of an installed extra, reads into an upright RGB picture.
`side_data`, `tiff` and `trusted` mend or refuse, from the headers, what Pillow reads wrongly; `frames` loads the
frame that counts; `to_rgb` and `colour` convert it to sRGB. `psd` reads deep and large Photoshop documents, `extras`
HEIF, JPEG XL, raw files, and deep TIFF, JPEG 2000 and JPEG. `preprocess` turns the picture into float32 [3, H, W]. A
decode worker is a process that does all of this; the decode pool runs several workers.

Imports no other package, and is the only package that imports PIL and these libraries. Above it: checkpoints, encoders,
transfer, retrieval.
"""
