"""Split text into phrases that may be topics: sentences, runs of words between stop words, and their stems.

This works without a model for every language that separates words, and works best for those with a stop word list and a
Snowball stemmer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import snowballstemmer
from stop_words import AVAILABLE_LANGUAGES, get_stop_words

MARKS = "\u0300-\u036f\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e00-\u0eff\u200c"  # letters that \w leaves out
SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[^\sa-z])|(?<=[。！？।])|\n+")
TOKEN = re.compile(rf"[^\W_](?:[\w+#{MARKS}]|[.'’&-](?=[^\W_]))*|[^\s]")

# Words that carry little meaning in software documentation on any subject.
WEAK = """
    accept access acknowledgement add advanced allow alt alternative api application apply author badge
    base basic behavior behaviour bool bug build bundle call change changelog check choose class close
    code command common comparison compatible complete conduct configuration contact contribute
    contributor copyright correct create current custom decision def default define dependency describe
    description design detail develop developer development directory disable discuss discussion display
    distribute docs documentation download easy enable ensure equivalent error exist existing expectation
    explicit express extra fail false fast faster feature feedback file fine fix folder format full
    function generate github guide handle help high hosted human identical implement import improve
    include independent information install installation instance int interactive introduction invalid
    issue item job judge key kind latest learn level library license lightweight link list load local love
    main maintain major manage manual material maximum method minimal minor module motivation multiple
    need none note number object occur offer official option optional original output overview package
    parameter pass perform pip please possible post powerful practice prefer process produce project
    provide public pull pypi python question quick quickstart raise read readme reason regular release
    report repository request require requirement result return rule run running self send set setting
    setup shared similar simple simplest single slower source specific sponsor standard start started
    status step store str structure style support table take target thing time tool topic track treat true
    tutorial type understand update usage user valid value values variable version wait warning welcome
    work write written
"""

# English stop words that can be the topic of a technical text.
MEANINGFUL = """
    auth bill computer fire group html http index interest member net order ordering research ring room shell
    state states sub system test text thread web website world
"""
ADVERB_OR_PARTICIPLE = re.compile(r"[a-z]{3,}(?:ly|ed)", re.IGNORECASE)
POSSESSIVE = re.compile(r"['’]s?$")
ABBREVIATION = re.compile(r"\w(?:\.\w)+")


@dataclass(frozen=True)
class Word:
    """A word as it stands in the text, and the stem that it shares with its inflected forms."""

    form: str
    stem: str


def split_sentences(text: str) -> list[str]:
    """Return sentences and headings, in order."""
    return [sentence for part in SENTENCE_END.split(text) if (sentence := part.strip())]


def detect_language(sentences: Iterable[str]) -> str:
    """Return the English name of the language in which most words are stop words; English in case of doubt."""
    words = Counter(token.lower() for sentence in sentences for token in TOKEN.findall(sentence))
    vocabulary = frozenset(words)
    languages: list[str] = AVAILABLE_LANGUAGES
    return max(languages, key=lambda name: (sum(words[w] for w in stop_words(name) & vocabulary), name == "english"))


def phrases(sentence: str, language: str) -> Iterator[list[Word]]:
    """Yield runs of words without a stop word, punctuation or number between them."""
    run: list[Word] = []
    for token in TOKEN.findall(sentence):
        form = POSSESSIVE.sub("", token)
        if _can_be_topic(form, stop_words(language)):
            run.append(Word(form, stemmer(language)(form.lower())))
        elif run:
            yield run
            run = []
    if run:
        yield run


def is_weak(word: Word, language: str) -> bool:
    """Return whether a word is a topic only together with other words."""
    return language == "english" and (
        word.stem in _weak_stems() or ADVERB_OR_PARTICIPLE.fullmatch(word.form) is not None
    )


@cache
def _weak_stems() -> frozenset[str]:
    return frozenset(map(stemmer("english"), WEAK.split()))


@cache
def stop_words(language: str) -> frozenset[str]:
    words = {word.lower() for word in get_stop_words(language) if word[:1].isalpha()}
    return frozenset(words - set(MEANINGFUL.split()) if language == "english" else words)


@cache
def stemmer(language: str) -> Callable[[str], str]:
    """Return the language's Snowball stemmer, or a function that changes nothing. Threads may share it."""
    if language not in snowballstemmer.algorithms():
        return str
    # Each word has a stemmer of its own: it keeps the word that it works on, so two threads would spoil each other's.
    return cache(lambda word: snowballstemmer.stemmer(language).stemWord(word))


def _can_be_topic(token: str, stops: frozenset[str]) -> bool:
    lowered = token.lower().replace("’", "'")
    is_stop = lowered in stops or lowered.split("'")[0] in stops
    return len(token) > 1 and token[0].isalpha() and not is_stop and not ABBREVIATION.fullmatch(token)
