"""The file types that the installed llama.cpp can write, by its own names."""

from preflexor_agents.errors import InputError

FLOATS = ("F32", "F16", "BF16")
"""Written by the converter; the others are made from one of these."""
NEED_IMPORTANCE = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "Q2_K_S", "IQ3_XXS", "IQ3_XS")
"""llama.cpp refuses these without an importance matrix, or spoils the model."""
LADDER = ("IQ2_M", "Q2_K", "IQ3_XXS", "IQ3_M", "Q3_K_M", "IQ4_XS", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
"""What `--auto` chooses from: the best of each size."""
_NOT_WRITTEN = ("NVFP4",)
"""Has a number, but llama.cpp only reads it."""
_PREFIXES = ("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_")


def file_types() -> dict[str, int]:
    """Name, as `Q4_K_M` -> llama.cpp's number."""
    import llama_cpp

    found = {}
    for constant, number in vars(llama_cpp).items():
        for prefix in _PREFIXES:
            name = constant.removeprefix(prefix)
            if constant.startswith(prefix) and name not in _NOT_WRITTEN:
                found[name] = int(number)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def file_type(name: str) -> str:
    """llama.cpp's spelling of a type's name.

    Raises:
        InputError: there is no such type.
    """
    known = file_types()
    wanted = name.strip().upper().replace("-", "_")
    if wanted not in known:
        raise InputError(f"there is no type {name!r}; llama.cpp has {', '.join(known)}")
    return wanted
