"""Topics of a text: the terms that it repeats, and where they occur.

The method is C-value (Frantzi, Ananiadou and Mima: Automatic Recognition of Multi-Word Terms, 2000). It needs no model
and no corpus. Terms are the runs of up to three words in a phrase. The score of a term grows with its frequency and its
length, is reduced by its occurrences inside longer terms, and is a little higher if it comes early in the text.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from outbox_demo.words import Word, detect_language, is_weak, phrases, split_sentences

LIMIT = 25
MAX_CHARACTERS = 200_000
MAX_WORDS = 3
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
    """A term in all its forms, and its occurrences; `strengths` sums the share of strong words over these."""

    strengths: float = 0.0
    forms: Counter[str] = field(default_factory=Counter)
    sentences: list[int] = field(default_factory=list)
    stands_alone: bool = False

    @property
    def count(self) -> int:
        return len(self.sentences)

    @property
    def name(self) -> str:
        """The most common form; if forms are equally common, the form in lower case, which did not begin a sentence."""
        return max(self.forms, key=lambda form: (self.forms[form], form.islower(), form))


def extract_topics(text: str) -> list[Topic]:
    """Return the strongest topics of a text, strongest first.

    Reads the first 200,000 characters. A text of a few sentences yields few terms, an empty text none.
    """
    candidates = _worth_scoring(_candidates(text[:MAX_CHARACTERS]))
    inside = _occurrences_inside_longer(candidates)
    scores = {stems: _score(stems, found, inside[stems]) for stems, found in candidates.items()}
    best = sorted((stems for stems in scores if scores[stems] > 0), key=lambda stems: (-scores[stems], stems))[:LIMIT]
    return [
        Topic(
            topic=candidates[stems].name,
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
                candidate.strengths += fmean(not is_weak(word, language) for word in words)
                candidate.forms[" ".join(word.form for word in words)] += 1
                candidate.sentences.append(position)
                candidate.stands_alone |= len(words) == len(phrase)
    return found


def _runs(phrase: Sequence[Word]) -> Iterator[Sequence[Word]]:
    return (phrase[i : i + size] for size in range(1, MAX_WORDS + 1) for i in range(len(phrase) - size + 1))


def _worth_scoring(candidates: Mapping[Stems, Candidate]) -> Mapping[Stems, Candidate]:
    """Return terms that occur twice; if there are few of them, also return terms that are whole phrases."""
    repeated = {stems: found for stems, found in candidates.items() if found.count > 1}
    whole = {stems: found for stems, found in candidates.items() if found.stands_alone}
    return repeated if len(repeated) >= ENOUGH_REPEATED else whole | repeated


def _occurrences_inside_longer(candidates: Mapping[Stems, Candidate]) -> defaultdict[Stems, list[int]]:
    """Return, for each candidate, how often each longer candidate that contains it occurs."""
    inside: defaultdict[Stems, list[int]] = defaultdict(list)
    for stems, found in candidates.items():
        for part in {stems[i:j] for i in range(len(stems)) for j in range(i + 1, len(stems) + 1)} - {stems}:
            inside[part].append(found.count)
    return inside


def _score(stems: Stems, found: Candidate, inside: list[int]) -> float:
    own = (found.count - (fmean(inside) if inside else 0)) * (SAID_ONCE if found.count == 1 else 1)
    early = 1 + EARLY_BONUS / (1 + found.sentences[0])
    return math.log2(len(stems) + 1) * own * found.strengths / found.count * early
