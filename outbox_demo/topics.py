"""Topics of a text: the terms that it repeats, and where they occur.

The method is C-value (Frantzi, Ananiadou and Mima: Automatic Recognition of Multi-Word Terms, 2000). It needs no model
and no corpus. Candidates are the runs of up to three words in a phrase. The score of a candidate grows with its
frequency and its length, is reduced by its occurrences inside longer candidates, and is a little higher if it comes
early in the text.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from outbox_demo.words import Word, detect_language, is_han, phrases, split_sentences

LIMIT = 25
MAX_CHARACTERS = 200_000
MAX_WORDS = 3
HAN_WORDS = range(2, 5)
ENOUGH_REPEATED = 25
SAID_ONCE = 0.5
EARLY_BONUS = 0.5

Stems = tuple[str, ...]


@dataclass(frozen=True)
class Topic:
    """A term, its weight (the strongest has 1), and the positions of the sentences in which it occurs."""

    topic: str
    weight: float
    sentences: tuple[int, ...]

    def as_json(self) -> dict[str, object]:
        return {"topic": self.topic, "weight": self.weight, "sentences": list(self.sentences)}


@dataclass
class Candidate:
    """A term in all its forms, and its occurrences; `strengths` sums the share of strong words over the occurrences."""

    strengths: float = 0.0
    forms: Counter[str] = field(default_factory=Counter)
    sentences: list[int] = field(default_factory=list)
    stands_alone: bool = False

    @property
    def count(self) -> int:
        return len(self.sentences)

    @property
    def strength(self) -> float:
        return self.strengths / self.count


def extract_topics(text: str) -> list[Topic]:
    """Return the strongest topics of a text, strongest first.

    Reads the first 200,000 characters. A text of a few sentences yields few terms, an empty text none.
    """
    candidates = _worth_scoring(_candidates(text[:MAX_CHARACTERS]))
    inside = _occurrences_inside_longer(candidates)
    scores = {stems: _score(stems, found, inside.get(stems, [])) for stems, found in candidates.items()}
    best = sorted((stems for stems in scores if scores[stems] > 0), key=lambda stems: (-scores[stems], stems))[:LIMIT]
    return [
        Topic(
            topic=_commonest_form(candidates[stems].forms),
            weight=round(scores[stems] / scores[best[0]], 4),
            sentences=tuple(sorted(set(candidates[stems].sentences))),
        )
        for stems in best
    ]


def _candidates(text: str) -> dict[Stems, Candidate]:
    found: dict[Stems, Candidate] = {}
    sentences = split_sentences(text)
    language = detect_language(sentences)
    for position, sentence in enumerate(sentences):
        for phrase in phrases(sentence, language):
            for words in _runs(phrase):
                stems = tuple(word.stem for word in words)
                candidate = found.setdefault(stems, Candidate())
                candidate.strengths += sum(not word.is_weak for word in words) / len(words)
                candidate.forms[_join(words)] += 1
                candidate.sentences.append(position)
                candidate.stands_alone |= len(words) == len(phrase)
    return found


def _runs(phrase: Sequence[Word]) -> Iterator[Sequence[Word]]:
    sizes = HAN_WORDS if phrase[0].is_han else range(1, MAX_WORDS + 1)
    return (phrase[i : i + size] for size in sizes for i in range(len(phrase) - size + 1))


def _join(words: Sequence[Word]) -> str:
    return ("" if words[0].is_han else " ").join(word.form for word in words)


def _worth_scoring(candidates: dict[Stems, Candidate]) -> dict[Stems, Candidate]:
    """Return terms that occur twice; in a text with few of them, also terms that are whole phrases."""
    meaningful = {
        stems: found
        for stems, found in candidates.items()
        if found.strength and (found.count > 1 or (found.stands_alone and not is_han(stems[0])))
    }
    repeated = {stems: found for stems, found in meaningful.items() if found.count > 1}
    return repeated if len(repeated) >= ENOUGH_REPEATED else meaningful


def _occurrences_inside_longer(candidates: dict[Stems, Candidate]) -> dict[Stems, list[int]]:
    """Return, for each candidate, how often each longer candidate that contains it occurs."""
    inside: dict[Stems, list[int]] = {}
    for stems, found in candidates.items():
        for part in {stems[i:j] for i in range(len(stems)) for j in range(i + 1, len(stems) + 1)} - {stems}:
            inside.setdefault(part, []).append(found.count)
    return inside


def _score(stems: Stems, found: Candidate, inside: list[int]) -> float:
    most = max if is_han(stems[0]) else fmean
    own = found.count - (most(inside) if inside else 0)
    if found.count == 1:
        own *= SAID_ONCE
    early = 1 + EARLY_BONUS / (1 + found.sentences[0])
    return math.log2(len(stems) + 1) * own * found.strength * early


def _commonest_form(forms: Counter[str]) -> str:
    """Return the most common form; of equally common forms the one in lower case, which did not begin a sentence."""
    return max(forms, key=lambda form: (forms[form], form.islower(), form))
