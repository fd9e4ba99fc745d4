"""Writes a labelled corpus for the bench of patterns: cells as databases hold them.

Values come from faker and from generators of published formats, not from what any recogniser looks
for. Usage: corpus.py DIRECTORY CELLS_PER_ENTITY. Cells are separated by 0x1E; labels are
`cell TAB entity TAB first byte TAB end`.
"""

import base64
import hashlib
import hmac
import json
import random
import string
import sys
import uuid

from faker import Faker

SEED = 20261120
random.seed(SEED)
Faker.seed(SEED)
LOCALES = ["en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "en_IN", "en_AU"]
FAKE = {locale: Faker(locale) for locale in LOCALES}
US = FAKE["en_US"]
ALNUM = string.ascii_letters + string.digits
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def chars(alphabet, count):
    return "".join(random.choice(alphabet) for _ in range(count))


def luhn_digit(body):
    total = 0
    for index, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if index % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def card():
    number = US.credit_card_number()
    if len(number) == 16 and random.random() < 0.4:
        return random.choice(" -").join(number[at : at + 4] for at in range(0, 16, 4))
    return number


def iban():
    number = FAKE[random.choice(["en_GB", "de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL"])].iban()
    if random.random() < 0.5:
        return " ".join(number[at : at + 4] for at in range(0, len(number), 4))
    return number


def npi():
    body = random.choice("12") + chars(string.digits, 8)
    return body + luhn_digit("80840" + body)


def mac():
    number = US.mac_address()
    form = random.random()
    if form < 0.25:
        return number.upper()
    if form < 0.5:
        return number.replace(":", "-")
    if form < 0.6:
        plain = number.replace(":", "")
        return ".".join(plain[at : at + 4] for at in range(0, 12, 4))
    return number


def base58check(version):
    data = bytes([version]) + random.randbytes(20)
    data += hashlib.sha256(hashlib.sha256(data).digest()).digest()[:4]
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        text = BASE58[rest] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def bech32(version):
    values, bits, held = [version], 0, 0
    for byte in random.randbytes(20 if version == 0 else 32):
        held, bits = held << 8 | byte, bits + 8
        while bits >= 5:
            bits -= 5
            values.append(held >> bits & 31)
    if bits:
        values.append(held << (5 - bits) & 31)
    check = 1
    for value in [3, 3, 0, 2, 3] + values + [0] * 6:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, mask in enumerate([0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3]):
            check ^= mask if top >> bit & 1 else 0
    check ^= 1 if version == 0 else 0x2BC830A3
    values += [check >> 5 * (5 - at) & 31 for at in range(6)]
    return "bc1" + "".join(BECH32[value] for value in values)


def wallet():
    return random.choice(
        [
            lambda: base58check(0),
            lambda: base58check(5),
            lambda: bech32(0),
            lambda: bech32(1),
            lambda: "0x" + random.randbytes(20).hex(),
        ]
    )()


def part(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt():
    header = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    claims = {"sub": str(random.randrange(10**9)), "name": US.name(), "iat": 1700000000}
    signed = header + "." + part(json.dumps(claims).encode())
    return signed + "." + part(hmac.new(b"key", signed.encode(), "sha256").digest())


def private_key():
    kind = random.choice(["RSA ", "EC ", "OPENSSH ", "", "ENCRYPTED "])
    body = base64.b64encode(random.randbytes(random.randrange(100, 600))).decode()
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----"


def url_credentials():
    password = US.password(special_chars=False)
    return f"{US.user_name()}:{password}"


def in_url(value):
    scheme = random.choice(["postgres", "https", "redis", "amqp", "mysql", "ftp"])
    return f"{scheme}://", value, f"@{US.hostname()}/{US.word()}"


def api_token():
    return random.choice(
        [
            lambda: "npm_" + chars(ALNUM, 36),
            lambda: "SG." + chars(ALNUM + "-_", 22) + "." + chars(ALNUM, 43),
            lambda: "hf_" + chars(string.ascii_letters, 34),
            lambda: "sk-ant-api03-" + chars(ALNUM + "-_", 93) + "AA",
            lambda: "dop_v1_" + random.randbytes(32).hex(),
            lambda: "shpat_" + random.randbytes(16).hex(),
        ]
    )()


def slack():
    number = lambda: chars(string.digits, 12)
    return f"xox{random.choice('bp')}-{number()}-{number()}-{chars(ALNUM, 24)}"


def phone():
    return FAKE[random.choice(LOCALES)].phone_number()


POSITIVES = {
    "email": (
        lambda: random.choice([US.email, US.company_email, FAKE["de_DE"].ascii_free_email])(),
        ["email", "contact", "e-mail address"],
    ),
    "phone": (phone, ["phone", "telephone", "mobile", "call me at", "fax"]),
    "payment_card": (card, ["card", "card number", "paid with", "PAN"]),
    "iban": (iban, ["IBAN", "account", "bank account"]),
    "us_ssn": (US.ssn, ["SSN", "social security number", "ssn of the applicant"]),
    "us_itin": (US.itin, ["ITIN", "taxpayer number", "tax id"]),
    "us_aba": (US.aba, ["routing number", "ABA", "bank routing"]),
    "us_npi": (npi, ["NPI", "provider NPI", "national provider identifier"]),
    "passport": (US.passport_number, ["passport", "passport no.", "passport number"]),
    "ip_address": (lambda: random.choice([US.ipv4, US.ipv6])(), ["IP", "client address", "host"]),
    "mac_address": (mac, ["MAC", "hardware address", "interface"]),
    "crypto_wallet": (wallet, ["wallet", "BTC address", "send to"]),
    "url_credentials": (url_credentials, ["url", "dsn", "connect to"]),
    "private_key": (private_key, ["key", "identity", "pem"]),
    "jwt": (jwt, ["token", "Authorization: Bearer", "session"]),
    "aws_key": (
        lambda: random.choice(["AKIA", "ASIA"]) + chars(string.ascii_uppercase + "234567", 16),
        ["aws_access_key_id", "key", "AWS"],
    ),
    "gcp_key": (lambda: "AIza" + chars(ALNUM + "-_", 34) + "x", ["key", "maps key", "google"]),
    "slack_token": (slack, ["slack", "token", "bot token"]),
    "github_token": (lambda: random.choice(["ghp_", "gho_", "ghs_"]) + chars(ALNUM, 36), ["token", "git", "pat"]),
    "gitlab_token": (lambda: "glpat-" + chars(ALNUM, 20), ["token", "gitlab", "pat"]),
    "stripe_key": (lambda: random.choice(["sk_live_", "rk_live_", "sk_test_"]) + chars(ALNUM, 24), ["stripe", "key", "secret"]),
    "api_token": (api_token, ["token", "key", "secret"]),
}

# Three of ten cells have no word beside the value; of those half are the value alone.
BESIDE = [
    "{label}: {value}",
    "{label} {value}",
    "{label} is {value}",
    '{{"id": 17, "{key}": "{value}", "active": true}}',
    "{sentence} {label}: {value}. {sentence}",
    "Their {label} was changed to {value} on Monday.",
    "{key}={value}",
    "note: {value} ({label})",
    "{sentence} The {label} on file is {value}, please confirm.",
    "<{key}>{value}</{key}>",
]
WITHOUT = [
    "{sentence} {value}",
    "{value}, as agreed",
    "see {value} for this one",
    "{sentence} It was {value}. {sentence}",
]


def sha():
    return random.choice([hashlib.md5, hashlib.sha1, hashlib.sha256])(random.randbytes(8)).hexdigest()


def digits(least, most):
    return str(random.randrange(10 ** (least - 1), 10**most))


NEGATIVES = [
    lambda: f"order {digits(6, 12)}",
    lambda: digits(8, 18),
    lambda: f"ORD-{random.randrange(2015, 2027)}-{digits(4, 8)}",
    lambda: f"invoice INV{digits(6, 10)} of {US.date()}",
    lambda: str(uuid.UUID(bytes=random.randbytes(16))),
    lambda: f"request {uuid.UUID(bytes=random.randbytes(16))} took {digits(1, 4)} ms",
    lambda: US.iso8601(),
    lambda: f"{US.date()} {US.time()}.{digits(3, 6)}+00",
    lambda: f"created at {random.randrange(1_500_000_000_000, 1_800_000_000_000)}",
    lambda: str(random.randrange(1_500_000_000, 1_800_000_000)),
    lambda: f"v{random.randrange(20)}.{random.randrange(30)}.{random.randrange(99)}",
    lambda: f"version {random.randrange(20)}.{random.randrange(30)}.{random.randrange(99)}.{random.randrange(255)}",
    lambda: f"nginx/1.{random.randrange(30)}.{random.randrange(9)}",
    lambda: sha(),
    lambda: f"commit {sha()[:12]} by {US.first_name()}",
    lambda: f"sha256:{hashlib.sha256(random.randbytes(8)).hexdigest()}",
    lambda: f"total {random.randrange(10**6):,}.{random.randrange(100):02} EUR",
    lambda: f"{random.uniform(0, 10**5):.2f}",
    lambda: f"{random.random():.16f}",
    lambda: f"{random.uniform(-90, 90):.6f}, {random.uniform(-180, 180):.6f}",
    lambda: US.ean13(),
    lambda: US.isbn13(),
    lambda: US.isbn10(),
    lambda: f"SKU {chars(string.ascii_uppercase, 3)}-{digits(4, 6)}-{digits(2, 3)}",
    lambda: f"{chars(string.ascii_uppercase + string.digits, 17)}",
    lambda: f"tracking 1Z{chars(string.ascii_uppercase + string.digits, 16)}",
    lambda: f"{digits(5, 5)}-{digits(4, 4)}",
    lambda: f"{US.city()}, {US.state_abbr()} {US.zipcode_plus4()}",
    lambda: f"{US.street_address()}, {US.city()}",
    lambda: base64.b64encode(random.randbytes(random.randrange(12, 60))).decode(),
    lambda: f"#{random.randbytes(3).hex()}",
    lambda: f"{US.user_name()}@{US.word()}",
    lambda: f"@{US.user_name()} liked it",
    lambda: f"https://{US.hostname()}/{US.word()}/{digits(2, 9)}?page={digits(1, 2)}",
    lambda: f"std::{US.word()}::{US.word()}",
    lambda: f"SELECT {US.word()}::int FROM {US.word()} WHERE id = {digits(3, 9)}",
    lambda: f"{US.time()} to {US.time()}",
    lambda: f"JIRA-{digits(2, 6)}: {US.sentence()}",
    lambda: f"{random.randrange(100)} {random.randrange(1000)} {random.randrange(1000)} {random.randrange(1000)}",
    lambda: f"size {digits(2, 4)}x{digits(2, 4)}x{digits(1, 3)} mm",
    lambda: ":".join(f"{byte:02x}" for byte in random.randbytes(16)),
    lambda: f"batch {digits(3, 3)}-{digits(4, 4)}-{digits(2, 2)}",
    lambda: f"{digits(1, 2)}/{digits(1, 2)}/{random.randrange(2000, 2027)} {US.time()}",
    lambda: US.sentence(),
    lambda: US.paragraph(),
    lambda: US.name(),
    lambda: US.company(),
    lambda: "ghp_" + "x" * 36,
    lambda: f"part no. {chars(string.ascii_uppercase, 2)}{digits(7, 7)}",
]


def positive(entity):
    make, labels = POSITIVES[entity]
    value = make()
    lead, tail = "", ""
    if entity == "url_credentials":
        lead, value, tail = in_url(value)
    label = random.choice(labels)
    draw = random.random()
    if draw < 0.15:
        template = "{value}"
    elif draw < 0.3:
        template = random.choice(WITHOUT)
    else:
        template = random.choice(BESIDE)
    key = label.lower().replace(" ", "_").strip(".:")
    before, after = template.split("{value}")
    words = {"label": label, "key": key}
    before = before.format(sentence=US.sentence(), **words) + lead
    after = tail + after.format(sentence=US.sentence(), **words)
    start = len(before.encode())
    return before + value + after, (entity, start, start + len(value.encode()))


def main():
    directory, count = sys.argv[1], int(sys.argv[2])
    cells = [positive(entity) for entity in POSITIVES for _ in range(count)]
    cells += [(random.choice(NEGATIVES)(), None) for _ in range(count * len(POSITIVES))]
    random.shuffle(cells)
    with open(f"{directory}/cells", "wb") as file:
        file.write(b"\x1e".join(text.encode() for text, _ in cells))
    with open(f"{directory}/labels", "w") as file:
        for number, (_, label) in enumerate(cells):
            if label:
                print(number, *label, sep="\t", file=file)
    # Prose with a value in every four thousand bytes or so.
    with open(f"{directory}/prose", "w") as file:
        while file.tell() < 4 << 20:
            for _ in range(30):
                file.write(US.paragraph() + "\n")
            file.write(random.choice(POSITIVES["email"][1]) + " " + US.email() + "\n")


main()
