"""The words that the demo scenes are made of: what is drawn, how it is drawn, and what people call it.

Everything here is data. A thing is one colour emoji; a sprite sheet holds them in the order of `SPRITES`, or of
`NEW_THINGS`.
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
# Things that the demo model has never seen and words that it has never read: `bt train` teaches them.
NEW_THINGS = {
    "sheep": "🐑", "boar": "🐗", "orangutan": "🦧", "poodle": "🐩", "donkey": "🫏", "goose": "🪿", "dodo": "🦤",
    "cricket": "🦗", "beetle": "🪲", "alien": "👽", "tangerine": "🍊", "blueberry": "🫐", "lollipop": "🍭",
    "cupcake": "🧁", "hotdog": "🌭", "saxophone": "🎷", "accordion": "🪗", "banjo": "🪕", "microscope": "🔬",
    "telescope": "🔭", "compass": "🧭", "thermometer": "🌡", "flashlight": "🔦", "fountain": "⛲", "statue": "🗽",
    "abacus": "🧮", "trophy": "🏆", "basketball": "🏀", "backpack": "🎒", "briefcase": "💼", "lightbulb": "💡",
    "satellite": "🛰", "teddy": "🧸", "screwdriver": "🪛", "boot": "👢", "brain": "🧠", "tooth": "🦷", "bone": "🦴",
    "helmet": "🪖", "seashell": "🐚",
}  # fmt: skip

PLURALS = {
    "mouse": "mice", "butterfly": "butterflies", "wolf": "wolves", "fox": "foxes", "deer": "deer", "bison": "bison",
    "octopus": "octopuses", "strawberry": "strawberries", "cactus": "cacti", "bus": "buses",
    "snowman": "snowmen", "man": "men", "woman": "women", "child": "children", "knife": "knives", "moose": "moose",
    "salmon": "salmon", "squid": "squid", "scarf": "scarves", "baby": "babies", "cherry": "cherries",
    "sheep": "sheep", "goose": "geese", "tooth": "teeth", "blueberry": "blueberries", "trophy": "trophies",
    "teddy": "teddies",
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
# Nouns that are never drawn and not in the vocabulary: the tokenizer spells them in pieces.
UNMET = (
    "acorn acrobat actor admiral adapter album alarm almond amplifier anklet antelope anvil apartment apricot apron "
    "aquarium archer armadillo artichoke asparagus atlas attic aubergine axe baboon bacon badge bagel bagpipe baker "
    "ballerina bamboo bandage banker banner barber barn barrel barrow basement basil basket baton beacon bead beanbag "
    "bellows belt bib binoculars biscuit blackbird blackboard blazer blimp blouse bobcat boiler bolt bonnet boomerang "
    "boulder bouquet bowtie bracelet brick bride broccoli brooch broom brownie bugle builder bulb bulldozer bullet "
    "bumper bungalow burrito buzzard cabbage cabin cabinet cable calendar campsite canal candlestick cannon canyon "
    "cape caravan cardigan caribou carnation carousel carriage cart carton cashew castanet catapult caterpillar "
    "catfish cathedral cauldron cauliflower cave cellar chain chainsaw chalk champagne chandelier chapel chariot "
    "chauffeur cheetah chess chestnut chimney chimpanzee chipmunk chisel chocolate chopstick cigar cinema clam "
    "clarinet cleaver clipboard cloak clown clover cobweb cockatoo cockpit cockroach coconut cod coffin collar comb "
    "comet compressor conductor cone container cook coral corkscrew corn cottage cotton cougar courgette cowboy "
    "coyote cracker cradle crane crayon cricketer crocus crossbow croissant crossroad crutch crystal cucumber "
    "cupboard cushion cymbal daffodil dagger dahlia dam dartboard dashboard desk detective diamond diaper dice dingo "
    "diver dock dome doorbell doormat dove drain drawer dresser driver dumbbell dumpling dustbin earring easel "
    "echidna eel electrician elevator elk emerald emu engine engineer envelope eraser ermine escalator espresso "
    "falafel fan farmer faucet feather ferret fig filter finch fireplace firework fisherman fjord flask flea flipper "
    "flounder folder footprint forklift fossil foxglove freezer frisbee funnel furnace garage gardener gargoyle "
    "garlic gate gazelle gear geranium gibbon ginger glacier glider globe goalkeeper goblet goblin goggles goldfish "
    "golfer gondola gong gown grain gramophone grater grave gravel grill guardsman guitarist gull gun gym gymnast "
    "haddock hairbrush hairdryer halibut hammock handbag handle hanger hare harness harpoon hatch hatchet hawk "
    "hazelnut headband headlamp headphone hearth heater hedge heel helium hermit heron herring highway hinge hive hob "
    "hockey hoe honey honeycomb hood hook hoop hose hospital hostel hotel hourglass hovercraft hut hyena ibex ibis "
    "iceberg icicle igloo ink inkwell iris iron jackal jaguar jam jar javelin jeans jellybean jersey jetski jewel "
    "jigsaw joystick judge judo jug juggler jukebox jumper karaoke kayak kebab keg kennel kerosene ketchup kestrel "
    "kimono kingfisher kiosk kiwi knight knot koi ladle lamp lampshade lapel larder lark lasso lathe lava lavender "
    "lawnmower leek leggings lemming lemur leopard lettuce lever lilac lime linen lipstick lock locket locker "
    "locomotive locust loom lotus loudspeaker lupin lute lynx macaroni macaw mackerel magician magnet magnolia magpie "
    "maid mailbox mailman mallet mandolin mango mannequin manta mantis marble marigold marker marmot marquee mask "
    "mason matchbox maypole meatball medal melon meerkat megaphone meteor metronome microphone microwave milk "
    "milkshake mill miner mitten mixer moat monument mop moped mosaic mosque mule muffin museum musician mussel "
    "mustard napkin nest net nightingale ninja notebook nun nurse nut nutcracker oar oasis oboe obelisk ocelot "
    "octagon olive omelette orchard orchid organ oriole ostler ottoman outlet overcoat oyster paddle padlock pagoda "
    "pail paint paintbrush painter pajama palace palette pancake pangolin panther papaya paperclip parachute parcel "
    "parka parsley parsnip partridge passport pasta pawn peanut pebble pedal pelmet pen pencil pendant pendulum "
    "pepper perfume periscope petrol petunia pheasant photocopier pickaxe pickle pie pier pillar pilot pinboard "
    "pinecone pistachio pitcher pitchfork plaster plateau platform platypus plier plough plug plum plumber podium "
    "poker poncho pond pool popcorn porcupine porpoise porridge pot potter pram prawn pretzel priest prince princess "
    "projector propeller prune puddle puffin puma pump purse puzzle pyramid quail quartz quilt quince quiver rack "
    "racket radar radiator radish raft railway raisin rake ramp rat rattle raven razor receiver recorder referee "
    "remote restaurant ribbon rice rickshaw rifle rink roadsign rodeo roller rower rubber rucksack rudder rug ruler "
    "runner sack saddle sailor salamander salami saloon samosa samurai sandcastle sapphire sardine saucepan saucer "
    "sauna sausage scaffold scallop scanner scarecrow scientist scissor scone scoop scroll sculptor sculpture "
    "seahorse seesaw seaweed semaphore sequin shaker shallot shampoo shawl shed shovel shower shrew shrimp signpost "
    "silo singer sink siren sitar skeleton skater skier skirt skull slate sledge sledgehammer sleeve slide slug snack "
    "snooker snorkel snowboard snowflake soap soldier sombrero spade spaghetti spanner spear speaker spectacle sphinx "
    "spinach sponge spool spoonbill spotlight sprinkler squash stadium stage stair stapler station steamer steeple "
    "stethoscope stew stilt stingray stirrup stocking stoat stopwatch stork stove strainer straw stretcher stroller "
    "studio suit sundial sundae surfer surgeon sushi suspender sweater sweatshirt swing switch swordfish syringe "
    "syrup tablet tablecloth taco tadpole tailor tanker tap tapir tart tarsier teabag teapot telegraph telephone "
    "temple tennis termite terminal terrace theatre thermos thimble thistle throne tiara tie tile timer tin tire "
    "toast tofu toilet tomahawk tongs toolbox toothbrush toothpaste torch tornado tortilla toucan towel trailer "
    "trampoline trapeze tray treadmill treehouse tricycle trident tripod trolley trombone trouser trout trowel "
    "truffle trunk tuba tulip tuna tunnel turban turbine turnip tuxedo tweezer typewriter ukulele umpire underpass "
    "uniform urn vacuum valley valve vase vault veil velvet vest vicar videotape villa vine vinegar viola visor "
    "waffle wagon waiter waitress walkway wall walnut wand wardrobe warehouse warrior warthog washbasin wasp weasel "
    "webcam wedge weightlifter wheel wheelbarrow wheelchair whip whirlpool whisk whistle wig wigwam wine wolverine "
    "wombat woodpecker workbench wreath wren wrench wrestler yacht yak yarn yoghurt yoyo zebu zeppelin zipper zither "
    "zookeeper zucchini"
).split()
# Such nouns that no training shows: to measure on.
UNHEARD = (
    "aeroplane bishop dentist violinist helmet sunglasses lighthouse windmill fountain statue orchestra dancer "
    "swimmer cyclist firefighter astronaut pirate wizard mermaid robin falcon vulture walrus narwhal tortoise iguana "
    "chameleon gecko toad newt hornet beetle cricket grasshopper dragonfly centipede trumpeter accordion banjo cello "
    "saxophone tambourine xylophone microscope telescope compass thermometer calculator toaster kettle "
    "blender oven fridge"
).split()
