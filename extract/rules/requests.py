"""What the call was for and how soon help is needed, by words that leave little doubt; else nothing."""

from __future__ import annotations

import re

from handlehome.extract.rules.dialogue import Dialogue

__all__ = ["kind", "urgency"]

_DANGER = re.compile(
    r"\b(?:(?:sent|odeur|fuite|senti|sens) [^.!?,]{0,20}\bgaz|inond\w*|degats? des eaux|coule (?:du plafond"
    r"|de partout|partout|a flots?)"
    r"|(?:canalisation|tuyau) (?:a |qui a |est |vient d')?(?:eclate|explose)\w*|etincelles|ca brule"
    r"|odeur de brule|une urgence"
    r"|smell\w* (?:of )?gas|gas (?:leak|smell)|burst|flood\w*|pouring|sparks|an emergency)\b"
)
_NO_DANGER = re.compile(
    r"\b(?:pas (?:une|d'|de l')\s?urgence|pas (?:tres |si |vraiment )?urgent|rien d'urgent|pas presse\w*"
    r"|peut attendre|quand vous pouvez"
    r"|pas la catastrophe|not (?:an emergency|urgent)|no (?:rush|hurry)|can wait)\b"
)
_SOON = re.compile(
    r"\b(?:urgent|urgence|au plus vite|le plus (?:vite|tot|rapidement) possible|des que possible"
    r"|(?<!pas )rapidement|(?<!pas )tout de suite"
    r"|aujourd'hui (?:si|meme)|urgently|as soon as|asap|right away|today if)\b"
)

_WRONG_NUMBER = re.compile(r"\b(?:tromper?e? de numero|me tromper|mauvais numero|faux numero|wrong number)\b")
_COMPLAINT = re.compile(
    r"\b(?:reclamation|porter plainte|inadmissible|scandal\w+|honteux|mecontente?|pas contente?|rembours\w+"
    r"|complain\w*|unacceptable|refund|not happy)\b"
)
_INVOICE = re.compile(r"\b(?:factures?|facturee?|invoices?|my bill|the bill)\b")
_QUESTION = re.compile(
    r"\b(?:un renseignement|des renseignements|me renseigne|just (?:a question|wondering))\b"
)
_QUOTE = re.compile(r"\b(?:devis|estimation|chiffrer|chiffrage|quote|quotation|estimate)\b")
_APPOINTMENT = re.compile(
    r"\b(?:prendre (?:un )?(?:rendez-vous|rdv)|decaler|deplacer|reporter|confirmer|annuler|entretien|reviser"
    r"|revision|ramon\w+|make an appointment|(?:cancel|move) (?:my|an|the)|reschedule|annual service"
    r"|servic(?:ed|ing))\b"
)
_TROUBLE = re.compile(
    r"\b(?:fuites?|fuit|goutte|pannes?|(?:marche|fonctionne|chauffe|s'ouvre|ferme|allume) (?:plus|pas)"
    r"|bouchee?s?|deboucher|cassee?s?|bloquee?s?|coincee?s?|abimee?s?|disjoncte|sautee?|depann\w+|reparee?s?"
    r"|reparer|reparation|plus (?:de |d')(?:chauffage|eau|courant|lumiere|electricite)|claque[er]?"
    r"|impossible d(?:e\b|')|hors service|grippee?s?|percee?s?|fissuree?s?|rouillee?s?|deborde|refoule|coule"
    r"|broken?|leak\w*|blocked|not working|stopped working|won't|keeps?|tripp\w+|repair|fix(?:ed)?"
    r"|locked out)"
    r"(?:\b|(?<='))"
)
_PRICES = re.compile(r"\b(?:combien|tarifs?|prix|horaires|ouverts?|how much|opening hours)\b")

# In this order: the first that fits a turn counts.
_KINDS = (
    ("other", _WRONG_NUMBER),
    ("emergency", _DANGER),
    ("complaint", _COMPLAINT),
    ("invoice", _INVOICE),
    ("information", _QUESTION),
    ("quote", _QUOTE),
    ("appointment", _APPOINTMENT),
    ("intervention", _TROUBLE),
    ("information", _PRICES),
)


def kind(dialogue: Dialogue) -> str | None:
    """`request.type`: people say first what they call for, so the first turn that tells anything decides."""
    calm = _NO_DANGER.search(_said(dialogue)) is not None
    for turn in dialogue.turns:
        if turn.role != "caller":
            continue
        for name, pattern in _KINDS:
            if pattern.search(turn.plain) and not (name == "emergency" and calm):
                return name
    return None


def urgency(dialogue: Dialogue) -> str | None:
    """`request.urgency`; None where nobody spoke of it, or only to say that it is none."""
    said = _said(dialogue)
    if _NO_DANGER.search(said):
        return None
    if _DANGER.search(said):
        return "emergency"
    return "high" if _SOON.search(said) else None


def _said(dialogue: Dialogue) -> str:
    return " . ".join(turn.plain for turn in dialogue.turns if turn.role == "caller")
