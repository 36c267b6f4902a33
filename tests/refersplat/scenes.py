"""Scenes of words and boxes, and questions about them, written before they were first asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from refer3d.language import COLORS
from refer3d.text_encoder import TextEncoder
from refersplat.cameras import Camera
from refersplat.config import MatchConfig
from refersplat.language.answer import Language
from refersplat.language.attributes import GroupAttributes
from refersplat.language.groups import Groups
from refersplat.language.places import Places


class Item(NamedTuple):
    """One object."""

    box: tuple[float, ...]
    """Centre to the east and to the north, bottom; size along each axis; all in cm."""
    colors: Mapping[str, float]
    """Share of its surface that has each colour."""
    sentences: Sequence[str]


class ImaginedScene:
    """Objects with their sentences, seen from the south."""

    def __init__(
        self, items: Mapping[str, Item], encoder: TextEncoder, options: MatchConfig | None = None
    ) -> None:
        self.names, values = list(items), list(items.values())
        boxes = torch.tensor([item.box for item in values], dtype=torch.float32)
        size = boxes[:, 3:]
        low = boxes[:, :3] - size / 2 * torch.tensor([1.0, 1, 0])
        colors = [[item.colors.get(color, 0.0) for color in COLORS] for item in values]
        owners = [group for group, item in enumerate(values) for _ in item.sentences]
        rows = [tuple(i for i, o in enumerate(owners) if o == g) for g in range(len(values))]
        member = torch.arange(2 * len(values))[:, None] // 2 == torch.arange(len(values))
        attributes = GroupAttributes(low, low + size, torch.tensor(colors))
        groups = Groups(torch.where(member, 6.0, -6.0), tuple(rows), attributes)
        sentences = [text for item in values for text in item.sentences]
        self.language = Language.fit(groups, sentences, encoder, options or MatchConfig())
        corners = torch.stack([low, low + size], dim=1).flatten(0, 1)  # [2 G, 3]
        self.places = Places.of(groups, corners)
        west, east, south = low[:, 0].min(), (low + size)[:, 0].max(), low[:, 1].min()
        pose = torch.eye(4)
        pose[:3, :3] = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
        eye = torch.stack([(west + east) / 2, south - (east - west), torch.tensor(50.0)])
        pose[:3, 3] = -pose[:3, :3] @ eye
        self.camera = Camera(pose, 140.0, 140.0, 160.0, 120.0, 320, 240)

    def __call__(self, sentence: str) -> set[str]:
        result = self.language.find(sentence, self.places, self.camera)
        return {self.names[group] for group in result.groups}

    def score(self, questions: str) -> tuple[int, list[str]]:
        """Counts right answers; returns the wrong ones, too.

        Args:
            questions: Lines "kind | sentence | objects"; ``-`` is none, ``|`` parts alternatives.
        """
        right, wrong = 0, []
        for line in questions.strip().splitlines():
            _, sentence, expected = line.split(" | ")
            answers = [{*answer.split(", ")} - {"-"} for answer in expected.split("|")]
            found = self(sentence)
            right += found in answers
            wrong += [] if found in answers else [f"{line}: {sorted(found)}"]
        return right, wrong


DESK = {
    "laptop": Item(
        (0, 10, 0, 34, 24, 22),
        {"gray": 0.6, "black": 0.3},
        (
            "The silver laptop with its lid open.",
            "A portable computer in the middle of the desk.",
            "The grey machine that one types emails on.",
            "The notebook computer between the two mugs.",
            "The widest thing on the desk, with a screen and a keyboard.",
        ),
    ),
    "blue mug": Item(
        (-32, 0, 0, 11, 9, 10),
        {"blue": 0.8},
        (
            "The blue mug left of the laptop.",
            "A dark blue cup with a round handle.",
            "The navy ceramic cup for hot tea.",
            "The coffee mug standing beside the notebook.",
        ),
    ),
    "yellow mug": Item(
        (30, -2, 0, 10, 8, 12),
        {"yellow": 0.7, "white": 0.2},
        (
            "The yellow mug with a smiling face.",
            "A cheerful cup to the right of the laptop.",
            "The bright yellow ceramic cup with a cartoon on it.",
            "The mug next to the headphones, taller than the blue one.",
        ),
    ),
    "notebook": Item(
        (-48, -6, 0, 15, 21, 2),
        {"black": 0.9},
        (
            "The black notebook with an elastic band.",
            "A paper journal with a dark leather cover.",
            "The diary lying at the left edge of the desk.",
            "The book for handwritten notes, near the blue cup.",
        ),
    ),
    "pencil": Item(
        (-47, -5, 2, 1, 17, 1),
        {"orange": 0.6, "yellow": 0.2},
        (
            "The orange pencil on the notebook.",
            "A sharpened wooden writing tool.",
            "The thin stick for drawing, lying on top of the journal.",
            "The pencil with an eraser at its end.",
        ),
    ),
    "charger": Item(
        (12, -18, 0, 7, 7, 3),
        {"white": 0.9},
        (
            "The white charger in front of the laptop.",
            "A power adapter for a phone.",
            "The small plug with a cable, which fills an empty battery.",
            "The square white block near the front of the desk.",
        ),
    ),
    "headphones": Item(
        (46, 2, 0, 19, 17, 8),
        {"black": 0.6, "gray": 0.2},
        (
            "The black headphones with soft ear pads.",
            "A headset for listening to music.",
            "The wireless headphones to the right of the yellow mug.",
            "The black thing one wears over both ears.",
        ),
    ),
    "lamp": Item(
        (-20, 30, 0, 18, 18, 45),
        {"green": 0.7, "gray": 0.1},
        (
            "The green desk lamp behind the laptop.",
            "A lamp with a bendable neck that lights the desk.",
            "The tall green reading light.",
            "The tallest object, which is switched on at night.",
        ),
    ),
    "cactus": Item(
        (25, 28, 0, 10, 10, 16),
        {"green": 0.6, "red": 0.3},
        (
            "The little cactus in a red clay pot.",
            "A prickly green plant behind the yellow mug.",
            "The potted succulent with sharp spines.",
            "The plant that hardly needs water, at the back of the desk.",
        ),
    ),
    "stapler": Item(
        (-8, -20, 0, 14, 4, 6),
        {"red": 0.9},
        (
            "The red stapler next to the charger.",
            "A tool that clips sheets of paper together.",
            "The red metal office tool at the front of the desk.",
            "The stapler, smaller than the laptop.",
        ),
    ),
}
DESK_QUESTIONS = """
word | laptop | laptop
word | the cactus | cactus
word | Headphones | headphones
word | where's the stapler? | stapler
word | phone charger | charger
paraphrase | what you plug into the wall | charger
paraphrase | something that would hurt to touch | cactus
paraphrase | what shuts out the noise of the office | headphones
paraphrase | it binds a report of three pages | stapler
paraphrase | where someone writes down private thoughts | notebook
paraphrase | the device with which one browses the web | laptop
paraphrase | what lights up a dark room | lamp
relation | the cup next to the notebook | blue mug
relation | what lies on the notebook? | pencil
relation | the thing between the two mugs | laptop
relation | the tool beside the charger | stapler
relation | the mug closest to the headphones | yellow mug
relation | the thing under the pencil | notebook
comparison | the taller of the two cups | yellow mug
comparison | the second tallest thing | laptop
comparison | the smallest green thing | cactus
comparison | the mug that is shorter than the other | blue mug
negation | the mug that isn't blue | yellow mug
negation | the green thing that is not a plant | lamp
negation | the black thing that isn't for writing in | headphones
negation | a computer accessory that is not white | headphones
several | both mugs | blue mug, yellow mug
several | the green things | lamp, cactus
several | all the cups and the lamp | blue mug, yellow mug, lamp
several | everything made for writing | notebook, pencil
several | everything electric | laptop, charger, headphones, lamp
none | the red mug | -
none | a glass of water | -
none | a plate of cookies | -
none | a pair of glasses | -
none | the printer | -
none | the cup on the notebook | -
view | the leftmost mug | blue mug
view | the thing at the far right | headphones
view | the second thing from the right | yellow mug
view | what is left of the stapler? | notebook|pencil|notebook, pencil|blue mug
view | the green thing on the left | lamp
"""
PICNIC = {
    "dog": Item(
        (-90, 20, 0, 70, 35, 45),
        {"brown": 0.5, "yellow": 0.3},
        (
            "A golden retriever resting in the grass.",
            "The furry animal that guards the food.",
            "A big blond dog, lying to the left of the blanket.",
            "Man's best friend, waiting for a walk.",
            "The pet with a wet nose and a wagging tail.",
        ),
    ),
    "basket": Item(
        (0, 30, 0, 45, 30, 30),
        {"brown": 0.8},
        (
            "A wicker basket with a lid.",
            "The woven hamper that sandwiches were carried in.",
            "The brown basket at the back of the blanket.",
            "A container made of willow, with two handles.",
            "The thing that was packed at home with lunch for the trip.",
        ),
    ),
    "guitar": Item(
        (85, 10, 0, 40, 12, 100),
        {"brown": 0.5, "orange": 0.3},
        (
            "An acoustic guitar leaning against the tree.",
            "The wooden instrument with six strings.",
            "Something to accompany songs around a campfire.",
            "The guitar standing at the right side.",
            "The instrument that is plucked with the fingers.",
        ),
    ),
    "flask": Item(
        (-20, 0, 0, 9, 9, 30),
        {"green": 0.8, "gray": 0.1},
        (
            "A green thermos flask with a screw cap.",
            "The metal bottle that keeps coffee warm for hours.",
            "The tall green vacuum flask next to the basket.",
            "A cylinder in dark green that one pours hot drinks from.",
        ),
    ),
    "lemonade": Item(
        (-5, -5, 0, 8, 8, 26),
        {"yellow": 0.6, "white": 0.2},
        (
            "A glass bottle of lemonade.",
            "The cloudy yellow soft drink, cold and sour.",
            "The bottle of pale yellow liquid to the right of the flask.",
            "Something refreshing to sip on a hot day.",
        ),
    ),
    "jam": Item(
        (12, -8, 0, 7, 7, 10),
        {"red": 0.8},
        (
            "A jar of strawberry jam with a checked lid.",
            "The sweet red spread for a slice of bread.",
            "The small glass jar beside the lemonade.",
            "Preserved fruit that is spooned out of a jar.",
        ),
    ),
    "bread": Item(
        (28, -2, 0, 30, 9, 8),
        {"brown": 0.9},
        (
            "A crusty baguette on the blanket.",
            "The long loaf that came fresh from the bakery.",
            "French bread, waiting to be sliced.",
            "The brown loaf lying near the jar of jam.",
        ),
    ),
    "hat": Item(
        (-40, -10, 0, 35, 33, 12),
        {"yellow": 0.4, "brown": 0.4},
        (
            "A straw hat with a wide brim.",
            "The headgear that protects from the sun.",
            "The hat with a black ribbon, left of the flask.",
            "Something a farmer would wear on his head in summer.",
        ),
    ),
    "ball": Item(
        (-120, -40, 0, 22, 22, 22),
        {"white": 0.6, "black": 0.3},
        (
            "A black and white football in the grass.",
            "The round leather ball that children kick around.",
            "The soccer ball in front of the dog.",
            "The toy that a team of eleven plays with.",
        ),
    ),
    "backpack": Item(
        (55, 25, 0, 32, 22, 48),
        {"blue": 0.8},
        (
            "A blue backpack with padded straps.",
            "The rucksack standing between the basket and the guitar.",
            "The bag that hikers carry on their shoulders.",
            "The blue canvas bag with many pockets and zippers.",
        ),
    ),
    "paperback": Item(
        (-32, -28, 0, 12, 18, 3),
        {"red": 0.4, "white": 0.3},
        (
            "A crime novel with a bent cover.",
            "The paperback lying in front of the hat.",
            "The thriller someone reads in the shade.",
            "The only thing here that has pages.",
        ),
    ),
}
PICNIC_QUESTIONS = """
word | guitar | guitar
word | the dog | dog
word | rucksack | backpack
word | a baguette | bread
word | soccer ball | ball
word | the novel | paperback
paraphrase | what would bark at a stranger | dog
paraphrase | something to play a tune on | guitar
paraphrase | what one would spread on toast | jam
paraphrase | whatever keeps the sun off one's face | hat
paraphrase | what a goalkeeper tries to catch | ball
paraphrase | something you would quench your thirst with | lemonade|flask|lemonade, flask
paraphrase | what you'd pass the time with, turning page after page | paperback
paraphrase | the piece of luggage to be worn on the back | backpack
paraphrase | a creature on four legs | dog
paraphrase | the thing all the food was brought in | basket
relation | the bottle next to the jam | lemonade
relation | the thing in front of the dog | ball
relation | the bag beside the guitar | backpack
relation | what stands between the flask and the jar? | lemonade
relation | the food closest to the lemonade | jam
comparison | the tallest thing | guitar
comparison | the smaller of the two bottles | lemonade
comparison | the largest food | bread
comparison | the bag that is bigger than the ball | backpack|basket
negation | the bottle that is not green | lemonade
negation | the brown thing that is neither a dog nor edible | basket|guitar
negation | the container that isn't made of glass | basket|flask|backpack
several | the two bottles | flask, lemonade
several | everything one can drink | lemonade, flask|lemonade
several | the bread and the jam | bread, jam
several | all the food | bread, jam
none | a cat | -
none | the red backpack | -
none | a bottle of ketchup | -
none | a loaf of cheese | -
none | the violin | -
none | a pair of shoes | -
none | a jar of pickles | -
none | the ball on the basket | -
view | the thing on the far left | ball
view | the rightmost bag | backpack
view | the second bottle from the left | lemonade
"""
PANTRY = {
    "peas": Item(
        (-40, 0, 0, 8, 8, 14),
        {"green": 0.8},
        (
            "The tall green can of peas.",
            "A tin of garden vegetables at the left end of the shelf.",
            "The green can, taller than the one with tomatoes.",
            "Peas for a soup, kept in metal.",
        ),
    ),
    "tomatoes": Item(
        (-25, 3, 0, 9, 9, 10),
        {"red": 0.8, "white": 0.1},
        (
            "The red can of chopped tomatoes.",
            "A tin for making pasta sauce, below the sardines.",
            "The red can between the peas and the oil.",
            "Peeled tomatoes, ready to cook.",
        ),
    ),
    "sardines": Item(
        (-24, 3, 10, 10, 7, 3),
        {"gray": 0.8},
        (
            "The flat silver can of sardines.",
            "A tin of small fish on top of the red can.",
            "The can that one opens with a ring.",
            "Seafood in oil, lying on the tomatoes.",
        ),
    ),
    "oil": Item(
        (-9, 2, 0, 7, 7, 28),
        {"yellow": 0.8},
        (
            "The tall bottle of olive oil.",
            "A bottle of yellow oil to the right of the red can.",
            "What one pours into a pan before frying.",
            "The yellow bottle, taller than the vinegar.",
        ),
    ),
    "banana": Item(
        (6, -12, 0, 18, 6, 4),
        {"yellow": 0.9},
        (
            "The ripe banana in front of the bowl.",
            "A curved yellow fruit.",
            "The fruit that has to be peeled.",
            "A long tropical fruit, lying at the front of the shelf.",
        ),
    ),
    "bowl": Item(
        (14, 8, 0, 20, 20, 9),
        {"white": 0.9},
        (
            "The white porcelain bowl.",
            "A round dish with a lemon in it.",
            "The bowl behind the banana.",
            "A vessel for salad or cereals.",
        ),
    ),
    "lemon": Item(
        (14, 8, 3, 7, 7, 6),
        {"yellow": 0.9},
        (
            "The lemon in the white bowl.",
            "A sour yellow citrus fruit.",
            "The fruit that is squeezed over fish.",
            "The small round yellow fruit.",
        ),
    ),
    "vinegar": Item(
        (35, 5, 0, 6, 6, 22),
        {"brown": 0.8},
        (
            "The brown bottle of vinegar.",
            "A bottle of sour dressing for salads.",
            "The vinegar, to the right of the bowl.",
            "The dark brown bottle beside the towel.",
        ),
    ),
    "towel": Item(
        (45, -12, 0, 24, 15, 1),
        {"blue": 0.7, "white": 0.2},
        (
            "The folded blue towel.",
            "A cloth to dry the dishes with.",
            "The blue kitchen cloth at the front.",
            "A piece of cotton, lying in front of the vinegar.",
        ),
    ),
    "paprika": Item(
        (60, 4, 0, 5, 5, 9),
        {"red": 0.8},
        (
            "The small jar of paprika.",
            "A red spice in a glass jar.",
            "The hot powder that seasons a goulash.",
            "The jar behind the towel.",
        ),
    ),
    "kettle": Item(
        (110, 10, 0, 20, 18, 24),
        {"black": 0.8},
        (
            "The black electric kettle.",
            "A device that boils water for tea.",
            "The kettle at the right end, far from the cans.",
            "The black appliance with a spout and a handle.",
        ),
    ),
}
PANTRY_QUESTIONS = """
exclusion | the cans but not the tall one | tomatoes, sardines
exclusion | the can but not the tall one | tomatoes|sardines
exclusion | all the cans except the mug | peas, tomatoes, sardines
exclusion | everything except the cans | oil, banana, bowl, lemon, vinegar, towel, paprika, kettle
exclusion | all the bottles except the tall one | vinegar
exclusion | the cans other than the red one | peas, sardines
exclusion | the yellow things, but not the banana | oil, lemon
exclusion | all cans apart from the sardines | peas, tomatoes
exclusion | the cans without the red one | peas, sardines
exclusion | everything yellow but no fruit | oil
exclusion | all the fruit except the pear | banana, lemon
exclusion | a fruit that is neither a banana nor red | lemon
exclusion | any fruit but the lemon | banana
anchor | the can closest to another object | tomatoes|sardines
anchor | the thing that is far from everything else | kettle
anchor | the can next to something yellow | tomatoes|sardines
anchor | the yellow thing next to something white | lemon|banana|banana, lemon
anchor | the bottle next to something red | oil
anchor | the fruit that is inside something | lemon
anchor | a can that has nothing on it | peas|sardines
anchor | the can on another can | sardines
anchor | the can farthest from the other cans | peas
anchor | the thing farthest from any other thing | kettle
count | two bananas | banana
count | three bottles | oil, vinegar
count | two cans | peas, tomatoes|peas, sardines|tomatoes, sardines
count | four cans | peas, tomatoes, sardines
count | two mugs | -
count | one of the cans | peas|tomatoes|sardines
none | none of the cans | -
none | no bottle | -
none | not one of the cans | -
none | neither of the bottles | -
none | nothing | -
none | blorp fnord xyzzy | -
other | the other bottle | oil|vinegar|oil, vinegar
other | all the other cans | peas, tomatoes, sardines
order | the second can from the right | tomatoes
order | the third can from the left | sardines
order | the second bottle from the left | vinegar
order | the lowest thing | towel
order | the highest thing | oil
nested | the can without another can on it | peas|sardines
nested | the can under the can next to the bottle of oil | tomatoes
nested | the can next to the can under the sardines | peas
nested | the fruit in front of the bowl with another fruit in it | banana
nested | the bottle next to the bottle | -|oil|vinegar
"""
BENCH = {
    "toolbox": Item(
        (-60, 20, 0, 50, 25, 25),
        {"red": 0.8},
        (
            "The red metal toolbox at the left end of the bench.",
            "A case that a plumber carries to work.",
            "The big box with a handle, left of the bucket.",
            "The red chest for wrenches and pliers.",
        ),
    ),
    "hammer": Item(
        (-60, 20, 25, 30, 12, 4),
        {"brown": 0.5, "gray": 0.4},
        (
            "The hammer lying on the toolbox.",
            "A tool with a wooden handle and a steel head.",
            "What one drives nails into a wall with.",
            "The hammer on top of the red case.",
        ),
    ),
    "bucket": Item(
        (0, 20, 0, 28, 28, 26),
        {"blue": 0.9},
        (
            "The blue plastic bucket.",
            "A pail for water, in the middle of the bench.",
            "The round bucket with a sponge inside.",
            "The vessel for mopping the floor.",
        ),
    ),
    "sponge": Item(
        (0, 20, 4, 12, 8, 5),
        {"yellow": 0.9},
        (
            "The yellow sponge in the bucket.",
            "A soft thing to wipe dust off with.",
            "The sponge for washing a car.",
            "The porous yellow block inside the blue pail.",
        ),
    ),
    "paint": Item(
        (35, 15, 0, 18, 18, 20),
        {"white": 0.8},
        (
            "The white can of paint.",
            "A tin of wall paint with a brush on its lid.",
            "The metal can to the right of the bucket.",
            "What a room gets a new colour with.",
        ),
    ),
    "brush": Item(
        (35, 15, 20, 4, 20, 2),
        {"brown": 0.6, "black": 0.3},
        (
            "The brush on the can of paint.",
            "A painter's tool with bristles.",
            "The flat brown brush lying on the white tin.",
            "The brush with which walls are coated.",
        ),
    ),
    "screws": Item(
        (-20, -15, 0, 14, 10, 8),
        {"green": 0.9},
        (
            "The green box of screws.",
            "A carton of wood screws, left of the nails.",
            "The green package of fasteners with a thread.",
            "The box in front of the bucket, larger than the other one.",
        ),
    ),
    "nails": Item(
        (0, -18, 0, 9, 7, 5),
        {"gray": 0.8},
        (
            "The small gray box of nails.",
            "A little carton with nails for the hammer.",
            "The gray package beside the saw.",
            "The box of pointed metal pins.",
        ),
    ),
    "saw": Item(
        (30, -20, 0, 50, 12, 3),
        {"orange": 0.4, "gray": 0.5},
        (
            "The saw with an orange handle.",
            "A long blade with teeth that cuts planks.",
            "The hand saw lying at the front of the bench.",
            "The tool that cuts wood, right of the nails.",
        ),
    ),
    "jar": Item(
        (65, 10, 0, 9, 9, 14),
        {"gray": 0.2},
        (
            "The jam jar full of pencils.",
            "A glass jar with pencils in it.",
            "The glass container near the right end of the bench.",
            "The transparent jar beside the glue.",
        ),
    ),
    "pencils": Item(
        (65, 10, 2, 5, 5, 17),
        {"yellow": 0.3, "red": 0.3},
        (
            "The pencils in the glass jar.",
            "Carpenter's pencils to mark a plank.",
            "Several pencils standing in a jar.",
            "The wooden sticks that one draws lines with.",
        ),
    ),
    "gloves": Item(
        (75, -15, 0, 22, 12, 4),
        {"yellow": 0.8},
        (
            "The pair of yellow work gloves.",
            "Leather gloves that protect the hands.",
            "The yellow gloves at the right end of the bench.",
            "Something that is worn against blisters.",
        ),
    ),
    "glue": Item(
        (55, 25, 0, 6, 6, 18),
        {"white": 0.9},
        (
            "The white bottle of wood glue.",
            "An adhesive that sticks two boards together.",
            "The bottle behind the jar.",
            "The white plastic bottle with a pointed nozzle.",
        ),
    ),
}
_STANDING = "toolbox, bucket, paint, screws, nails, saw, jar, gloves, glue"
BENCH_QUESTIONS = f"""
pronoun | the bucket and the thing in it | bucket, sponge
pronoun | the paint and whatever lies on it | paint, brush
relation | the toolbox with a hammer on it | toolbox
nested | the box to the left of the smaller box | screws
nested | the thing on the thing left of the bucket | hammer
relation | what's under the brush | paint
allbut | all the tools but the saw | hammer|hammer, brush
size | which box is bigger, the one with screws or the one with nails? | screws
negation | the yellow thing that isn't in the bucket | gloves
purpose | something to glue wood together with | glue
relation | the jar next to the white bottle | jar
spelling | pencills | pencils
all | everything on the bench | {_STANDING}, hammer, sponge, brush, pencils|{_STANDING}
ordinal | the last thing on the right | gloves
isthere | is there a wrench? | -
howmany | how many boxes of nails do you see? | nails
passive | the tool that was left on the toolbox | hammer
pronoun | the paint next to the bucket with a sponge in it | paint
pronoun | the glue behind the jar with pencils in it | glue
pronoun | the screws left of the nails and the bucket behind them | screws, bucket
size | all things taller than the jar | toolbox, bucket, paint, pencils, glue
size | the thing that is bigger than the bucket | toolbox
closer | which is closer to me, the jar or the nails? | nails
closer | the tools closer to me than the paint | brush, saw
view | the last but one thing from the left | jar|pencils|glue
"""
