"""Which files are pictures, by how their names end."""

_READ = "jpg jpeg jpe jfif jif pjpeg png apng ppm pgm pbm pnm bmp dib gif tif tiff webp avif jp2 j2k tga ico"
_UNREAD = "heic heif hif jxl raw dng cr2 cr3 nef arw orf rw2 raf psd xcf svg eps pdf exr hdr dcm nii npy"
PICTURES, UNREAD_PICTURES = (frozenset(f".{kind}" for kind in kinds.split(" ")) for kinds in (_READ, _UNREAD))
"""Of files that are read as pictures; and of pictures that are refused by name, and not passed over in silence."""
