"""Topics: what a person would say that a text is about."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox_demo.topics import LIMIT, extract_topics
from outbox_demo.words import detect_language, split_sentences, stemmer

OUTBOX = """
The transactional outbox writes a message and its result in one transaction. A relay reads the outbox and delivers
each message. When the relay crashes, another relay takes over its shards. Messages in the transactional outbox are
never lost, because the transaction that wrote them was committed. Delivered messages move to the history.
"""

LANGUAGES = {
    "german": "Die Datenbank speichert Nachrichten, und der Empfänger bestätigt sie, wenn er sie gelesen hat.",
    "french": "La base de données conserve les messages jusqu'à ce que le relais les ait livrés à la destination.",
    "spanish": "La energía solar es una fuente de energía renovable, y los paneles no son tan caros como antes.",
    "russian": "База данных хранит сообщения, и если получатель недоступен, то он получит их позже.",
    "english": "The relay is what reads the messages, and it does so when they are there.",
}


def names(text: str) -> list[str]:
    return [topic.topic for topic in extract_topics(text)]


def test_what_a_text_keeps_coming_back_to_comes_first() -> None:
    assert {"transactional outbox", "relay"} <= set(names(OUTBOX)[:4])


def test_inflected_forms_are_one_topic() -> None:
    found = [name.lower() for name in names(OUTBOX)]
    assert ("message" in found) != ("messages" in found)


def test_threads_share_a_stemmer() -> None:
    words = [f"{start}{end}" for start in OUTBOX.lower().split() for end in ("", "ing", "ational", "izations", "fully")]
    expected = list(map(stemmer("english"), words))
    stemmer.cache_clear()
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: list(map(stemmer("english"), words)), range(4)))
    finally:
        sys.setswitchinterval(interval_s)
    assert found == [expected] * 4


def test_weights_fall_from_one() -> None:
    weights = [topic.weight for topic in extract_topics(OUTBOX)]

    assert weights[0] == 1
    assert weights == sorted(weights, reverse=True)
    assert all(weight > 0 for weight in weights)


def test_a_topic_knows_the_sentences_in_which_it_occurs() -> None:
    sentences = split_sentences(OUTBOX)

    for topic in extract_topics(OUTBOX):
        for position in topic.sentences:
            assert topic.topic.lower()[:5] in sentences[position].lower()


def test_a_longer_term_is_not_cut_up() -> None:
    found = names("Machine learning is fun. We like machine learning. Machine learning needs machine learning data.")

    assert found[0].lower() == "machine learning"
    assert "learning" not in found


@pytest.mark.parametrize("word", ["the", "and", "it's", "e.g", "3.11", "automatically"])
def test_words_that_say_nothing_are_no_topics(word: str) -> None:
    assert word not in names(f"{word} relay {word} and {word} outbox. {word} shard. " * 3)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_language_is_recognised_by_its_stop_words(language: str) -> None:
    assert detect_language(split_sentences(LANGUAGES[language])) == language


def test_german_nouns_are_found() -> None:
    text = "Die Datenbank hält jede Nachricht. Eine Nachricht bleibt in der Datenbank, bis die Nachricht gelesen ist."
    assert names(text)[:2] == ["Nachricht", "Datenbank"]


def test_hindi_words_keep_their_vowel_signs() -> None:
    assert "डेटाबेस" in names("डेटाबेस संदेशों को सुरक्षित रखता है। संदेश तब तक डेटाबेस में रहता है।")


@pytest.mark.parametrize("text", ["", " \n", "12 34.5 %%%", "the of and"])
def test_a_text_that_says_nothing_has_no_topics(text: str) -> None:
    assert extract_topics(text) == []


@given(st.text(max_size=400))
def test_any_text_at_all_yields_topics_that_are_well_formed(text: str) -> None:
    found = extract_topics(text)

    assert len(found) <= LIMIT
    assert len({topic.topic for topic in found}) == len(found)
    for topic in found:
        assert topic.topic.strip() == topic.topic != ""
        assert 0 <= topic.weight <= 1
        assert list(topic.sentences) == sorted(set(topic.sentences))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("text", ["a", "ab ", "!", "a.b'", ".) \n", "学", "a-", "\u0301"])
def test_a_monotonous_text_takes_no_more_time_than_its_length(text: str) -> None:
    extract_topics(text * (50_000 // len(text)))
