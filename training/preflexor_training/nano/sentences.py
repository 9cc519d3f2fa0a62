"""The words that made-up passages and values are put together from."""

NUMERIC_SAYS = (
    "The {a} of {e} is {v}.",
    "The {a} of {e} is about {v}.",
    "The {a} of {e} is close to {v}.",
    "The {a} of {e} comes to {v}.",
    "The {a} of {e} lies near {v}.",
    "The {a} of {e} amounts to roughly {v}.",
    "{E} has {an_a} of {v}.",
    "{E} has {an_a} of about {v}.",
    "{E} shows {an_a} of {v}.",
    "{E} reaches {an_a} of {v}.",
    "For {e}, the {a} is {v}.",
    "For {e}, {an_a} of around {v} is typical.",
    "In {e} the {a} was measured as {v}.",
    "Tests on {e} give {an_a} of {v}.",
    "Tests on dry samples of {e} found {an_a} of {v}.",
    "Measured {a} of {e}: {v}.",
    "With {an_a} of {v}, {e} stands apart from its relatives.",
    "With {an_a} of about {v}, {e} is well matched to its task.",
    "Reported values put the {a} of {e} at {v}.",
    "Handbooks list {an_a} of {v} for {e}.",
    "At {v}, the {a} of {e} surprised the people who measured it.",
    "{A} is about {v} in {e}.",
    "{A}, at {v}, is what {e} is known for.",
    "An {e} sample was found to have {an_a} of {v}.",
    "The value for the {a} of {e}, {v}, depends on how it is kept.",
    "{E}, whose {a} is {v}, is easy to recognise.",
)
JOINT_SAYS = (
    "The {a} of {e} is {v} and its {b} is {w}.",
    "{E} combines {an_a} of {v} with {an_b} of {w}.",
    "{E} has {an_a} of {v} and {an_b} of about {w}.",
    "With {an_a} of {v} and {an_b} of {w}, {e} does its work well.",
    "For {e}, the {a} is {v}, while the {b} is {w}.",
    "In {e} {an_a} of {v} goes with {an_b} of {w}.",
    "Besides {an_a} of {v}, {e} offers {an_b} of {w}.",
    "Tests on {e} found {v} for the {a} and {w} for the {b}.",
    "The {a} and the {b} of {e} are {v} and {w}.",
)
CONTRAST_SAYS = (
    "The {a} of {e} is {v}, against {w} for {f}.",
    "Unlike {f}, which has {an_a} of {w}, {e} has {an_a} of {v}.",
    "While {f} reaches {an_a} of {w}, {e} comes to {v}.",
    "{E} has {an_a} of {v}; {f} has {w}.",
    "Compared with {f} and its {a} of {w}, {e} shows {v}.",
)
FILLERS = (
    "{E} has been studied for many years.",
    "{E} is a favourite of people who build after nature.",
    "Engineers look to {e} for ideas.",
    "The build of {e} spans many scales, from molecules to the whole.",
    "{E} grows slowly and at mild temperature.",
    "Samples of {e} differ with age, season and place.",
    "{E} must be kept wet while it is tested.",
    "Drying changes {e}, so the numbers depend on the state of the sample.",
    "What makes {e} special is the way its parts work together.",
    "A thin section of {e} shows how the parts are joined.",
    "{E} is not the strongest of its kind, but it is among the most reliable.",
    "The soft and the hard phase of {e} meet at rough interfaces.",
    "In {e} small defects do little harm.",
    "Copies of {e} have been printed, cast and freeze-dried.",
    "{E} is light for what it does.",
    "The direction of loading matters for {e}.",
    "Nobody has yet made {e} in a factory.",
    "Much of what is known about {e} comes from indentation.",
    "The cells that make {e} leave it as soon as it is finished.",
    "{E} heals only if the animal or plant still lives.",
    "Models of {e} treat it as a composite of two phases.",
    "A designer who copies {e} should keep the interfaces weak.",
    "{E} shows that order can replace exotic ingredients.",
    "It is worth looking at {e} under polarised light.",
    "Old specimens of {e} in museums are brittle.",
    "The lesson of {e} is that geometry matters more than chemistry.",
)
HEADINGS = (
    "## Properties",
    "## Structure",
    "## Mechanism",
    "## Use in design",
    "## Measurements",
    "## Overview",
    "## Composition",
    "## Numbers",
)

ONSETS = (
    *("b", "br", "c", "cl", "d", "dr", "f", "fl", "g", "gl", "h", "j", "k", "l", "m", "n", "p", "pl", "qu", "r"),
    *("s", "sk", "st", "t", "th", "tr", "v", "w", "z", ""),
)
VOWELS = ("a", "e", "i", "o", "u", "ae", "ia", "ou", "ei", "y")
CODAS = ("", "", "", "l", "n", "r", "s", "m", "x", "nd", "rt", "st", "ck", "ll", "th")
CLASSES = (
    *("shell", "silk", "bone", "horn", "fibre", "scale", "wood", "tooth", "spine", "claw", "skin", "tendon", "cuticle"),
    *(
        "enamel",
        "thread",
        "quill",
        "feather",
        "beak",
        "leaf",
        "seed coat",
        "husk",
        "ligament",
        "coral",
        "sponge",
        "wing",
    ),
    *(
        "hide",
        "hoof",
        "bark",
        "stem",
        "armour",
        "plate",
        "glue",
        "film",
        "foam",
        "composite",
        "ceramic",
        "gel",
        "paper",
    ),
    *("resin", "laminate", "egg case", "byssus", "cartilage", "hair", "wool", "nacre", "chitin", "root", "nut", "cone"),
)
QUALIFIERS = (
    *("wet", "dry", "young", "old", "wild", "marine", "river", "desert", "alpine", "tropical", "giant", "dwarf", "red"),
    *("white", "black", "golden", "spotted", "common", "northern", "southern", "deep-sea", "polar", "printed", "woven"),
    *("layered", "synthetic", "bio-inspired", "hollow", "flat", "twisted"),
)

COMPONENTS = (
    *("chitin", "keratin", "alpha-keratin", "beta-keratin", "collagen", "type I collagen", "fibroin", "silk protein"),
    *("cellulose", "lignin", "hemicellulose", "calcium carbonate", "calcium phosphate", "silica", "elastin", "resilin"),
    *("mucin", "protein", "polysaccharide", "suberin", "spongin", "conchiolin", "alumina", "epoxy resin", "gelatin"),
    *("glycoprotein", "proteoglycan", "wax", "cutin", "tannin-rich protein", "polyurethane", "silicone rubber"),
    *("chitosan", "starch", "cement paste", "polystyrene", "histidine-rich protein", "a protein gel", "sclerotin"),
)
MINERALS = (
    *("aragonite", "calcite", "vaterite", "hydroxyapatite", "fluorapatite", "goethite", "magnetite", "silica", "opal"),
    *("amorphous calcium carbonate", "amorphous calcium phosphate", "brushite", "dahllite", "gypsum", "barite"),
    *(
        "alumina",
        "lepidocrocite",
        "ferrihydrite",
        "dolomite",
        "magnesium calcite",
        "atacamite",
        "zinc oxide",
        "whitlockite",
    ),
)
ACTIONS = (
    *("sliding", "stretching", "unfolding", "bending", "pull-out", "interlocking", "twisting", "buckling", "hooking"),
    *("shearing", "uncoiling", "peeling", "swelling", "straightening", "jamming", "bridging", "splitting", "crushing"),
    *("branching", "deflection", "locking", "tilting", "rotation", "yielding", "delamination", "slow release"),
)
PARTS = (
    *("mineral tablets", "thin plates", "collagen fibrils", "chitin fibres", "long helices", "sacrificial bonds"),
    *("cell walls", "tubules", "lamellae", "cracks", "crystal prisms", "wavy layers", "silk crystals", "barbs"),
    *("hollow cells", "hair-like tips", "keratin scales", "ridges", "wax tubes", "thin septa", "pillars", "metal ions"),
    *("protein strands", "mineral bridges", "glass fibres", "air pockets", "struts", "micro-cracks", "sutures"),
)
WAYS = (
    "",
    "",
    "under load",
    "over each other",
    "along weak interfaces",
    "before they break",
    "in many steps",
    "at the tip",
)
STRUCTURES = (
    *("stacked layers", "a twisted stack", "a brick wall", "a sandwich", "parallel bundles", "a closed-cell foam"),
    *("an open network", "crossed layers", "concentric rings", "a graded shell", "a honeycomb", "helical plies"),
    *("a braided cable", "hierarchical fibres", "a lattice", "nested tubes", "overlapping plates", "branched hairs"),
)
ANIMALS = (
    *("sea snails", "clams", "spiders", "moths", "crabs", "beetles", "lizards", "sharks", "oysters", "birds", "deer"),
    *("mussels", "sponges", "squid", "shrimps", "limpets", "palms", "grasses", "cacti", "pines", "oaks", "hares"),
    *(
        "sheep",
        "cattle",
        "horses",
        "hedgehogs",
        "armadillos",
        "turtles",
        "hagfish",
        "fleas",
        "bees",
        "locusts",
        "ferns",
    ),
    *("sea urchins", "corals", "barnacles", "worms", "algae", "fungi", "bacteria", "humans", "elephants", "whales"),
)
PLACES = (
    *("the shells of", "the legs of", "the jaws of", "the skin of", "the nests of", "the teeth of", "the wings of"),
    *("the stems of", "the leaves of", "the tails of", "the joints of", "the eggs of", "the bones of", "the seeds of"),
    *("the feet of", "the claws of", "the spines of", "colonies of", "the tendons of", "the mouths of"),
)
PURPOSES = (
    *(
        "armour",
        "protection",
        "defence",
        "shelter",
        "support",
        "grip",
        "insulation",
        "camouflage",
        "a spring",
        "a tool",
    ),
    *(
        "a weapon",
        "a hinge",
        "a shield",
        "a cutter",
        "a hammer",
        "an anchor",
        "a float",
        "a filter",
        "a cushion",
        "a trap",
    ),
)
AIMS = (
    *(
        "against crushing",
        "against bites",
        "in fast water",
        "during flight",
        "against heat",
        "for digging",
        "in the surf",
    ),
    *(
        "for jumping",
        "against drying out",
        "for catching prey",
        "against frost",
        "on smooth walls",
        "for young animals",
    ),
    *("against wear", "against falls", "for feeding on rock", "in strong wind", "for walking", "at great depth"),
)

OFF_TOPIC = (
    ("Who won the football match?", "winner of the football match"),
    ("What is the capital of France?", "capital of France"),
    ("What is the weather like today?", "weather of today"),
    ("How do I boil an egg?", "way to boil an egg"),
    ("Who wrote the book?", "writer of the book"),
    ("What time is it?", "time of day"),
    ("How many people live in London?", "people of London"),
    ("What is two plus two?", "sum of two and two"),
    ("Who are you?", "name of the speaker"),
    ("Can you write a poem?", "poem of the speaker"),
    ("How old is the universe?", "age of the universe"),
    ("What does bread cost?", "price of bread"),
)
"""Questions that no passage answers, and what is looked for."""
