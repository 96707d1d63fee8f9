"""The paper's 45 common animals, in its order, and animals and activities outside its training
prompts.
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
"""Animals not among the 45. The embedded model knows them from its pretraining."""
UNSEEN_ACTIVITIES = ("playing the guitar", "eating a pizza", "reading a book")
"""Activities other than the paper's three."""
