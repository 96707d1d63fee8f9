"""The 45 common animals of the paper, in the order of its list, and what is kept apart from
them.
"""

NAMES = (
    "cat", "dog", "horse", "monkey", "rabbit", "zebra", "spider", "bird", "sheep", "deer", "cow",
    "goat", "lion", "tiger", "bear", "raccoon", "fox", "wolf", "lizard", "beetle", "ant",
    "butterfly", "fish", "shark", "whale", "dolphin", "squirrel", "mouse", "rat", "snake", "turtle",
    "frog", "chicken", "duck", "goose", "bee", "pig", "turkey", "fly", "llama", "camel", "bat",
    "gorilla", "hedgehog", "kangaroo",
)  # fmt: skip

UNSEEN = (
    "penguin", "elephant", "owl", "crab", "octopus", "snail", "panda", "koala", "flamingo",
    "hippopotamus", "giraffe", "crocodile", "rooster", "peacock",
)  # fmt: skip
"""Not among them, and known to the embedded model from its pretraining."""
UNSEEN_ACTIVITIES = ("playing the guitar", "eating a pizza", "reading a book")
"""Not among the paper's three."""
