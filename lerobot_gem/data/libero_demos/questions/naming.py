"""What LIBERO's objects are called."""

_NAMES = {
    "akita black bowl": "black bowl",
    "glazed rim porcelain ramekin": "ramekin",
    "cookies": "cookie box",
    "flat stove": "stove",
    "chefmate 8 frypan": "frying pan",
    "new salad dressing": "salad dressing",
    "white yellow mug": "yellow and white mug",
    "wooden two layer shelf": "wooden shelf",
    "porcelain mug": "white mug",
}


def display_name(name: str) -> str:
    """What LIBERO's object "akita_black_bowl_1" is called: "black bowl"."""
    words = name.rsplit("_", 1)[0].replace("_", " ")
    return _NAMES.get(words, words)
