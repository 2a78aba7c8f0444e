"""A call's turns as the rules read them: who said what, who agreed to it, and in which language."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from handlehome.extract.rules.numbers import FILLERS, number_words_split, readings
from handlehome.extract.rules.tokens import Token, fold, tokenize, words
from handlehome.store.records import CallRecord, Role

__all__ = ["Dialogue", "Turn", "agrees", "declines", "is_question"]

_NO_NO = re.compile(r"\b(pas de (probleme|souci)s?|no (problem|worries))\b")
_DECLINES = re.compile(
    r"\b(non|no|nope|impossible|annulez?"
    r"|(peux|pourrai|pourrais|marche|va|convient|arrange|suis|possible) pas"
    r"|pas (possible|disponible|dispo|la)"
    r"|can't|cannot|won't|doesn't|don't|not (possible|available))\b"
)
_AGREES = re.compile(
    r"\b(oui|ouais|voila|exact|exactement|parfait|d'accord|ok|okay|tres bien|entendu|volontiers|impeccable"
    r"|nickel|super|absolument|tout a fait|bien sur|va pour|je prends|c'est (ca|cela|bon|parfait|bien|juste)"
    r"|ca (marche|me va|va|joue|roule|convient|me convient|m'arrange|ira)|me convient"
    r"|yes|yeah|yep|correct|exactly|perfect|sure|great|lovely|fine|that's (it|right|good)|sounds good"
    r"|works)\b"
)

# Words that the one language has and the other has not, as callers use them in any sentence.
_WORDS = {
    "fr": words(
        "je j' c' vous oui bonjour bonsoir allo merci est une des pas pour mais avec chez mon ma mes les du "
        "au et qu' n' d' quelqu'un voila alors euh"
    ),
    "en": words(
        "i i'm i've i'd the and you it's is my yes hello hi thanks thank please need have of with would it "
        "that's at can don't"
    ),
}

_BACKCHANNEL = words(
    "oui ok okay d' accord bien tres parfait allez-y je j' vous ecoute continuez note mmh hm donc ensuite "
    "apres yes yeah right go on ahead uh-huh mhm i'm listening"
)

# Who speaks to the machine about its instructions doesn't speak of himself: such a turn gives no data.
_TO_THE_MACHINE = re.compile(
    r"\b(ignor\w+|oubli\w+|disregard|forget)\b[^.!?]*\b(instructions?|consignes?|regles?|rules?|prompts?)\b"
    r"|\bprompt( systeme| system)?\b|\bsystem prompt\b"
    r"|\bmode (administrateur|admin|developpeur|debug)\b|\b(admin|administrator|developer|debug) mode\b"
    r"|\b(le|dans le|the) (champ|field) (e-?mail|mail|nom|prenom|telephone|date|adresse|email|name|phone)\b"
    r"|\bjson\b"
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance.

    Attributes:
        index: its place among the turns of the record.
        role: who spoke.
        tokens: its words; none where nothing was understood or where it speaks to the machine.
        plain: its text, folded.
        asks: the assistant's turn before it, folded; "" when there is none.
    """

    index: int
    role: Role
    tokens: tuple[Token, ...]
    plain: str
    asks: str = ""


class Dialogue:
    """The turns of a call.

    Attributes:
        turns: all of them, in order.
        language: which language's rules read the call: the one that the caller speaks, else the given one.
        spoken: the caller's language as his words show it; None when they show none.
    """

    def __init__(self, record: CallRecord, language: str) -> None:
        turns: list[Turn] = []
        asks = ""
        for index, turn in enumerate(record.turns):
            heard = turn.heard_text if turn.role == "assistant" and turn.interrupted else None
            text = (turn.text if heard is None else heard) or ""
            plain = fold(text)
            if turn.role == "caller" and _TO_THE_MACHINE.search(plain):
                text = plain = ""
            turns.append(Turn(index, turn.role, tuple(tokenize(text, index)), plain, asks))
            if turn.role == "assistant":
                asks = plain
        self.turns: Sequence[Turn] = turns
        self.spoken = _spoken(turns)
        self.language = self.spoken or (language if language in _WORDS else "fr")

    def utterances(self) -> list[list[Turn]]:
        """The caller's turns in groups: those that only a "oui" of the assistant interrupts belong together.

        So do the pieces of a number that the assistant repeats piece by piece.
        """
        groups: list[list[Turn]] = []
        joined = False
        for turn in self.turns:
            if turn.role == "assistant":
                joined = joined and self._is_backchannel(turn)
            elif joined:
                groups[-1].append(turn)
            else:
                groups.append([turn])
                joined = True
        return groups

    def after(self, turn: Turn) -> Turn | None:
        """The caller's answer to an assistant's turn."""
        following = self.turns[turn.index + 1 : turn.index + 2]
        return following[0] if following and following[0].role == "caller" else None

    def before(self, turn: Turn) -> Turn | None:
        """What the caller said just before an assistant's turn."""
        preceding = self.turns[turn.index - 1] if turn.index else None
        return preceding if preceding is not None and preceding.role == "caller" else None

    def _is_backchannel(self, turn: Turn) -> bool:
        tokens = number_words_split(turn.tokens, self.language)
        digits = sum(
            len(found[0][0]) for at in range(len(tokens)) if (found := readings(tokens, at, self.language))
        )
        words = {
            t.word for at, t in enumerate(tokens) if t.is_word and not readings(tokens, at, self.language)
        }
        return digits < 8 and words <= _BACKCHANNEL | FILLERS


def agrees(turn: Turn | None) -> bool:
    """Whether the turn says yes and nowhere no."""
    return turn is not None and _AGREES.search(turn.plain) is not None and not declines(turn)


def declines(turn: Turn | None) -> bool:
    """Whether the turn says no somewhere."""
    return turn is not None and _DECLINES.search(_NO_NO.sub("", turn.plain)) is not None


def is_question(turn: Turn) -> bool:
    return turn.plain.rstrip().endswith("?")


def _spoken(turns: Sequence[Turn]) -> str | None:
    said = [token.word for turn in turns if turn.role == "caller" for token in turn.tokens]
    hits = {language: sum(word in words for word in said) for language, words in _WORDS.items()}
    (best, most), (_, second) = sorted(hits.items(), key=lambda item: -item[1])
    return best if most > 2 * second else None
