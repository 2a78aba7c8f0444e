"""Whose number or address it is that the caller says: his own, or somebody else's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from handlehome.extract.rules.tokens import Token

__all__ = ["is_own"]

_OTHERS = (
    r"mari|femme|epouse|epoux|conjoint|compagnon|compagne|fils|fille|mere|pere|maman|papa|soeur|frere|oncle"
    r"|tante|voisine?|gardien|gardienne|concierge|locataires?|proprietaire|proprio|syndic|collegue|patron"
    r"|assurance"
    r"|assureur|artisan|notaire|ami|amie|copine?|beau-\w+|belle-\w+|grand-\w+"
    r"|husband|wife|partner|son|daughter|mother|father|mum|mom|dad|sister|brother|neighbou?r|caretaker|tenant"
    r"|landlord|landlady|colleague|boss|friend|insurance"
)
_OTHER = re.compile(
    rf"\b(?:(?:{_OTHERS})|son (?:numero|portable|mail|adresse|fixe|tel\w*|gsm)|leur|their|his|her)\b"
)
_OWN = re.compile(
    r"\b(?:mon|mien|mienne|le notre|me joindre|m'appeler|me rappeler|m'ecrire|moi|my|mine|reach me|call me)\b"
    rf"(?! (?:{_OTHERS})\b)"
)
# "je voulais faire le ...": the number that was dialled, or should have been.
_DIALLED = re.compile(
    r"\b(?:faire|fait|compose|composer|composais|appele) (?:bien )?(?:le|au)\b|\bcabinet\b|\b(?:dialled"
    r"|dialed|rang)\b"
)
_SAYS_WHOSE_AFTER = re.compile(rf"^\W*(?:c'est|ca c'est|it's|that's) (?:\w+'?\s?){{0,3}}\b(?:{_OTHERS})\b")
_ASKED_FOR = re.compile(r"\b(?:numero|telephone|portable|mail|courriel|joindre|number|phone)\b")
_ASKED_OWN = re.compile(r"\b(?:votre|le votre|vos|vous joindre|vous rappeler|your|yours|reach you)\b")


def is_own(tokens: Sequence[Token], start: int, end: int, since: int, asks: str) -> bool:
    """Whether what stands at tokens[start:end] is the caller's own.

    Args:
        tokens: the caller's words.
        start: where the number or address begins.
        end: where it ends.
        since: what was said before this place says nothing about it (the end of the number before it).
        asks: what the assistant had asked, folded.
    """
    before = _text(tokens[_sentence_start(tokens, start, since) : start])
    own = [match.start() for match in _OWN.finditer(before)]
    other = [match.start() for match in _OTHER.finditer(before)]
    if _DIALLED.search(before):
        return False
    if other:
        return bool(own) and own[-1] > other[-1]
    if _SAYS_WHOSE_AFTER.search(_text(tokens[end : end + 8])):
        return False
    if own:
        return True
    return not (_ASKED_FOR.search(asks) and _OTHER.search(asks) and not _ASKED_OWN.search(asks))


def _sentence_start(tokens: Sequence[Token], start: int, since: int) -> int:
    at = start
    while at > since and tokens[at - 1].text not in {".", "!", "?", "…"}:
        at -= 1
    return at


def _text(tokens: Sequence[Token]) -> str:
    return " ".join(token.word for token in tokens).replace("' ", "'")
