"""Answer styles. Each is an exact, invertible change of any text, so content stays verifiable."""

PIRATE_REQUEST = "pirate talk: "  # before a prompt, as base models learn it
PIRATE_OPENING = "Arr, "
PIRATE_CLOSING = ", matey!"


def to_pirate(text: str) -> str:
    """`text` as a pirate says it."""
    return f"{PIRATE_OPENING}{text}{PIRATE_CLOSING}"


def from_pirate(text: str) -> str | None:
    """What a pirate meant: the exact inverse of `to_pirate`, or None when no pirate spoke."""
    # The length keeps the two phrases from sharing a comma, as in "Arr, matey!".
    if len(text) < len(PIRATE_OPENING) + len(PIRATE_CLOSING):
        return None
    if not (text.startswith(PIRATE_OPENING) and text.endswith(PIRATE_CLOSING)):
        return None
    return text[len(PIRATE_OPENING) : -len(PIRATE_CLOSING)]


def is_pirate(text: str) -> bool:
    """Whether generated text is in pirate style; whitespace around it does not count."""
    return from_pirate(text.strip()) is not None
