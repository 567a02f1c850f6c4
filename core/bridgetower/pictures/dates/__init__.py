"""The date at which a picture was taken, from any of its writers. docs/dates.md says which places count.

`content` reads the file itself, `sidecars` the files beside it, `names` its name; `order` says which of the dates found
counts. `exif`, `xmp`, `iptc`, `png` and `raws` read the places of a file, `items` finds them in HEIF, and `spelling`
reads a written date.

Standard library only, no Pillow. All content is taken for hostile: sizes and counts are bounded, and damage counts as
an absent date. Imported by `pictures.decode`; its only import is `pictures.extras.bmff`.
"""
