"""What nano can be asked about a material: the numeric and textual attributes, and the ways people name them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One thing a fact can be about."""

    name: str
    """The word nano uses when it thinks and answers."""
    nouns: tuple[str, ...]
    """Other names for it, in questions and passages; the name itself comes first."""
    asks: tuple[str, ...]
    """Direct questions, with {e} for the material."""
    answer: str = "The {a} of {e} is {v}"
    """The answer sentence, without citation and stop."""
    unit: str = ""
    """Empty for textual attributes."""
    low: float = 0.0
    high: float = 0.0
    """Range of made-up numbers."""
    more: tuple[str, ...] = ()
    """Predicates that ask for the higher one, as in `Which is stiffer`."""
    less: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    """Sentences special to this attribute; {e} {E} the material, {v} the value."""

    @property
    def numeric(self) -> bool:
        """Whether its values are a number and a unit."""
        return bool(self.unit)


NUMERIC = (
    Attribute(
        name="Young's modulus",
        nouns=("Young's modulus", "stiffness", "elastic modulus"),
        asks=("How stiff is {e}?", "How rigid is {e}?"),
        unit="GPa",
        low=0.001,
        high=200,
        more=("is stiffer", "is more rigid"),
        less=("is less stiff", "is more compliant"),
        says=("{E} is stiff: its Young's modulus is {v}.", "Under load {e} answers with an elastic modulus of {v}."),
    ),
    Attribute(
        name="tensile strength",
        nouns=("tensile strength", "strength in tension", "ultimate tensile strength"),
        asks=("How strong is {e} in tension?", "How strong is {e}?", "At what stress does {e} break in tension?"),
        unit="MPa",
        low=1,
        high=5000,
        more=("is stronger in tension",),
        less=("is weaker in tension",),
        says=("Pulled until it breaks, {e} carries {v}.", "{E} breaks in tension at {v}."),
    ),
    Attribute(
        name="compressive strength",
        nouns=("compressive strength", "strength in compression", "crushing strength"),
        asks=("How strong is {e} in compression?", "At what stress is {e} crushed?"),
        unit="MPa",
        low=1,
        high=900,
        more=("is stronger in compression",),
        less=("is weaker in compression",),
        says=("Squeezed along its axis, {e} bears {v}.", "{E} is crushed at {v}."),
    ),
    Attribute(
        name="bending strength",
        nouns=("bending strength", "flexural strength", "strength in bending"),
        asks=("How strong is {e} in bending?", "At what stress does {e} break when it is bent?"),
        unit="MPa",
        low=2,
        high=900,
        more=("is stronger in bending",),
        less=("is weaker in bending",),
        says=("A bent bar of {e} breaks at {v}.", "In bending {e} holds up to {v}."),
    ),
    Attribute(
        name="adhesive strength",
        nouns=("adhesive strength", "adhesion strength", "bond strength"),
        asks=("How strongly does {e} stick?", "How strong is the bond of {e}?"),
        unit="MPa",
        low=0.01,
        high=20,
        more=("sticks more strongly",),
        less=("sticks less strongly",),
        says=("{E} sticks with {v}.", "It takes {v} to pull {e} off."),
    ),
    Attribute(
        name="fracture toughness",
        nouns=("fracture toughness", "toughness", "critical stress intensity"),
        asks=("How tough is {e}?", "How well does {e} withstand a crack, in numbers?"),
        unit="MPa m^0.5",
        low=0.1,
        high=60,
        more=("is tougher", "withstands a crack better"),
        less=("is less tough", "is more brittle"),
        says=("A crack in {e} needs {v} to grow.", "Cracks run through {e} at {v}."),
    ),
    Attribute(
        name="work of fracture",
        nouns=("work of fracture", "fracture energy", "crack energy"),
        asks=("How much work does it take to break {e} apart?", "How much energy does a crack in {e} consume?"),
        unit="J/m^2",
        low=5,
        high=30000,
        more=("takes more work to break apart",),
        less=("takes less work to break apart",),
        says=("It takes {v} to drive a crack through {e}.", "Breaking {e} apart costs {v}."),
    ),
    Attribute(
        name="energy to break",
        nouns=("energy to break", "energy absorbed before breaking", "energy density at break"),
        asks=("How much energy does {e} absorb before it breaks?", "How much energy per volume breaks {e}?"),
        unit="MJ/m^3",
        low=0.1,
        high=400,
        more=("absorbs more energy before it breaks",),
        less=("absorbs less energy before it breaks",),
        says=("{E} absorbs {v} before it breaks.", "Up to the break {e} takes in {v}."),
    ),
    Attribute(
        name="hardness",
        nouns=("hardness", "indentation hardness", "surface hardness"),
        asks=("How hard is {e}?", "How hard is the surface of {e}?"),
        unit="GPa",
        low=0.02,
        high=30,
        more=("is harder",),
        less=("is softer",),
        says=("An indenter finds {v} in {e}.", "{E} is hard, {v} under the indenter."),
    ),
    Attribute(
        name="density",
        nouns=("density", "mass density", "weight per volume"),
        asks=("How dense is {e}?", "How heavy is {e} for its size?"),
        unit="g/cm^3",
        low=0.02,
        high=8,
        more=("is denser", "is heavier for its size"),
        less=("is less dense", "is lighter for its size"),
        says=("{E} weighs {v}.", "At {v}, {e} floats or sinks as it must."),
    ),
    Attribute(
        name="strain at failure",
        nouns=("strain at failure", "extensibility", "strain at break"),
        asks=("How far does {e} stretch before it breaks?", "How stretchy is {e}?"),
        unit="%",
        low=0.2,
        high=600,
        more=("stretches further before it breaks", "is more stretchy"),
        less=("stretches less before it breaks", "is less stretchy"),
        says=("{E} stretches by {v} before it breaks.", "Only at {v} of strain does {e} fail."),
    ),
    Attribute(
        name="mineral content",
        nouns=("mineral content", "share of mineral", "degree of mineralisation"),
        asks=("How much mineral does {e} hold?", "How mineralised is {e}?"),
        unit="%",
        low=1,
        high=99.5,
        more=("holds more mineral", "is more mineralised"),
        less=("holds less mineral", "is less mineralised"),
        says=("By weight, {v} of {e} is mineral.", "Mineral makes up {v} of {e}."),
    ),
    Attribute(
        name="water content",
        nouns=("water content", "share of water", "moisture content"),
        asks=("How much water does {e} hold?", "How wet is {e}?"),
        unit="%",
        low=1,
        high=95,
        more=("holds more water",),
        less=("holds less water", "is drier"),
        says=("Water makes up {v} of {e}.", "By weight, {v} of {e} is water."),
    ),
    Attribute(
        name="porosity",
        nouns=("porosity", "pore volume", "void fraction"),
        asks=("How porous is {e}?", "How much of {e} is pores?"),
        unit="%",
        low=1,
        high=97,
        more=("is more porous",),
        less=("is less porous",),
        says=("Pores take up {v} of {e}.", "Of the volume of {e}, {v} is empty."),
    ),
    Attribute(
        name="resilience",
        nouns=("resilience", "elastic efficiency", "energy return"),
        asks=("How much energy does {e} give back?", "How resilient is {e}?"),
        unit="%",
        low=10,
        high=98,
        more=("gives back more energy", "is more resilient"),
        less=("gives back less energy", "is less resilient"),
        says=("{E} gives back {v} of the energy put in.", "Of the work stored, {e} returns {v}."),
    ),
    Attribute(
        name="layer thickness",
        nouns=("layer thickness", "thickness of the layers", "thickness of one layer"),
        asks=("How thick are the layers of {e}?", "How thick is one layer in {e}?"),
        unit="nm",
        low=2,
        high=9000,
        more=("has thicker layers",),
        less=("has thinner layers",),
        says=("Each layer of {e} is {v} thick.", "In {e} the layers are {v} thick."),
    ),
    Attribute(
        name="fibre diameter",
        nouns=("fibre diameter", "diameter of the fibres", "fibre thickness"),
        asks=("How thick are the fibres of {e}?", "How thin are the fibres of {e}?"),
        unit="nm",
        low=2,
        high=60000,
        more=("has thicker fibres",),
        less=("has thinner fibres",),
        says=("The fibres of {e} are {v} thick.", "In {e} a fibre measures {v} across."),
    ),
    Attribute(
        name="contact angle",
        nouns=("contact angle", "water contact angle", "wetting angle"),
        asks=("How water-repellent is {e}?", "At what angle does a water drop meet {e}?"),
        unit="degrees",
        low=5,
        high=175,
        more=("repels water better", "is more water-repellent"),
        less=("repels water less", "is less water-repellent"),
        says=("Water meets {e} at {v}.", "A drop on {e} stands at {v}."),
    ),
)

TEXTUAL = (
    Attribute(
        name="main component",
        nouns=("main component", "main constituent", "chief ingredient"),
        asks=(
            "What is {e} made of?",
            "What does {e} mainly consist of?",
            "What makes up most of {e}?",
            "Which substance is {e} made of?",
        ),
        says=(
            "{E} consists mainly of {v}.",
            "{E} is made of {v} for the most part.",
            "Most of {e} is {v}.",
            "Chemists find {v} as the main part of {e}.",
            "The bulk of {e} is {v}.",
            "{E} is built from {v}.",
            "What {e} is made of is chiefly {v}.",
            "The raw material of {e} is {v}.",
        ),
    ),
    Attribute(
        name="mineral",
        nouns=("mineral", "mineral phase", "inorganic part"),
        asks=("Which mineral does {e} contain?", "What mineral is found in {e}?", "Which mineral hardens {e}?"),
        answer="The {a} in {e} is {v}",
        says=(
            "{E} is hardened by {v}.",
            "{E} contains {v} as its mineral.",
            "The mineral in {e} is {v}.",
            "Crystals of {v} harden {e}.",
            "The hard part of {e} is {v}.",
            "As a mineral {e} uses {v}.",
            "Grains of {v} fill {e}.",
            "The inorganic part of {e} is {v}.",
        ),
    ),
    Attribute(
        name="mechanism",
        nouns=("mechanism", "working principle", "key mechanism"),
        asks=(
            "How does {e} work?",
            "Why is {e} tough?",
            "How does {e} resist cracks?",
            "What makes {e} so good at its task?",
            "What lies behind the performance of {e}?",
            "Which effect does {e} rely on?",
            *("What makes {e} tough?", "What makes {e} strong?", "Why is {e} so tough?", "Why is {e} strong?"),
            *("How does {e} stop cracks?", "What gives {e} its strength?", "How does {e} withstand damage?"),
        ),
        says=(
            "{E} relies on {v}.",
            "{E} works by {v}.",
            "The mechanism in {e} is {v}.",
            "{E} owes its performance to {v}.",
            "What protects {e} is {v}.",
            "The secret of {e} is {v}.",
            "In {e}, the decisive effect is {v}.",
            "{E} draws its strength from {v}.",
            "Loads on {e} are met by {v}.",
        ),
    ),
    Attribute(
        name="structure",
        nouns=("structure", "architecture", "inner build"),
        asks=(
            "How is {e} built?",
            "How is {e} organised?",
            "What does {e} look like inside?",
            "How are the parts of {e} arranged?",
        ),
        says=(
            "{E} has the structure of {v}.",
            "The structure of {e} is {v}.",
            "Under the microscope {e} shows {v}.",
            "{E} is organised as {v}.",
            "Inside, {e} consists of {v}.",
            "Seen in section, {e} is {v}.",
            "{E} is arranged as {v}.",
            "The architecture of {e} is {v}.",
        ),
    ),
    Attribute(
        name="source",
        nouns=("source", "natural source", "origin"),
        asks=(
            "Where is {e} found?",
            "Where does {e} come from?",
            "Where does {e} occur?",
            "What is {e} taken from?",
            "Where can I find {e}?",
        ),
        says=(
            "{E} is found in {v}.",
            "{E} comes from {v}.",
            "{E} occurs in {v}.",
            "One finds {e} in {v}.",
            "The source of {e} is {v}.",
            "{E} is taken from {v}.",
            "Look for {e} in {v}.",
            "It is in {v} that {e} occurs.",
        ),
    ),
    Attribute(
        name="function",
        nouns=("function", "purpose", "task"),
        asks=(
            "What is {e} for?",
            "What does {e} serve for?",
            "What is {e} good for?",
            "What does {e} do?",
            "What role does {e} play?",
        ),
        says=(
            "{E} serves as {v}.",
            "The function of {e} is {v}.",
            "{E} is used for {v}.",
            "The task of {e} is {v}.",
            "Nature uses {e} for {v}.",
            "In life {e} provides {v}.",
            "The purpose of {e} is {v}.",
            "{E} acts as {v}.",
        ),
    ),
)

ATTRIBUTES = NUMERIC + TEXTUAL
BY_NAME = {attribute.name: attribute for attribute in ATTRIBUTES}

UNSUPPORTED = (
    "price",
    "colour",
    "melting point",
    "thermal conductivity",
    "electrical conductivity",
    "refractive index",
    "shelf life",
    "smell",
    "taste",
    "boiling point",
    "specific heat",
    "age",
    "Poisson's ratio",
    "fatigue limit",
    "shear modulus",
    "growth rate",
    "discoverer",
    "market share",
    "speed of sound",
    "surface roughness",
    "magnetic moment",
    "glass transition temperature",
    "chemical formula",
    "carbon footprint",
)
"""What hardly any passage tells; where one mentions it, it is not asked for."""


def article(noun: str) -> str:
    """The noun with `a` or `an`."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
