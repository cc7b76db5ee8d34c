"""The photographs that come with scikit-image, found without importing it.

===============  =======  ===================================================================
astronaut        512x512  a woman in a space suit, a flag behind her (NASA, public domain)
camera           512x512  grey; a man with a camera on a tripod, on a lawn (CC0)
chelsea          451x300  a cat's face (CC0)
coffee           600x400  a cup of espresso on a saucer, a spoon (CC0)
motorcycle_left  741x500  a red motorcycle in a garage (Middlebury 2014; research terms)
rocket           640x427  a rocket on its pad, at night (public domain)
===============  =======  ===================================================================
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

from PIL import Image

FILES: Final = {
    "astronaut": "astronaut.png",
    "camera": "camera.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "motorcycle_left": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}


def photograph_path(name: str) -> Path:
    """The file of a photograph, as a worker would be given it. Not to be written to."""
    package = importlib.util.find_spec("skimage")
    assert package is not None, "scikit-image is not installed"
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "data" / FILES[name]


def photograph(name: str) -> Image.Image:
    """A photograph in RGB, in memory."""
    with Image.open(photograph_path(name)) as image:
        return image.convert("RGB")
