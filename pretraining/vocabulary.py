"""The words of the captions, and the Unicode code point each picture is drawn from.

Reinforcement learning later trains on `ANIMALS` and `ACTIVITIES`; what stands under `UNSEEN_*` is known to the
pretrained model but kept out of every training prompt set, so that generalisation can be measured.
"""

# The 45 animals of DDPO's tasks (jannerm/ddpo, common_animals), by the head where a head is plainer at 64 pixels.
ANIMALS = {
    "cat": "1f431", "dog": "1f436", "horse": "1f434", "monkey": "1f435", "rabbit": "1f430",
    "zebra": "1f993", "spider": "1f577", "bird": "1f426", "sheep": "1f411", "deer": "1f98c",
    "cow": "1f42e", "goat": "1f410", "lion": "1f981", "tiger": "1f42f", "bear": "1f43b",
    "raccoon": "1f99d", "fox": "1f98a", "wolf": "1f43a", "lizard": "1f98e", "beetle": "1fab2",
    "ant": "1f41c", "butterfly": "1f98b", "fish": "1f420", "shark": "1f988", "whale": "1f433",
    "dolphin": "1f42c", "squirrel": "1f43f", "mouse": "1f42d", "rat": "1f400", "snake": "1f40d",
    "turtle": "1f422", "frog": "1f438", "chicken": "1f414", "duck": "1f986", "goose": "1fabf",
    "bee": "1f41d", "pig": "1f437", "turkey": "1f983", "fly": "1fab0", "llama": "1f999",
    "camel": "1f42b", "bat": "1f987", "gorilla": "1f98d", "hedgehog": "1f994", "kangaroo": "1f998",
}  # fmt: skip
UNSEEN_ANIMALS = {
    "penguin": "1f427", "elephant": "1f418", "owl": "1f989", "crab": "1f980", "octopus": "1f419",
    "snail": "1f40c", "panda": "1f43c", "koala": "1f428", "flamingo": "1f9a9", "hippopotamus": "1f99b",
    "giraffe": "1f992", "crocodile": "1f40a", "rooster": "1f413", "peacock": "1f99a",
}  # fmt: skip
OBJECTS = {
    "apple": "1f34e", "banana": "1f34c", "car": "1f697", "bus": "1f68c", "bicycle": "1f6b2",
    "airplane": "2708", "boat": "26f5", "rocket": "1f680", "house": "1f3e0", "tree": "1f333",
    "sunflower": "1f33b", "rose": "1f339", "cactus": "1f335", "mushroom": "1f344", "star": "2b50",
    "moon": "1f319", "heart": "2764", "balloon": "1f388", "gift": "1f381", "ball": "26bd",
    "clock": "23f0", "umbrella": "2602", "key": "1f511", "hat": "1f3a9", "trumpet": "1f3ba",
    "drum": "1f941", "camera": "1f4f7", "cup": "2615", "cake": "1f370", "hamburger": "1f354",
    "egg": "1f95a", "carrot": "1f955", "tomato": "1f345", "strawberry": "1f353", "lemon": "1f34b",
    "hammer": "1f528", "pencil": "270f", "chair": "1fa91", "crown": "1f451", "pumpkin": "1f383",
}  # fmt: skip

# Drawn from the second set of glyphs.SETS, where it is the plainer of the two.
FLAT = {
    "raccoon", "lizard", "beetle", "butterfly", "whale", "dolphin", "rat", "snake", "turtle", "bee", "fly", "bat",
    "gorilla", "hedgehog", "kangaroo", "penguin", "crab", "crocodile", "elephant", "octopus",
}  # fmt: skip

# An activity is an animal beside the thing that the activity needs.
ACTIVITIES = {"riding a bike": "1f6b2", "washing the dishes": "1f37d", "playing chess": "265f"}
UNSEEN_ACTIVITIES = {
    "playing the guitar": "1f3b8",
    "eating a pizza": "1f355",
    "reading a book": "1f4d6",
}

COLOURS = {
    "red": (225, 60, 55), "blue": (70, 120, 220), "green": (80, 170, 85), "yellow": (245, 215, 80),
    "purple": (140, 85, 190), "orange": (245, 150, 50), "pink": (245, 165, 195),
    "white": (246, 246, 246), "black": (30, 30, 34), "gray": (140, 140, 145),
}  # fmt: skip
COUNTS = range(2, 9)

ALL_ANIMALS = ANIMALS | UNSEEN_ANIMALS
ALL_ACTIVITIES = ACTIVITIES | UNSEEN_ACTIVITIES
CODE_POINTS = ALL_ANIMALS | OBJECTS | ALL_ACTIVITIES
