"""Closed-class words of English: places, comparisons, quantifiers, colours, requests.

No names of things are listed here; what those mean is left to a language model.
"""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


COLORS = {
    "red": "red crimson scarlet ruby maroon burgundy",
    "orange": "orange amber",
    "yellow": "yellow golden gold brass",
    "green": "green olive emerald",
    "blue": "blue navy azure turquoise cyan teal",
    "purple": "purple violet lilac",
    "pink": "pink magenta",
    "brown": "brown tan beige wooden copper bronze",
    "black": "black",
    "white": "white ivory",
    "gray": "gray grey silver chrome steel",
}
"""Eleven basic colours and their other names."""

SIZES = {
    ("height", 1): "tall high",
    ("height", -1): "low flat short",
    ("length", 1): "long wide broad",
    ("length", -1): "narrow",
    ("volume", 1): "big large huge great bulky",
    ("volume", -1): "small little tiny mini wee",
    ("slenderness", 1): "thin slim slender",
    ("slenderness", -1): "thick fat",
    ("elevation", 1): "upper top topmost",
    ("elevation", -1): "lower bottom bottommost",
    ("centrality", 1): "middle central centermost middlemost",
    ("right", -1): "left leftmost left-most left-hand lefthand",
    ("right", 1): "right rightmost right-most right-hand righthand",
    ("depth", -1): "front frontmost foremost",
    ("depth", 1): "back rear hindmost rearmost",
    ("near", 1): "near close",
    ("near", -1): "far distant",
}
"""Adjectives, by the measure of an object that they grade and its direction. ``right`` and
``depth`` are measured from a camera, ``near`` from an anchor or, without one, from the camera."""

_IRREGULAR = {
    "higher": ("altitude", 1),
    "highest": ("altitude", 1),
    "lower": ("altitude", -1),
    "lowest": ("altitude", -1),
    "further": ("near", -1),
    "furthest": ("near", -1),
    "farther": ("near", -1),
    "farthest": ("near", -1),
    "littlest": ("volume", -1),
    "outermost": ("centrality", -1),
    "nearby": ("near", 1),
}

GRADES: dict[str, tuple[str, int, str]] = {}
"""Word: measure, direction and degree: ``plain``, ``more`` or ``most``."""
for (_measure, _sign), _words in SIZES.items():
    for _word in _words.split():
        _degree = "most" if _word.endswith("most") else "plain"
        GRADES[_word] = (_measure, _sign, _degree)
        if _measure in ("elevation", "centrality", "right", "depth"):
            continue
        _stems = {_word.removesuffix("e"), _word}
        if _word[-1] in "gtnm" and _word[-2] in "aeiou":
            _stems.add(_word + _word[-1])
        if _word.endswith("y"):
            _stems.add(_word[:-1] + "i")
        for _stem in _stems:
            GRADES.setdefault(_stem + "er", (_measure, _sign, "more"))
            GRADES.setdefault(_stem + "est", (_measure, _sign, "most"))
for _word, (_measure, _sign) in _IRREGULAR.items():
    _degree = "most" if _word.endswith("st") else "plain" if _word == "nearby" else "more"
    GRADES[_word] = (_measure, _sign, _degree)

ORDINALS = {
    "first": 1, "1st": 1, "second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4,
    "fifth": 5, "5th": 5, "sixth": 6, "6th": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10,
    "last": -1, "penultimate": -2,
}  # fmt: skip
"""Position in a row; -1 counts from its end."""
NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "both": 2, "pair": 2, "couple": 2, "single": 1, "only": 1,
}  # fmt: skip
ALL = word_set("all every each everything everybody any anything")

RELATIONS = {
    "near": "near nearby nearest beside besides by alongside adjacent next_to close_to near_to"
    " closest_to nearest_to"
    " adjacent_to along_with_at around touching against closer_to nearer_to at_the_side_of"
    " by_the_side_of on_the_side_of in_the_vicinity_of not_far_from",
    "far": "far_from away_from farther_from further_from farthest_from furthest_from"
    " far_away_from farthest_away_from furthest_away_from",
    "between": "between in_between amid amidst among amongst in_the_middle_of",
    "on": "on upon onto atop over above on_top_of on_the_top_of on_to on_the_lid_of",
    "under": "under underneath beneath below at_the_bottom_of at_the_foot_of",
    "inside": "in inside within into inside_of in_the_inside_of on_the_bottom_of",
    "left": "left_of to_the_left_of on_the_left_of at_the_left_of on_the_left_side_of"
    " to_the_left_side_of",
    "right": "right_of to_the_right_of on_the_right_of at_the_right_of on_the_right_side_of"
    " to_the_right_side_of",
    "front": "in_front_of before in_the_front_of",
    "behind": "behind in_back_of at_the_back_of in_the_back_of",
    "opposite": "opposite across_from opposite_to opposite_of at_the_opposite_end_of"
    " on_the_opposite_side_of on_the_other_side_of on_the_far_side_of at_the_other_end_of",
}
"""Prepositions, by the relation that they state; words of one preposition are joined by ``_``."""
TRIGGERS = {tuple(words.split("_")): kind for kind, all_ in RELATIONS.items()
            for words in all_.split()}  # fmt: skip
LONGEST_TRIGGER = max(map(len, TRIGGERS))

PLACES = {
    ("left",): ("right", -1),
    ("right",): ("right", 1),
    ("front",): ("depth", -1),
    ("foreground",): ("depth", -1),
    ("back",): ("depth", 1),
    ("rear",): ("depth", 1),
    ("background",): ("depth", 1),
    ("middle",): ("centrality", 1),
    ("centre",): ("centrality", 1),
    ("center",): ("centrality", 1),
    ("edge",): ("centrality", -1),
    ("corner",): ("centrality", -1),
    ("end",): ("centrality", -1),
    ("top",): ("elevation", 1),
    ("bottom",): ("elevation", -1),
}
"""Nouns of place behind "on the", "at the", "in the", as measure and direction."""

BEING = word_set(
    """
    be stand lie sit rest lean stay find place put locate position stack lay hang park
    remain keep appear see situate arrange leave hide
    """
)
"""Verbs (lemmas) of posture: with a preposition they state a place, and nothing else."""
HOLDING = {
    "carry": "under", "support": "under", "bear": "under",
    "hold": "around", "contain": "around", "surround": "around", "enclose": "around",
    "touch": "near", "adjoin": "near", "face": "opposite", "neighbor": "near", "neighbour": "near",
    "cover": "on", "top": "on",
}  # fmt: skip
"""Verbs (lemmas) that state a relation to their object. ``around``: the object is inside."""
PASSIVE = {"around": "inside", "under": "on", "on": "under", "near": "near", "opposite": "opposite"}
"""Relations as seen from the object of a verb."""

PRONOUNS = word_set(
    """
    thing things object objects item items one ones something anything everything whatever
    what which that those these it them stuff entity somebody someone who whichever
    none neither nothing nobody
    """
)
"""Heads that name no kind of thing."""
OTHERS = word_set("other others another rest")
CAMERA = frozenset(
    ["camera", "viewer", "me", "us", "observer", "viewpoint", "lens", "photographer"]
)
COLOR_OF = {word: color for color, names in COLORS.items() for word in names.split()}
PIECES = word_set("piece pair bit set kind type sort lump chunk item example")
"""Nouns before "of" that say less than what follows."""
ADVERBS = word_set("right directly just alone very flat upright away far")
MIDDLES = word_set("middle centre center edge corner end")
AMBIGUOUS = word_set("on inside around")
EMPTY = NUMBERS.keys() - {"pair"}
NONE = word_set("no none neither nothing nobody")
EXCEPT = word_set("but except excluding excepting minus save")
_DETERMINERS = "the|an?|any|this|that|these|those|my|your|all|either|what|whatever"
_DETERMINER = f"(?:{_DETERMINERS})"
_PREPOSITIONS = "|".join(sorted({words[0] for words in TRIGGERS} - {"not", "far"}))
REWORDINGS = {
    rf"^what(?: do| does| did)? (?=(?:the|an?|my|your) .+ (?:{_PREPOSITIONS})$)": "the thing that ",
    r"^neither .+ nor .+?,? but (?=the |an? )": "",
    r"^not ((?:the|an?) .+?),? but (?=the |an? )(.+)$": r"\2 except \1",
    r"^which (?!one |of )([\w-]+(?: [\w-]+)?) (is|are|has|have) (?!the )": r"the \1 that \2 ",
    rf"\b({_PREPOSITIONS}) (.+?) (or|and) \1 ": r"\1 \2 \3 ",
    r"\b(?:furthest|farthest) (\w+) (?:on|to) the (left|right)\b": r"\1 farthest to the \2",
    r"^(?:nothing|none) (?:but|except) ": "",
    r"^not (?:one|any|a single one)(?= of )": "none",
    r"^not (?:one|any|a single) ": "no ",
    r"^neither (?=.* nor )": "everything except ",
    r"^all (?=(?:but|except) )": "everything ",
    rf"(?:,? (?:but|and)|,) not (?={_DETERMINER} |\S+ ones?\b)": " except ",
    r"(?:,? but|,) (?:no|none of) ": " except ",
    rf"\b((?:all|any|every|each)\b.*) (?:but|save) (?={_DETERMINER} )": r"\1 except ",
    rf"(?:,? (?:but|and)|,) not (?=(?:{_PREPOSITIONS})\b)": " except those ",
    r"[.,;] (?:but )?not (?=the |an? )": " except ",
    rf"\b(?!(?:is|are|was|were|be|do|does|but|and|or|that|which|not|if)\b)(\w+) not"
    rf" (?=(?:{_PREPOSITIONS})\b)": r"\1 that is not ",
    r",(?= (?:and|or) )": "",
    r"\b(?:(?:second|next)[ -]to[ -]last|second[ -]last|last but one)\b": "penultimate",
    r"\b(\w+est) but one\b": r"second \1",
    r"\b(?:(?:the )?(?:most|many|several|some|a few) of)\b": "all of",
    r"\beither of\b": "one of",
    r"\b(?:to|on|at) (?:my|your|our) (left|right)\b": r"on the \1",
    r"\b(left|right) to (?=the |an? )": r"\1 of ",
    r"\b(?:farther|further|farthest|furthest) (left|right|back)\b": r"farthest to the \1",
    r"\bover (?=here|there)\b": "",
    r",? (?:other than|(?:apart|aside) from|except for|with the exception of|"
    r"not (?:counting|including)) ": " except ",
}
"""Regular expressions of denials and exceptions, and plainer words for them."""
_BE = r"(?P<verb>is|are|was|were|has|have|stands?|lies?|sits?)"
_ASK = r"(?:(?:please )?(?:show|tell) me )?"
CHOICE_OF = (
    rf"{_ASK}(?:which|what|who)(?: ones?)? of (?P<set>(?:{_DETERMINERS}|them|both)\b.*?) {_BE}"
    r" (?P<said>.+)$"
)
"""Regular expression of a question for one of a set: "which of the cups is red?"."""
_EITHER = rf"(?P<set>{_DETERMINER} .+ or .+)"
_WHICH = rf"{_ASK}(?:which|what|who)(?: of them)?(?: (?!of )(?P<kind>\w+(?: \w+)?))??(?: one)?"
CHOICES = (
    rf"{_WHICH} {_BE} (?P<said>[^,]+?)[,:;-]+ {_EITHER}$",
    rf"{_WHICH} {_BE} (?P<said>\w+(?: to (?:me|us|the camera))?) {_EITHER}$",
    rf"{_EITHER}[,:;.-]+ {_WHICH} {_BE} (?P<said>[^,]+)$",
)
"""The same of named things: "which is taller, the mug or the vase?"."""
MEANT = r"^(?:(?:i (?:mean|meant|want)|namely|just|only|it(?: i|')s) )+(?=the |a )"
"""What leads from a sentence to the thing that it is about."""
ASKED = (
    r"(?:and )?(?:(?:please|now) )?(?:what|which|who|whatever|where (?:is|are)|show|find|give|mark|"
    r"select|highlight|pick|point)\b"
)
"""Begin of a sentence that asks for a thing instead of telling of one."""
INVERSE = {"on": "under", "under": "on", "inside": "around", "around": "inside", "near": "near",
           "left": "right", "right": "left", "front": "behind", "behind": "front",
           "opposite": "opposite", "far": "far"}  # fmt: skip
BE = word_set("is are was were stand stands lie lies sit sits lean leans rest rests")
"""Forms of verbs of posture that end a clause: "the mug that the spoon stands in"."""
IDLE = word_set("several many other same here there only just exactly also alone itself else")
"""Modifiers that say nothing of the object itself."""
NEGATIONS = word_set("not n't never no neither nor without none")
FUNCTION = word_set(
    """
    and or of that which who with without on in at under below beneath near by is are was
    has next beside between from to the a an not n't but behind above over inside left right
    closest nearest here there
    """
)
EDGES = word_set(
    ", ; : . - ( ) ? ! \" ' and but or that which is are the a an 's not n't neither nor"
)
"""Words and marks that a phrase does not begin or end with."""
CONTRACTED = {
    word.replace("'", ""): word
    for word in ["isn't", "aren't", "that's", "what's", "where's", "doesn't", "don't"]
}
STARTS = word_set(
    """
    the a an all both every each any some no this that these those what whatever which
    whichever who everything anything something nothing none one my your its his her their our
    another either neither
    """
)
COMPARED = {
    ("height", 1): "taller",
    ("height", -1): "lower",
    ("length", 1): "longer",
    ("length", -1): "shorter",
    ("volume", 1): "larger",
    ("volume", -1): "smaller",
    ("slenderness", 1): "thinner",
    ("slenderness", -1): "thicker",
    ("near", 1): "closer",
    ("near", -1): "farther",
    ("altitude", 1): "above",
    ("altitude", -1): "below",
    ("elevation", 1): "above",
    ("elevation", -1): "under",
    ("right", 1): "right",
    ("right", -1): "left",
    ("depth", 1): "behind",
    ("depth", -1): "front",
    ("centrality", 1): "near",
    ("centrality", -1): "far",
}
"""Relations that comparatives with "than" state."""
SCENE = word_set("scene picture image photo view room arrangement group pile stack row")
FACING = {"left": ("right", -1), "right": ("right", 1), "front": ("depth", -1),
          "behind": ("depth", 1)}  # fmt: skip
"""Measures and directions by which an object stands in such a relation to all others."""
NO_THINGS = frozenset(place for (place,) in PLACES) | word_set(
    """
    side room scene spot space area place position direction distance color colour shape size
    look view way kind sort type style
    """
)
"""Nouns of places and properties, which name nothing by themselves."""
REQUEST = (
    r"(?:(?:i|we) (?:can't|cannot|can not|could not|couldn't|don't) (?:see|find) |"
    r"(?:i|we)(?:'ve| have)? lost )?"
    r"(?:(?:please|hey|hi|ok|okay|now|so|well|could you|can you|would you|will you|i want you to|"
    r"i would like you to|i'd like you to)[ ,]+)*"
    r"(?:(?:show|find|give|segment|select|highlight|pick|mark|point|locate|get|bring|take|grab|"
    r"fetch|hand|pass|look|search|mask|outline|see|identify|choose|tell|indicate|spot|want|need|"
    r"i want|i need|i see|i am looking|i'm looking|looking|searching|asking|there is|there are|"
    r"there's)"
    r"(?: (?:me|us|out|up|at|to|for|where))*[ ,]+)?"
    r"(?:(?:where|what|which|who)(?:'s| is| are|'re| was| were)(?: here| there)?"
    r"(?= (?:the|a|an|my|your|that|this|all|both|every|any|some|in|on|inside|under|behind|between|"
    r"left|right|next|near|beside|above|below|closest|farthest|furthest|nearest|tallest)\b)[ ,]*|"
    r"(?:where|what) (?:can|could|do|might|would) (?:i|we|you) (?:find|see)[ ,]+|"
    r"where (?:did|do|does|have|has) (?:i|we|you|he|she|they|someone) "
    r"(?:put|leave|left|keep|kept|place|placed|see|seen|have|lose|lost) |"
    r"have (?:i|you|we) seen |did (?:i|you|we) (?:see|find) |"
    r"(?:can|could|may) (?:i|we) (?:have|get|see) |(?:i|we)(?:'d| would) like |"
    r"how many (?=\w)|(?:is|are) there(?: any)? |do (?:you|we) (?:have|see)(?: any)? )?"
)
"""Regular expression of what a request says before it names what it asks for."""
