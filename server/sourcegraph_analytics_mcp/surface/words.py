"""Words that nearly are one of a closed list: taken where they are the same, else answered with what fits."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher

_MOST = 3
_LONGEST = 80  # characters of a word that are looked at
_ALIKE = 0.85  # of two words: a plural, a slip of the finger
_SAY_NOTHING = {"a", "and", "average", "by", "code", "count", "number", "of", "per", "percent", "rate", "the", "total"}


def folded(word: str) -> str:
    """The same without capitals, blanks and hyphens, as words of ours are written."""
    return re.sub(r"[\s_-]+", "_", word.strip().lower())


def nearest(word: str, known: Mapping[str, str]) -> list[str]:
    """Up to three of the known names that share the most words with it; none where none fits.

    Args:
        known: names of ours, with the titles that they are shown under.
    """
    word = folded(word[:_LONGEST])
    if titled := [name for name, title in known.items() if folded(title) == word]:
        return titled
    theirs = {name: _words(f"{name} {title}") for name, title in known.items()}
    shared = {name: {w for w in _words(word) if _among(w, words)} for name, words in theirs.items()}
    fitting = [name for name in known if shared[name] - _SAY_NOTHING]
    most = max((len(shared[name]) for name in fitting), default=0)
    return sorted((n for n in fitting if len(shared[n]) == most), key=lambda name: len(_words(name)))[:_MOST]


def either(names: Sequence[str]) -> str:
    """Names as alternatives in a sentence."""
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)


def _words(text: str) -> set[str]:
    return set(folded(text).split("_"))


def _among(word: str, others: Iterable[str]) -> bool:
    return any(
        word == other or (abs(len(word) - len(other)) < 3 and SequenceMatcher(None, word, other).ratio() >= _ALIKE)
        for other in others
    )
