"""Importing this room's modules fills the registry; asking for the catalogue does it once."""


def fill() -> None:
    """Register every data set that comes with the framework."""
    import xai.data.disk
    import xai.data.fashion
    import xai.data.packaged
    import xai.data.pair
    import xai.data.parity  # noqa: F401
