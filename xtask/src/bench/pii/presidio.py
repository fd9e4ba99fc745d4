"""Runs Presidio's pattern recognisers over the corpus of corpus.py, without a model of language.

Usage: presidio.py DIRECTORY. Writes `presidio` in the form of `labels`, and prints the megabytes a second.
"""

import sys
import time

import spacy
import tldextract.tldextract
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer import predefined_recognizers as known
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

# The list of suffixes that came with it; nothing is asked for on the net.
tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())

# Its context enhancer raises what has a word beside it to at least this, and its patterns without a form
# of their own are below it otherwise.
SCORE_MIN = 0.4

RECOGNIZERS = {
    "EmailRecognizer": "email",
    "PhoneRecognizer": "phone",
    "CreditCardRecognizer": "payment_card",
    "IbanRecognizer": "iban",
    "UsSsnRecognizer": "us_ssn",
    "UsItinRecognizer": "us_itin",
    "AbaRoutingRecognizer": "us_aba",
    "UsNpiRecognizer": "us_npi",
    "UsPassportRecognizer": "passport",
    "IpRecognizer": "ip_address",
    "MacAddressRecognizer": "mac_address",
    "CryptoRecognizer": "crypto_wallet",
}


class Words(NlpEngine):
    """Splits into words, and takes each for its own lemma."""

    def __init__(self):
        self.blank = spacy.blank("en")

    def load(self):
        pass

    def is_loaded(self):
        return True

    def process_text(self, text, language):
        tokens = self.blank(text)
        places = [token.idx for token in tokens]
        lemmas = [token.lower_ for token in tokens]
        return NlpArtifacts([], tokens, places, lemmas, self, language)

    def process_batch(self, texts, language, **_):
        for text in texts:
            yield text, self.process_text(text, language)

    def is_stopword(self, word, language):
        return self.blank.vocab[word].is_stop

    def is_punct(self, word, language):
        return self.blank.vocab[word].is_punct

    def get_supported_entities(self):
        return []

    def get_supported_languages(self):
        return ["en"]


def main():
    directory = sys.argv[1]
    registry = RecognizerRegistry(supported_languages=["en"])
    entities = {}
    for name, entity in RECOGNIZERS.items():
        recognizer = getattr(known, name)()
        registry.add_recognizer(recognizer)
        entities.update({each: entity for each in recognizer.supported_entities})
    engine = AnalyzerEngine(registry=registry, nlp_engine=Words(), supported_languages=["en"])
    with open(f"{directory}/cells", "rb") as file:
        cells = [cell.decode() for cell in file.read().split(b"\x1e")]
    found, took = [], 0.0
    for number, text in enumerate(cells):
        begun = time.perf_counter()
        results = engine.analyze(text, language="en", score_threshold=SCORE_MIN)
        took += time.perf_counter() - begun
        for result in results:
            start = len(text[: result.start].encode())
            end = len(text[: result.end].encode())
            found.append((number, entities[result.entity_type], start, end))
    with open(f"{directory}/presidio", "w") as file:
        for row in found:
            print(*row, sep="\t", file=file)
    print(sum(len(cell.encode()) for cell in cells) / took / 1e6)


main()
