"""The words that the demo scenes are made of: what is drawn, how it is drawn, and what people call it.

Everything here is data. A thing is one colour emoji; the sprite sheet holds them in the order of `SPRITES`.
"""

# Things, by the one word that captions use for them. Irregular plurals stand in PLURALS.
ANIMALS = {
    "cat": "🐈", "dog": "🐕", "horse": "🐎", "cow": "🐄", "pig": "🐖", "goat": "🐐", "camel": "🐫", "llama": "🦙",
    "giraffe": "🦒", "elephant": "🐘", "rhino": "🦏", "hippo": "🦛", "mouse": "🐁", "rabbit": "🐇", "squirrel": "🐿",
    "hedgehog": "🦔", "bat": "🦇", "bear": "🐻", "panda": "🐼", "koala": "🐨", "sloth": "🦥", "otter": "🦦",
    "skunk": "🦨", "kangaroo": "🦘", "badger": "🦡", "turkey": "🦃", "rooster": "🐓", "chick": "🐥", "penguin": "🐧",
    "eagle": "🦅", "duck": "🦆", "swan": "🦢", "owl": "🦉", "flamingo": "🦩", "peacock": "🦚", "parrot": "🦜",
    "frog": "🐸", "crocodile": "🐊", "turtle": "🐢", "lizard": "🦎", "snake": "🐍", "dragon": "🐉", "whale": "🐋",
    "dolphin": "🐬", "seal": "🦭", "shark": "🦈", "octopus": "🐙", "snail": "🐌", "butterfly": "🦋", "ant": "🐜",
    "bee": "🐝", "ladybug": "🐞", "spider": "🕷", "scorpion": "🦂", "crab": "🦀", "lobster": "🦞", "lion": "🦁",
    "tiger": "🐅", "monkey": "🐒", "gorilla": "🦍", "wolf": "🐺", "fox": "🦊", "raccoon": "🦝", "zebra": "🦓",
    "deer": "🦌", "bison": "🦬",
}  # fmt: skip
OBJECTS = {
    "apple": "🍎", "banana": "🍌", "pear": "🍐", "lemon": "🍋", "watermelon": "🍉", "strawberry": "🍓",
    "pineapple": "🍍", "avocado": "🥑", "carrot": "🥕", "mushroom": "🍄", "pumpkin": "🎃", "pizza": "🍕",
    "burger": "🍔", "donut": "🍩", "cookie": "🍪", "cake": "🎂", "ball": "⚽", "guitar": "🎸", "violin": "🎻",
    "trumpet": "🎺", "drum": "🥁", "clock": "⏰", "key": "🔑", "hat": "🎩", "shoe": "👞", "crown": "👑",
    "camera": "📷", "laptop": "💻", "television": "📺", "bell": "🔔", "gift": "🎁", "candle": "🕯", "cup": "☕",
    "rocket": "🚀", "airplane": "✈", "helicopter": "🚁", "kite": "🪁", "bicycle": "🚲", "bus": "🚌", "truck": "🚚",
    "tractor": "🚜", "robot": "🤖", "snowman": "⛄", "ghost": "👻", "cactus": "🌵", "sunflower": "🌻", "rose": "🌹",
}  # fmt: skip
# Things that are drawn in a colour of their own choosing; their captions may name it.
PAINTED = {"heart": "❤", "balloon": "🎈", "shirt": "👕", "star": "⭐", "book": "📕"}
THINGS = ANIMALS | OBJECTS | PAINTED

# What a thing is on, in, under or behind. Those not listed in FURNITURE_SPRITES are drawn with rectangles and lines.
PLACES = {
    "couch": "on", "bed": "on", "chair": "on", "table": "on", "bench": "on", "car": "in", "boat": "in", "box": "in",
    "bathtub": "in", "umbrella": "under", "tree": "under", "fence": "behind",
}  # fmt: skip
FURNITURE_SPRITES = {
    "couch": "🛋", "bed": "🛏", "chair": "🪑", "car": "🚗", "bathtub": "🛁", "umbrella": "☂", "tree": "🌳",
}  # fmt: skip
SPRITES = THINGS | FURNITURE_SPRITES

PLURALS = {
    "mouse": "mice", "butterfly": "butterflies", "wolf": "wolves", "fox": "foxes", "deer": "deer", "bison": "bison",
    "octopus": "octopuses", "strawberry": "strawberries", "cactus": "cacti", "bus": "buses",
    "snowman": "snowmen", "man": "men", "woman": "women", "child": "children", "knife": "knives", "moose": "moose",
    "salmon": "salmon", "squid": "squid", "scarf": "scarves", "baby": "babies", "cherry": "cherries",
}  # fmt: skip
# A second word for the same thing; captions use it now and then.
SYNONYMS = {
    "couch": "sofa", "bicycle": "bike", "airplane": "plane", "television": "tv", "rabbit": "bunny",
    "rhino": "rhinoceros", "hippo": "hippopotamus", "gift": "present", "donut": "doughnut", "burger": "hamburger",
    "cup": "mug", "bathtub": "tub", "ball": "football", "truck": "lorry", "ladybug": "ladybird",
}  # fmt: skip
SYNONYM_PLURALS = {
    "bunny": "bunnies", "lorry": "lorries", "hippopotamus": "hippopotamuses", "rhinoceros": "rhinoceroses",
}  # fmt: skip

COLOURS = {
    "red": (214, 40, 40), "orange": (245, 130, 32), "yellow": (250, 208, 44), "green": (52, 160, 72),
    "blue": (45, 100, 220), "purple": (135, 60, 180), "pink": (245, 130, 180), "black": (50, 50, 54),
    "white": (238, 238, 240),
}  # fmt: skip
SIZES = {"small": 0.55, "big": 1.5}  # factor on the usual size
NUMBERS = ("", "one", "two", "three", "four")  # index is the count; "a" is the usual word for one

# Where the scene is; the first phrase is the usual one. "" is a plain backdrop, of which nothing is said.
BACKGROUNDS = {
    "": (), "snow": ("in the snow", "on a snowy day"), "sea": ("by the sea", "at the beach"),
    "night": ("at night", "in the dark"), "desert": ("in the desert", "on the sand"),
    "meadow": ("in a meadow", "on the grass"), "forest": ("in the forest", "in the woods"),
    "sunset": ("at sunset", "in the evening"), "rain": ("in the rain", "on a rainy day"),
    "city": ("in the city", "in front of tall buildings"),
}  # fmt: skip

# Nouns that are never drawn: a caption with one of them is false of every scene. They teach the matching head that
# an unknown thing is no match, instead of leaving such texts to chance.
UNDRAWN = (
    "man woman child player teacher doctor king queen baby girl boy crowd house castle bridge mountain river road "
    "street tower church school kitchen garden island volcano waterfall cloud rainbow moon sun planet bottle glass "
    "fork spoon "
    "knife plate bowl pan sandwich salad soup bread cheese egg steak noodle grape peach cherry onion potato tomato "
    "computer phone radio printer keyboard window door mirror carpet curtain pillow blanket bucket hammer ladder rope "
    "saw drill needle button jacket coat dress sock glove scarf ring necklace watch wallet bag suitcase sword shield "
    "arrow bomb flag map coin ticket letter stamp newspaper piano flute harp harmonica skateboard ski surfboard sled "
    "tent campfire lantern anchor train tram taxi motorcycle scooter submarine ship canoe tank ambulance dinosaur "
    "unicorn mammoth worm mosquito moth salmon squid jellyfish ostrich pelican crow sparrow pigeon hamster beaver moose"
).split()
