"""Grammars of the URIs of models, data and results.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html defines the names of buckets.
"""

from __future__ import annotations

from dataclasses import replace

from tunesmith_api.grammar import INVISIBLE, Grammar, Slip

BUCKET = "[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
HUB = r"(hf|ms)://\w[\w.-]*/\w[\w.-]*(@\w[\w./-]*)?"
S3 = f"s3://{BUCKET}(/.*)?"
CLAIM = r"pvc://[a-z0-9]+((\.|-+)[a-z0-9]+)*(/.*)?"
LOCAL = "file:///.+"
HOST = r"[A-Za-z0-9]+((\.|-+)[A-Za-z0-9]+)*"
"""Labels between dots, which neither begin nor end with -."""
SERVER = rf"https://{HOST}(:\d{{1,5}})?"
WEB = rf"{SERVER}/.+\.(gguf|safetensors|tar\.gz|tgz|tar\.zst|zip)"
"""A file of a model on a web server."""
WEB_DATA = f"{SERVER}/.*[^/]"
"""A file of data on a web server."""
HUB_PAGE = r"^https?://([^/]*\.)?(huggingface|hf|hf-mirror|modelscope)\."

ADDRESS = r"^s3://[0-9]+(\.[0-9]+){3}(/|$)"
LABELS = r"^s3://[^/]*(\.\.|\.-|-\.)"
DOTS = r"/\.\.?(/|$)"
EMPTY = ":///?[^/].*//|:////"
ODD = r'[?#*\\<>{}^|"`]'
PERCENT = "^[^f].*%[0-9A-Fa-f]{2}"
"""Except in file:///, as Python's Path.as_uri percent-encodes."""
REFUSED = f"[{INVISIBLE}]|{ODD}|{PERCENT}|{DOTS}|{EMPTY}|{ADDRESS}|{LABELS}"

SECRET = r"(://|^[^/]*:)[^/]*@|[?].*="
PLACE = "write s3://BUCKET/KEY"
WITH_ENDPOINT = f"{PLACE}, and the server in spec.storage.endpoint"

CREDENTIALS = Slip(
    "^[Ss]3[an]?://[^/]*@|://[^/]*:[^/]*@",
    "holds credentials",
    "remove them from it; spec.storage.credentialsSecret names a Secret that holds them",
)
PAGES = (
    Slip(
        r"^https?://[^/]*([/.](s3|oss|cos|obs|storage)[.-]|amazonaws|minio)",
        "is the address of an object on the web",
        WITH_ENDPOINT,
    ),
    Slip("^https?:", "is the address of a web page or a file on the web", f"upload it to object storage and {PLACE}"),
)
WILDCARD = Slip("[*?{}]", "has a wildcard", "name the file, or the folder that holds the files")
SLIPS = (
    Slip(r"^[A-Za-z]:[/\\]|^[/.~]", "is a path of a machine, and pods see object storage only", PLACE),
    Slip("://[^:]*://", "holds two URIs", "write one, and each further one in an item of its own"),
    Slip(r"[<>]|\$[({]|\{\{|://[^/]*(\$|\{)", "has a template that was not filled in", "write the name itself"),
    Slip("^ | $", "begins or ends with a space"),
    Slip(" ", "has a space", "rename what it names and write it without"),
    Slip(f"[{INVISIBLE}]", "is followed by an invisible or control character", "retype it by hand"),
    Slip(r"\?.*=", "has a query, as URIs of this kind have none", "remove it, from the ? on"),
    WILDCARD,
    Slip("#", "has a fragment", "remove it, from the # on"),
    Slip("^[Ss]3[an]?://[^/]*:", "has a port after the bucket", WITH_ENDPOINT),
    Slip(r"\\", "has a backslash"),
    Slip("^[^f].*%20", "has a space (%20)", "rename what it names and write it without"),
    Slip(PERCENT, "is percent-encoded", "write the characters as they are in the name of the object"),
    Slip('[\\^|"`]', "has a character that is not allowed in it", "rename what it names"),
    Slip(r"^s3://\.\.?(/|$)", "has no bucket", PLACE),
    Slip(DOTS, "has a folder named . or ..", "write the path without it"),
    Slip(EMPTY, "has an empty folder (//)", "write each folder between two single slashes"),
)
"""Mistakes with every URI."""

HALF = (
    "lacks the organization or the model",
    "write both as in the address of the model's page, such as hf://Qwen/Qwen3-8B",
)
"""The fault of a hub's URI that lacks one of its two parts, and the hint."""

HALF_DATA = (
    "lacks the organization or the name",
    "write both as in the address of the data set's page, such as hf://openai/gsm8k",
)

STORES = (
    Slip("^s3:/*$|^s3:///", "has no bucket", PLACE),
    Slip(ADDRESS, "has an address in the place of the bucket", WITH_ENDPOINT),
    Slip(
        "^s3://",
        "has a bucket that S3 does not allow",
        "a bucket is 3 to 63 lower-case letters, digits, - and ., and begins and ends with a letter or digit",
    ),
    Slip("^[Ss]3[an]?:", "is not how a URI of S3 begins", PLACE),
    Slip("^file:", "has no absolute path", "write file:///FOLDER/FILE"),
    Slip("^pvc:", "has no name of a claim", "write pvc://CLAIM/PATH, with a PersistentVolumeClaim of this namespace"),
    Slip(
        "^(gs|gcs|oss|cos|cosn|obs|tos|bos|minio|r2|b2)://",
        "is of a store that is read by its S3 API, with its server in spec.storage.endpoint",
        PLACE,
    ),
    Slip("^(az|azure|abfss?|wasbs?|hdfs|s?ftp)://", "is of a store without the S3 API", f"copy it to one and {PLACE}"),
)
"""Mistakes with places in a store."""

SCHEMES = (
    ("pvc://", ""), ('"', ""), ("arn:aws:s3:::", "s3://"),
    ("\u200b", ""), ("\ufeff", ""), ("\u200e", ""), ("\u200f", ""),
    *((f"{scheme}://", "s3://") for scheme in ("S3", "s3a", "s3n", "gs", "oss", "cos", "obs", "tos", "minio")),
    ("\\", "/"), ("s3:", "s3:/"), ("file:", "file:/"), ("/./", "/"), ("//", "/"), ("//", "/"), ("//", "/"),
    (":/", "://"), ("file://", "file:///"),
)  # fmt: skip
"""Repairs: other names of S3, and the slashes after a scheme and between folders."""

HUBS = (
    ("http://", "https://"), ("https://www.", "https://"),
    ("https://huggingface.co/", "hf:"), ("https://hf.co/", "hf:"), ("https://hf-mirror.com/", "hf:"),
    ("https://modelscope.cn/models/", "ms:"), ("huggingface://", "hf:"), ("modelscope://", "ms:"),
    ("HF:", "hf:"), ("MS:", "ms:"), ("hf:", "hf:/"), ("ms:", "ms:/"),
    ("/tree/", "@"), ("/summary", ""),
)  # fmt: skip
"""Repairs: the addresses of pages of the two hubs, and other names of their schemes."""

DATA_PAGES = (
    ("http://", "https://"), ("https://www.", "https://"),
    *((f"https://{host}/datasets/", "hf:/") for host in ("huggingface.co", "hf.co", "hf-mirror.com")),
    ("https://modelscope.cn/datasets/", "ms:/"),
)  # fmt: skip
"""Repairs: the addresses of data sets' pages."""

MODEL = Grammar(
    pattern=f"^({HUB}|{S3}|{WEB}|{CLAIM}|{LOCAL})$",
    refused=f"{REFUSED}|{HUB_PAGE}",
    problem="is not a model URI",
    advice="write hf://ORG/NAME, ms://ORG/NAME or s3://BUCKET/FOLDER",
    secret=SECRET,
    tightened=True,
    slips=(
        Slip(HUB_PAGE, "is the address of a web page", "write hf://ORG/NAME or ms://ORG/NAME"),
        *PAGES,
        CREDENTIALS,
        Slip(r"^(hf|ms)://(\.\.?/[^/]*|[^/]*/\.\.?)$", *HALF),
        *SLIPS,
        *STORES,
        Slip("^(hf|ms)://([^/]*/*$|/)", *HALF),
        Slip("^(hf|ms)://.*@.*@|^(hf|ms)://.*@$", "has several @, or nothing after it", "write hf://ORG/NAME@REVISION with a branch, tag or commit, or hf://ORG/NAME"),
        Slip("^(hf|ms)://[^@]*/[^@]*/", "has more than an organization and a name", "write hf://ORG/NAME; a single file of a model cannot be named"),
        Slip("^[^:/]+/[^:/]+$", "names a model without its hub"),
    ),
    prefix=(r"^ *\w[\w.-]*/\w[\w.-]*(@[^ ]*)? *$", "hf:"),
    repairs=(*HUBS, *SCHEMES),
)  # fmt: skip

OBJECT_HOST = f"{PAGES[0].pattern}|^https?://(s3|oss|cos|obs|storage)[.-]|^https?://[^/]*:9000/"
"""Addresses of objects, by the names of S3's servers and the port of MinIO."""
DATA_ODD = r'[?#\\<>{}^|"`]'
"""Unlike other URIs, those of data may have *."""
DATA_PERCENT = "^[^fh].*%[0-9A-Fa-f]{2}"
"""Except in file:/// and https://."""
DATA_REFUSED = (
    f"[{INVISIBLE}]|{DATA_ODD}|{DATA_PERCENT}|^https:.*[*]|{DOTS}|{EMPTY}|{ADDRESS}|{LABELS}|{HUB_PAGE}|{OBJECT_HOST}"
)

DATA = Grammar(
    pattern=f"^({HUB}|{S3}|{WEB_DATA}|{CLAIM}|{LOCAL})$",
    refused=DATA_REFUSED,
    problem="is not a data URI",
    advice="write s3://BUCKET/FILE.jsonl, the folder s3://BUCKET/FOLDER or hf://ORG/NAME",
    secret=SECRET,
    tightened=True,
    slips=(
        Slip(HUB_PAGE, "is the address of a web page", "write hf://ORG/NAME or ms://ORG/NAME, with the subset and the split in fields of their own"),
        Slip(OBJECT_HOST, PAGES[0].problem, PAGES[0].advice),
        Slip("^https?://[^/]*@", "holds credentials", "remove them, or upload the file to object storage and write s3://BUCKET/KEY"),
        CREDENTIALS,
        Slip("^https:.*[*]", "has a wildcard, and a web server does not list its files", "write a URI for each file"),
        Slip("^https?://[^/]*/?$|^https?:.*/$", "names no file", "write https://HOST/FILE.jsonl"),
        Slip("^http:", "is not encrypted", "write https://HOST/FILE.jsonl"),
        *(slip for slip in SLIPS if slip is not WILDCARD),
        Slip("[?{}]", "has a wildcard other than *", "write * for any characters of a name, or ** for folders too"),
        *STORES,
        Slip("^(hf|ms)://([^/]*/*$|/)", *HALF_DATA),
        Slip("^(hf|ms)://.*@.*@|^(hf|ms)://.*@$", "has several @, or nothing after it", "write hf://ORG/NAME@REVISION with a branch, tag or commit, or hf://ORG/NAME"),
        Slip("^(hf|ms)://[^@]*/[^@]*/", "has more than an organization and a name", "write hf://ORG/NAME, with the subset and the split in fields of their own"),
    ),
    repairs=(*DATA_PAGES, *SCHEMES),
)  # fmt: skip

STORE = Grammar(
    pattern=f"^({S3}|{CLAIM}|{LOCAL})$",
    refused=REFUSED,
    problem="is not a place to write to",
    advice="write s3://BUCKET/FOLDER",
    secret=SECRET,
    tightened=True,
    slips=(*PAGES, CREDENTIALS, *SLIPS, *STORES),
    repairs=SCHEMES,
)

PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"

ENDPOINT = Grammar(
    pattern=rf"^https?://({HOST}\.?|\[[0-9A-Fa-f:.]+\])(:{PORT})?(/.*)?$",
    refused=f"[{INVISIBLE}]|{ODD}",
    problem="is not the URL of an S3 API",
    advice="write https://HOST or https://HOST:PORT",
    secret=SECRET,
    tightened=True,
    slips=(
        Slip("://[^/]*@", "holds credentials", "remove them; spec.storage.credentialsSecret names a Secret"),
        Slip("^ | $", "begins or ends with a space"),
        Slip(f"[{INVISIBLE}]", "is followed by a space, an invisible or a control character", "retype it by hand"),
        Slip("^[Ss]3:", "is the URI of a bucket, not of its server"),
        Slip("^[^:/]+(:[0-9]+)?(/.*)?$", "lacks http:// or https://"),
        Slip("[?#]", "has a query or a fragment", "remove it"),
        Slip("^https?://[^/]*_", "has a host with _", "write https://HOST with letters, digits, - and . only"),
        Slip("^https?://[^/]*:[0-9]+(/|$)", "has no port from 1 to 65535"),
    ),
    prefix=(r"^ *[\w.-]+(:\d+)?/? *$", "https://"),
    repairs=(("HTTP://", "http://"), ("HTTPS://", "https://"), ("Https://", "https://"), ("Http://", "http://")),
)  # fmt: skip
TRACKER = replace(
    ENDPOINT,
    problem="is not the URL of a tracking server",
    slips=(
        Slip("://[^/]*@", "holds credentials", "remove them; spec.tracking.secret names a Secret"),
        *ENDPOINT.slips[1:],
    ),
)
