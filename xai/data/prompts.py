"""The words of a data set: templates that turn a class name into captions, and names where the disk holds none.

The fixed class-embedding matrix W of a CLIP classifier is the mean text embedding over these captions.
"""

DEFAULT_PROMPTS = ("a photo of a {}.", "art of the {}.")

_PHOTO = ("a photo of a {}.", "a close-up photo of a {}.", "a cropped photo of a {}.", "a good photo of the {}.")
_SATELLITE = ("a satellite photo of {}.", "an aerial view of {}.", "a centred satellite photo of {}.")
_NUMBER = ('a photo of the number: "{}".', 'a handwritten digit "{}".', "a picture of the digit {}.")

GLYPH_CAPTIONS = (
    "a photo of the number {}.",
    "a handwritten {}.",
    "a handwritten digit {}.",
    "a picture of the digit {}.",
    "the letter {}",
    "a drawing of a {}",
    "a printed {}",
)
"""What the embedded CLIP is pre-trained with."""

PROMPTS: dict[str, tuple[str, ...]] = {
    "folder": DEFAULT_PROMPTS,
    "imagenet": (*_PHOTO, "a bad photo of a {}.", "art of the {}.", "a photo of a small {}.", "a photo of a large {}."),
    "cars": ("a photo of a {}.", "a photo of the {}, a car.", "a photo of a clean {}.", "a photo of my dirty {}."),
    "dtd": ("a photo of a {} texture.", "a photo of a {} pattern.", "a photo of something {}.", "a {} surface."),
    "eurosat": _SATELLITE,
    "gtsrb": (
        'a zoomed in photo of a "{}" traffic sign.',
        'a centred photo of a "{}" traffic sign.',
        'a close-up photo of a "{}" traffic sign.',
    ),
    "resisc45": ("a satellite photo of a {}.", "an aerial photo of a {}.", "a photo of a {} seen from above."),
    "sun397": ("a photo of a {}.", "a photo of the {}, a place.", "a view of the {}."),
    "svhn": ('a photo of the number: "{}".', 'a street sign of the number: "{}".', "a house number {}."),
    "glyphs": GLYPH_CAPTIONS,
    "mnist": _NUMBER,
    "digits": _NUMBER,
    "mnist_parity": ("a photo of an {} number.", 'a handwritten digit that is "{}".', "a picture of an {} digit."),
    "fashion": ("a photo of a {}.", "a picture of a {}, a piece of clothing.", "a product photo of a {}."),
    "imagenette": _PHOTO,
    "pet": ("a photo of a {}.", "a photo of a {}, a type of pet.", "a close-up photo of a {}."),
    "mura": ("an X-ray of an arm, {}.", "a radiograph of the upper limb that is {}.", "the finding is {}."),
    "wbc": ("a photo of a {}.", "a micrograph of a {}.", "a {} in a blood smear."),
    "cifar100": ("a photo of a {}.", "a blurry photo of a {}.", "a low resolution photo of a {}.", "a small {}."),
    "stl10": _PHOTO,
}

DIGITS = tuple("0123456789")

# In the order of the labels 0 ... 9.
FASHION = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

IMAGENETTE_NAMES: dict[str, str] = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}

# As its authors spell the folders.
WBC_NAMES: dict[str, str] = {
    "Basophile": "basophil",
    "Eosinophile": "eosinophil",
    "Lymphoblast": "lymphoblast",
    "Lymphocyte": "lymphocyte",
    "Monocyte": "monocyte",
    "Myeloblast": "myeloblast",
    "Neutrophile Band": "band neutrophil",
    "Neutrophile Segment": "segmented neutrophil",
    "Normoblast": "normoblast",
}

EUROSAT_NAMES: dict[str, str] = {
    "AnnualCrop": "annual crop land",
    "Forest": "forest",
    "HerbaceousVegetation": "herbaceous vegetation",
    "Highway": "a highway or road",
    "Industrial": "industrial buildings",
    "Pasture": "pasture land",
    "PermanentCrop": "permanent crop land",
    "Residential": "residential buildings",
    "River": "a river",
    "SeaLake": "a sea or lake",
}

# In the order of the folders 00000 ... 00042.
GTSRB_NAMES: tuple[str, ...] = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no overtaking",
    "no overtaking by lorries",
    "right of way at the next crossing",
    "priority road",
    "give way",
    "stop",
    "empty red circle, no vehicles",
    "no lorries",
    "no entry",
    "exclamation mark, general danger",
    "dangerous bend to the left",
    "dangerous bend to the right",
    "double bend",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road works",
    "traffic lights ahead",
    "pedestrians",
    "children crossing",
    "bicycles crossing",
    "snow or ice",
    "wild animals crossing",
    "end of all speed and overtaking limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "straight ahead or right",
    "straight ahead or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no overtaking",
    "end of no overtaking by lorries",
)
