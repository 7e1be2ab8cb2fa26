"""Wrong values of every kind of text in a spec, and the sentence that refuses each: for the API server and for our programs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from tunesmith_api import base, common, evaljob, inferenceservice, uris
from tunesmith_api.grammar import CONTROL, INVISIBLE, SPACES, Grammar


@dataclass(frozen=True)
class Place:
    """A field in which such a text stands."""

    grammar: Grammar
    kind: str
    path: str
    """As the API server names it."""
    spec: Callable[[Any], dict[str, Any]]
    """The part of a spec that holds a value."""
    good: str
    """A value that is admitted."""


PLACES = {
    "model": Place(
        uris.MODEL, "FineTuneJob", "spec.model.uri", lambda it: {"model": {"uri": it}}, "hf://Qwen/Qwen3-8B"
    ),
    "data": Place(
        uris.DATA,
        "FineTuneJob",
        "spec.datasets[0].uri",
        lambda it: {"datasets": [{"uri": it}]},
        "s3://bucket/train.jsonl",
    ),
    "output": Place(uris.STORE, "EvalJob", "spec.output.uri", lambda it: {"output": {"uri": it}}, "s3://bucket/out"),
    "endpoint": Place(
        uris.ENDPOINT,
        "InferenceService",
        "spec.storage.endpoint",
        lambda it: {"storage": {"endpoint": it}},
        "https://minio:9000",
    ),
    "region": Place(
        common.REGION, "EvalJob", "spec.storage.region", lambda it: {"storage": {"region": it}}, "us-east-1"
    ),
    "key": Place(
        common.KEY,
        "EvalJob",
        "spec.storage.caBundle.key",
        lambda it: {"storage": {"caBundle": {"name": "ca", "key": it}}},
        "ca.crt",
    ),
    "name": Place(
        base.NAME,
        "InferenceService",
        "spec.promotion.evalJobs[0].name",
        lambda it: {"promotion": {"evalJobs": [{"name": it}]}},
        "support",
    ),
    "object": Place(
        base.OBJECT_NAME,
        "EvalJob",
        "spec.storage.credentialsSecret",
        lambda it: {"storage": {"credentialsSecret": it}},
        "keys",
    ),
    "label": Place(
        base.LABEL_VALUE,
        "FineTuneJob",
        "spec.pod.nodeSelector[gpu]",
        lambda it: {"pod": {"nodeSelector": {"gpu": it}}},
        "a100",
    ),
    "duration": Place(base.DURATION, "EvalJob", "spec.deadline", lambda it: {"deadline": it}, "90s"),
    "quantity": Place(
        base.QUANTITY, "FineTuneJob", "spec.resources.memory", lambda it: {"resources": {"memory": it}}, "16Gi"
    ),
    "variable": Place(
        common.VARIABLE_NAME,
        "FineTuneJob",
        "spec.pod.env[0].name",
        lambda it: {"pod": {"env": [{"name": it}]}},
        "my_var",
    ),
    "topology": Place(
        common.LABEL_KEY,
        "FineTuneJob",
        "spec.parallelism.near.topologyKey",
        lambda it: {"parallelism": {"nodes": 2, "near": {"topologyKey": it}}},
        "topology.kubernetes.io/zone",
    ),
    "benchmark": Place(
        evaljob.BENCHMARK_NAME,
        "EvalJob",
        "spec.benchmarks[0].name",
        lambda it: {"benchmarks": [{"name": it}]},
        "my-words",
    ),
    "metric": Place(
        inferenceservice.METRIC_NAME,
        "InferenceService",
        "spec.autoscaling.metric.name",
        lambda it: {"autoscaling": {"maxReplicas": 2, "metric": {"name": it, "average": 4}}},
        "queue_length",
    ),
}

EXAMPLES = (
    ("BUCKET", "bucket"), ("FOLDER", "folder"), ("FILE", "file"), ("KEY", "key"),
    ("ORG", "Qwen"), ("NAME", "Qwen3-8B"), ("REVISION", "main"), ("HOST", "minio"),
)  # fmt: skip
"""What somebody writes for the placeholders of a sentence."""

ADVICE: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("remove them", lambda text: re.sub("//[^/]*@", "//", text)),
    ("remove it", lambda text: re.split("[?#]", text)[0]),
    ("name the file, or the folder", lambda text: text.rpartition("/")[0]),
    ("write the path without it", lambda text: re.sub(r"/\.\.?(?=/|$)", "", text)),
    ("rename what it names", lambda text: re.sub(r" |%20|\|", "", text)),
    ("write the characters as they are", unquote),
    ("write the name itself", lambda text: re.sub(r"\$?[({<]+[^)}>]*[)}>]+|\$[A-Z]+", "name", text)),
    ("a bucket is 3 to 63", lambda text: re.sub("//[^/]*", "//bucket", text)),
    ("write one, and each further one", lambda text: re.split("[, ]", text)[0]),
    (
        "type it anew by hand",
        lambda text: re.sub(f"[{INVISIBLE}]".replace(r"\pC", CONTROL).replace(r"\pZ", SPACES), "", text),
    ),
    ("write both as in the address", lambda text: "hf://Qwen/Qwen3-8B"),
)
"""How advice without a value is followed: its beginning, and what becomes of the text."""


def followed(place: Place, text: str, sentence: str) -> str:
    """What somebody writes who does as the sentence says, to the letter."""
    advice = sentence.rpartition(": ")[2] if ": write " not in sentence else sentence.partition(": write ")[2]
    for beginning, change in ADVICE:
        if f": {beginning}" in sentence:
            return change(text)
    written = advice.split(", ")[0].split("; ")[0].split(" or ")[0].split(" with ")[0]
    for placeholder, example in EXAMPLES:
        written = written.replace(placeholder, example)
    return place.good if " " in written or "at most" in advice else written


REFUSED: dict[str, dict[str, str]] = {
    "model": {
        "": '"" is no URI of a model: write hf://ORG/NAME, ms://ORG/NAME or s3://BUCKET/FOLDER',
        "Qwen/Qwen3-8B": '"Qwen/Qwen3-8B" names a model without saying where it is: write hf://Qwen/Qwen3-8B',
        "Qwen/Qwen3-8B@main": '"Qwen/Qwen3-8B@main" names a model without saying where it is: write hf://Qwen/Qwen3-8B@main',
        "gpt2": '"gpt2" is no URI of a model: write hf://ORG/NAME, ms://ORG/NAME or s3://BUCKET/FOLDER',
        "https://huggingface.co/Qwen/Qwen3-8B": '"https://huggingface.co/Qwen/Qwen3-8B" is the address of a web page: write hf://Qwen/Qwen3-8B',
        "http://huggingface.co/Qwen/Qwen3-8B": '"http://huggingface.co/Qwen/Qwen3-8B" is the address of a web page: write hf://Qwen/Qwen3-8B',
        "https://hf.co/Qwen/Qwen3-8B": '"https://hf.co/Qwen/Qwen3-8B" is the address of a web page: write hf://Qwen/Qwen3-8B',
        "https://huggingface.co/Qwen/Qwen3-8B/tree/main": '"https://huggingface.co/Qwen/Qwen3-8B/tree/main" is the address of a web page: write hf://Qwen/Qwen3-8B@main',
        "https://huggingface.co/Qwen/Qwen3-8B/blob/main/config.json": '"https://huggingface.co/Qwen/Qwen3-8B/blob/main/config.json" is the address of a web page: write hf://ORG/NAME or ms://ORG/NAME',
        "https://hf-mirror.com/Qwen/Qwen3-8B": '"https://hf-mirror.com/Qwen/Qwen3-8B" is the address of a web page: write hf://Qwen/Qwen3-8B',
        "https://www.modelscope.cn/models/Qwen/Qwen3-8B": '"https://www.modelscope.cn/models/Qwen/Qwen3-8B" is the address of a web page: write ms://Qwen/Qwen3-8B',
        "https://modelscope.cn/models/Qwen/Qwen3-8B/summary": '"https://modelscope.cn/models/Qwen/Qwen3-8B/summary" is the address of a web page: write ms://Qwen/Qwen3-8B',
        "huggingface://Qwen/Qwen3-8B": '"huggingface://Qwen/Qwen3-8B" is no URI of a model: write hf://Qwen/Qwen3-8B',
        "HF://Qwen/Qwen3-8B": '"HF://Qwen/Qwen3-8B" is no URI of a model: write hf://Qwen/Qwen3-8B',
        "hf:Qwen/Qwen3-8B": '"hf:Qwen/Qwen3-8B" is no URI of a model: write hf://Qwen/Qwen3-8B',
        "hf:/Qwen/Qwen3-8B": '"hf:/Qwen/Qwen3-8B" is no URI of a model: write hf://Qwen/Qwen3-8B',
        "hf://Qwen": '"hf://Qwen" names no organization, or no model of it: write both as in the address of the model\'s page, such as hf://Qwen/Qwen3-8B',
        "hf://": '"hf://" names no organization, or no model of it: write both as in the address of the model\'s page, such as hf://Qwen/Qwen3-8B',
        "hf://Qwen/": '"hf://Qwen/" names no organization, or no model of it: write both as in the address of the model\'s page, such as hf://Qwen/Qwen3-8B',
        "hf:///Qwen3-8B": '"hf:///Qwen3-8B" names no organization, or no model of it: write both as in the address of the model\'s page, such as hf://Qwen/Qwen3-8B',
        "hf://Qwen/Qwen3-8B/": '"hf://Qwen/Qwen3-8B/" has more than an organization and a name: write hf://ORG/NAME; a single file of a model cannot be named',
        "hf://Qwen/Qwen3-8B@": '"hf://Qwen/Qwen3-8B@" has several @, or nothing after it: write hf://ORG/NAME@REVISION with a branch, tag or commit, or hf://ORG/NAME',
        "hf://Qwen/Qwen3-8B@main@v1": '"hf://Qwen/Qwen3-8B@main@v1" has several @, or nothing after it: write hf://ORG/NAME@REVISION with a branch, tag or commit, or hf://ORG/NAME',
        "hf://Qwen/Qwen3-8B/tree/main": '"hf://Qwen/Qwen3-8B/tree/main" has more than an organization and a name: write hf://Qwen/Qwen3-8B@main',
        "hf://Qwen/Qwen3-8B/model.safetensors": '"hf://Qwen/Qwen3-8B/model.safetensors" has more than an organization and a name: write hf://ORG/NAME; a single file of a model cannot be named',
        "hf://Qwen/Qwen3-8B?revision=main": "the value has a query, as URIs of this kind have none: remove it, from the ? on",
        "hf://Qwen/../Qwen3-8B": '"hf://Qwen/../Qwen3-8B" has a folder named . or ..: write the path without it',
        "hf://Qwen/..": '"hf://Qwen/.." names no organization, or no model of it: write both as in the address of the model\'s page, such as hf://Qwen/Qwen3-8B',
        "ms://../Qwen3-8B": '"ms://../Qwen3-8B" names no organization, or no model of it: write both as in the address of the model\'s page, such as hf://Qwen/Qwen3-8B',
        "hf://Qwen/Qwen3 8B": '"hf://Qwen/Qwen3 8B" has a space: rename what it names and write it without',
        "hf://models--Qwen--Qwen3-8B": '"hf://models--Qwen--Qwen3-8B" names no organization, or no model of it: write both as in the address of the model\'s page, such as hf://Qwen/Qwen3-8B',
        "ms://Qwen": '"ms://Qwen" names no organization, or no model of it: write both as in the address of the model\'s page, such as hf://Qwen/Qwen3-8B',
        "ms:Qwen/Qwen3-8B": '"ms:Qwen/Qwen3-8B" is no URI of a model: write ms://Qwen/Qwen3-8B',
        "modelscope://Qwen/Qwen3-8B": '"modelscope://Qwen/Qwen3-8B" is no URI of a model: write ms://Qwen/Qwen3-8B',
        "http://models/base": '"http://models/base" is the address of a web page or a file on the web: upload it to object storage and write s3://BUCKET/KEY',
        "https://example.com/model.tar.gz": '"https://example.com/model.tar.gz" is the address of a web page or a file on the web: upload it to object storage and write s3://BUCKET/KEY',
        "/mnt/models/base": '"/mnt/models/base" is a path of a machine, and pods see object storage only: write s3://BUCKET/KEY',
        "./base": '"./base" is a path of a machine, and pods see object storage only: write s3://BUCKET/KEY',
        "../base": '"../base" is a path of a machine, and pods see object storage only: write s3://BUCKET/KEY',
        "~/models/base": '"~/models/base" is a path of a machine, and pods see object storage only: write s3://BUCKET/KEY',
        "C:\\models\\base": '"C:\\models\\base" is a path of a machine, and pods see object storage only: write s3://BUCKET/KEY',
        "file://models/base": '"file://models/base" names no absolute path: write file:///models/base',
        "file:/models/base": '"file:/models/base" names no absolute path: write file:///models/base',
        "file:///models/../base": '"file:///models/../base" has a folder named . or ..: write the path without it',
        "models": '"models" is no URI of a model: write hf://ORG/NAME, ms://ORG/NAME or s3://BUCKET/FOLDER',
        "s3": '"s3" is no URI of a model: write hf://ORG/NAME, ms://ORG/NAME or s3://BUCKET/FOLDER',
        "Qwen/Qwen3-8B ": '"Qwen/Qwen3-8B " begins or ends with a space: write hf://Qwen/Qwen3-8B',
        "hf://Qwen/Qwen3-8B\u200b": '"hf://Qwen/Qwen3-8B" goes on with an invisible or control character: write hf://Qwen/Qwen3-8B',
        "hf://Qwen\u00a0/Qwen3-8B": '"hf://Qwen" goes on with an invisible or control character: type it anew by hand',
        "hf://Qwen/Qwen3-8B#main": '"hf://Qwen/Qwen3-8B#main" has a fragment: remove it, from the # on',
        "hf://{{org}}/model": '"hf://{{org}}/model" has a template that was not filled in: write the name itself',
        "docker://org/image": '"docker://org/image" is no URI of a model: write hf://ORG/NAME, ms://ORG/NAME or s3://BUCKET/FOLDER',
        "oci://registry/model": '"oci://registry/model" is no URI of a model: write hf://ORG/NAME, ms://ORG/NAME or s3://BUCKET/FOLDER',
        "org/team/model": '"org/team/model" is no URI of a model: write hf://ORG/NAME, ms://ORG/NAME or s3://BUCKET/FOLDER',
    },
    "data": {
        "": '"" is no URI of data: write s3://BUCKET/FILE.jsonl or the folder s3://BUCKET/FOLDER',
        "s3://bucket/../train.jsonl": '"s3://bucket/../train.jsonl" has a folder named . or ..: write the path without it',
        "s3://bucket/a/./train.jsonl": '"s3://bucket/a/./train.jsonl" has a folder named . or ..: write s3://bucket/a/train.jsonl',
        "s3://bucket/a/..": '"s3://bucket/a/.." has a folder named . or ..: write the path without it',
        "s3://bucket//train.jsonl": '"s3://bucket//train.jsonl" has an empty folder (//): write s3://bucket/train.jsonl',
        "s3://bucket/a//train.jsonl": '"s3://bucket/a//train.jsonl" has an empty folder (//): write s3://bucket/a/train.jsonl',
        "s3://bucket/train.jsonl//": '"s3://bucket/train.jsonl//" has an empty folder (//): write s3://bucket/train.jsonl/',
        "s3://key:word@bucket/train.jsonl": "the value holds credentials: remove them from it; spec.storage.credentialsSecret names a Secret that holds them",
        "s3://key@bucket/train.jsonl": "the value holds credentials: remove them from it; spec.storage.credentialsSecret names a Secret that holds them",
        "key:word@minio:9000/bucket": "the value is no URI of data: write s3://BUCKET/FILE.jsonl or the folder s3://BUCKET/FOLDER",
        "s3://bucket/train\u034f.jsonl": '"s3://bucket/train" goes on with an invisible or control character: type it anew by hand',
        "s3://bucket/train\U000e0100.jsonl": '"s3://bucket/train" goes on with an invisible or control character: type it anew by hand',
        "s3://../other/train.jsonl": '"s3://../other/train.jsonl" names no bucket: write s3://BUCKET/KEY',
        "s3://{bucket}/train.jsonl": '"s3://{bucket}/train.jsonl" has a template that was not filled in: write the name itself',
        "s3://bucket:9000/train.jsonl": '"s3://bucket:9000/train.jsonl" has a port after the bucket: write s3://BUCKET/KEY, and the server in spec.storage.endpoint',
        "s3://minio.storage.svc:9000/bucket/train.jsonl": '"s3://minio.storage.svc:9000/bucket/train.jsonl" has a port after the bucket: write s3://BUCKET/KEY, and the server in spec.storage.endpoint',
        "s3://10.0.0.1/bucket/train.jsonl": '"s3://10.0.0.1/bucket/train.jsonl" has an address in the place of the bucket: write s3://BUCKET/KEY, and the server in spec.storage.endpoint',
        "s3://10.0.0.1:9000/bucket/train.jsonl": '"s3://10.0.0.1:9000/bucket/train.jsonl" has a port after the bucket: write s3://BUCKET/KEY, and the server in spec.storage.endpoint',
        "s3://bucket/train.jsonl?versionId=3": "the value has a query, as URIs of this kind have none: remove it, from the ? on",
        "s3://bucket/train.jsonl?X-Amz-Signature=abc": "the value has a query, as URIs of this kind have none: remove it, from the ? on",
        "s3://bucket/train.jsonl#1": '"s3://bucket/train.jsonl#1" has a fragment: remove it, from the # on',
        "s3://bucket/*.jsonl": '"s3://bucket/*.jsonl" has a wildcard: name the file, or the folder that holds the files',
        "s3://bucket/part-?.jsonl": '"s3://bucket/part-?.jsonl" has a wildcard: name the file, or the folder that holds the files',
        "s3://bucket/{a,b}.jsonl": '"s3://bucket/{a,b}.jsonl" has a wildcard: name the file, or the folder that holds the files',
        "s3://bucket/my train.jsonl": '"s3://bucket/my train.jsonl" has a space: rename what it names and write it without',
        "s3://bucket/%E6%95%B0.jsonl": '"s3://bucket/%E6%95%B0.jsonl" is percent-encoded: write the characters as they are in the name of the object',
        "s3://bucket/my%20train.jsonl": '"s3://bucket/my%20train.jsonl" has a space (%20): rename what it names and write it without',
        "s3://bucket/train.jsonl ": '"s3://bucket/train.jsonl " begins or ends with a space: write s3://bucket/train.jsonl',
        " s3://bucket/train.jsonl": '" s3://bucket/train.jsonl" begins or ends with a space: write s3://bucket/train.jsonl',
        "s3://bucket/train.jsonl\n": '"s3://bucket/train.jsonl" goes on with an invisible or control character: write s3://bucket/train.jsonl',
        "\ufeffs3://bucket/train.jsonl": '"" goes on with an invisible or control character: write s3://bucket/train.jsonl',
        "s3://bucket/\u200btrain.jsonl": '"s3://bucket/" goes on with an invisible or control character: write s3://bucket/train.jsonl',
        "s3://bucket/\u202etrain.jsonl": '"s3://bucket/" goes on with an invisible or control character: type it anew by hand',
        "s3://bucket/\u00a0train.jsonl": '"s3://bucket/" goes on with an invisible or control character: type it anew by hand',
        "s3://bucket/tr\tain.jsonl": '"s3://bucket/tr" goes on with an invisible or control character: type it anew by hand',
        "s3://bucket/\u0000train.jsonl": '"s3://bucket/" goes on with an invisible or control character: type it anew by hand',
        "s3://bucket/\u3164train.jsonl": '"s3://bucket/" goes on with an invisible or control character: type it anew by hand',
        "s3://bucket\\train.jsonl": '"s3://bucket\\train.jsonl" has a backslash: write s3://bucket/train.jsonl',
        "s3:\\\\bucket\\train.jsonl": '"s3:\\\\bucket\\train.jsonl" has a backslash: write s3://bucket/train.jsonl',
        "s3:/bucket/train.jsonl": '"s3:/bucket/train.jsonl" is not how a URI of S3 begins: write s3://bucket/train.jsonl',
        "s3:bucket/train.jsonl": '"s3:bucket/train.jsonl" is not how a URI of S3 begins: write s3://bucket/train.jsonl',
        "s3:///bucket/train.jsonl": '"s3:///bucket/train.jsonl" names no bucket: write s3://bucket/train.jsonl',
        "s3://": '"s3://" names no bucket: write s3://BUCKET/KEY',
        "s3:///": '"s3:///" names no bucket: write s3://BUCKET/KEY',
        "S3://bucket/train.jsonl": '"S3://bucket/train.jsonl" is not how a URI of S3 begins: write s3://bucket/train.jsonl',
        "s3a://bucket/train.jsonl": '"s3a://bucket/train.jsonl" is not how a URI of S3 begins: write s3://bucket/train.jsonl',
        "s3n://bucket/train.jsonl": '"s3n://bucket/train.jsonl" is not how a URI of S3 begins: write s3://bucket/train.jsonl',
        "s3://Bucket/train.jsonl": '"s3://Bucket/train.jsonl" has a bucket that S3 does not allow: a bucket is 3 to 63 lower-case letters, digits, - and ., and begins and ends with a letter or digit',
        "s3://my_bucket/train.jsonl": '"s3://my_bucket/train.jsonl" has a bucket that S3 does not allow: a bucket is 3 to 63 lower-case letters, digits, - and ., and begins and ends with a letter or digit',
        "s3://ab/train.jsonl": '"s3://ab/train.jsonl" has a bucket that S3 does not allow: a bucket is 3 to 63 lower-case letters, digits, - and ., and begins and ends with a letter or digit',
        "s3://bucket-/train.jsonl": '"s3://bucket-/train.jsonl" has a bucket that S3 does not allow: a bucket is 3 to 63 lower-case letters, digits, - and ., and begins and ends with a letter or digit',
        "s3://-bucket/train.jsonl": '"s3://-bucket/train.jsonl" has a bucket that S3 does not allow: a bucket is 3 to 63 lower-case letters, digits, - and ., and begins and ends with a letter or digit',
        "s3://bucket./train.jsonl": '"s3://bucket./train.jsonl" has a bucket that S3 does not allow: a bucket is 3 to 63 lower-case letters, digits, - and ., and begins and ends with a letter or digit',
        "s3://my..bucket/train.jsonl": '"s3://my..bucket/train.jsonl" has a bucket that S3 does not allow: a bucket is 3 to 63 lower-case letters, digits, - and ., and begins and ends with a letter or digit',
        "s3://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb/train.jsonl": '"s3://bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb/train.jsonl" has a bucket that S3 does not allow: a bucket is 3 to 63 lower-case letters, digits, - and ., and begins and ends with a letter or digit',
        "s3://桶/train.jsonl": '"s3://桶/train.jsonl" has a bucket that S3 does not allow: a bucket is 3 to 63 lower-case letters, digits, - and ., and begins and ends with a letter or digit',
        "gs://bucket/train.jsonl": '"gs://bucket/train.jsonl" is of a store that is read by its S3 API, with its server in spec.storage.endpoint: write s3://bucket/train.jsonl',
        "oss://bucket/train.jsonl": '"oss://bucket/train.jsonl" is of a store that is read by its S3 API, with its server in spec.storage.endpoint: write s3://bucket/train.jsonl',
        "cos://bucket/train.jsonl": '"cos://bucket/train.jsonl" is of a store that is read by its S3 API, with its server in spec.storage.endpoint: write s3://bucket/train.jsonl',
        "obs://bucket/train.jsonl": '"obs://bucket/train.jsonl" is of a store that is read by its S3 API, with its server in spec.storage.endpoint: write s3://bucket/train.jsonl',
        "minio://bucket/train.jsonl": '"minio://bucket/train.jsonl" is of a store that is read by its S3 API, with its server in spec.storage.endpoint: write s3://bucket/train.jsonl',
        "r2://bucket/train.jsonl": '"r2://bucket/train.jsonl" is of a store that is read by its S3 API, with its server in spec.storage.endpoint: write s3://BUCKET/KEY',
        "abfss://data@account.dfs.core.windows.net/train.jsonl": "the value is of a store without the S3 API: copy it to one and write s3://BUCKET/KEY",
        "az://container/train.jsonl": '"az://container/train.jsonl" is of a store without the S3 API: copy it to one and write s3://BUCKET/KEY',
        "hdfs://namenode/train.jsonl": '"hdfs://namenode/train.jsonl" is of a store without the S3 API: copy it to one and write s3://BUCKET/KEY',
        "ftp://host/train.jsonl": '"ftp://host/train.jsonl" is of a store without the S3 API: copy it to one and write s3://BUCKET/KEY',
        "https://bucket.s3.amazonaws.com/train.jsonl": '"https://bucket.s3.amazonaws.com/train.jsonl" is the address of an object on the web: write s3://BUCKET/KEY, and the server in spec.storage.endpoint',
        "https://s3.eu-central-1.amazonaws.com/bucket/train.jsonl": '"https://s3.eu-central-1.amazonaws.com/bucket/train.jsonl" is the address of an object on the web: write s3://BUCKET/KEY, and the server in spec.storage.endpoint',
        "https://s3.console.aws.amazon.com/s3/buckets/bucket?prefix=train": "the value is the address of a web page or a file on the web: upload it to object storage and write s3://BUCKET/KEY",
        "https://bucket.oss-cn-hangzhou.aliyuncs.com/train.jsonl": '"https://bucket.oss-cn-hangzhou.aliyuncs.com/train.jsonl" is the address of an object on the web: write s3://BUCKET/KEY, and the server in spec.storage.endpoint',
        "https://bucket.s3.amazonaws.com/train.jsonl?X-Amz-Signature=abc": "the value is the address of an object on the web: write s3://BUCKET/KEY, and the server in spec.storage.endpoint",
        "https://user:word@example.com/train.jsonl": "the value is the address of a web page or a file on the web: upload it to object storage and write s3://BUCKET/KEY",
        "https://huggingface.co/datasets/tatsu-lab/alpaca": '"https://huggingface.co/datasets/tatsu-lab/alpaca" is the address of a web page or a file on the web: upload it to object storage and write s3://BUCKET/KEY',
        "http://10.0.0.1:9000/bucket/train.jsonl": '"http://10.0.0.1:9000/bucket/train.jsonl" is the address of a web page or a file on the web: upload it to object storage and write s3://BUCKET/KEY',
        "/data/train.jsonl": '"/data/train.jsonl" is a path of a machine, and pods see object storage only: write s3://BUCKET/KEY',
        "train.jsonl": '"train.jsonl" is no URI of data: write s3://BUCKET/FILE.jsonl or the folder s3://BUCKET/FOLDER',
        "data/train.jsonl": '"data/train.jsonl" is no URI of data: write s3://BUCKET/FILE.jsonl or the folder s3://BUCKET/FOLDER',
        "~/train.jsonl": '"~/train.jsonl" is a path of a machine, and pods see object storage only: write s3://BUCKET/KEY',
        "s3://bucket/a.jsonl,s3://bucket/b.jsonl": '"s3://bucket/a.jsonl,s3://bucket/b.jsonl" holds two URIs: write one, and each further one in an item of its own',
        "s3://bucket/a.jsonl s3://bucket/b.jsonl": '"s3://bucket/a.jsonl s3://bucket/b.jsonl" holds two URIs: write one, and each further one in an item of its own',
        "s3://$BUCKET/train.jsonl": '"s3://$BUCKET/train.jsonl" has a template that was not filled in: write the name itself',
        "s3://${BUCKET}/train.jsonl": '"s3://${BUCKET}/train.jsonl" has a template that was not filled in: write the name itself',
        "s3://<bucket>/train.jsonl": '"s3://<bucket>/train.jsonl" has a template that was not filled in: write the name itself',
        "s3://{{ bucket }}/train.jsonl": '"s3://{{ bucket }}/train.jsonl" has a template that was not filled in: write the name itself',
        '"s3://bucket/train.jsonl"': '""s3://bucket/train.jsonl"" has a character that is not allowed in it: write s3://bucket/train.jsonl',
        "s3://bucket/a|b": '"s3://bucket/a|b" has a character that is not allowed in it: rename what it names',
        "arn:aws:s3:::bucket/train.jsonl": '"arn:aws:s3:::bucket/train.jsonl" is no URI of data: write s3://bucket/train.jsonl',
        "file://data/train.jsonl": '"file://data/train.jsonl" names no absolute path: write file:///data/train.jsonl',
    },
    "output": {
        "": '"" is no place to write to: write s3://BUCKET/FOLDER',
        "hf://org/name": '"hf://org/name" is no place to write to: write s3://BUCKET/FOLDER',
        "s3://bucket/../out": '"s3://bucket/../out" has a folder named . or ..: write the path without it',
        "s3://Bucket/out": '"s3://Bucket/out" has a bucket that S3 does not allow: a bucket is 3 to 63 lower-case letters, digits, - and ., and begins and ends with a letter or digit',
        "s3://bucket//out": '"s3://bucket//out" has an empty folder (//): write s3://bucket/out',
        "bucket/out": '"bucket/out" is no place to write to: write s3://BUCKET/FOLDER',
        "s3://key:word@bucket": "the value holds credentials: remove them from it; spec.storage.credentialsSecret names a Secret that holds them",
        "s3://bucket:9000": '"s3://bucket:9000" has a port after the bucket: write s3://BUCKET/KEY, and the server in spec.storage.endpoint',
        "s3://bucket/out ": '"s3://bucket/out " begins or ends with a space: write s3://bucket/out',
        "gs://bucket/out": '"gs://bucket/out" is of a store that is read by its S3 API, with its server in spec.storage.endpoint: write s3://bucket/out',
        "/mnt/out": '"/mnt/out" is a path of a machine, and pods see object storage only: write s3://BUCKET/KEY',
    },
    "endpoint": {
        "": '"" is no URL of an S3 API: write https://HOST or https://HOST:PORT',
        "minio:9000": '"minio:9000" does not say http or https: write https://minio:9000',
        "minio.storage.svc": '"minio.storage.svc" does not say http or https: write https://minio.storage.svc',
        "https://key:word@minio:9000": "the value holds credentials: remove them; spec.storage.credentialsSecret names a Secret",
        "key:word@minio:9000": "the value is no URL of an S3 API: write https://HOST or https://HOST:PORT",
        "HTTPS://minio:9000": '"HTTPS://minio:9000" is no URL of an S3 API: write https://minio:9000',
        "https://minio:9000 ": '"https://minio:9000 " begins or ends with a space: write https://minio:9000',
        "s3://bucket": '"s3://bucket" is the URI of a bucket, not of its server: write https://HOST or https://HOST:PORT',
        "ftp://minio": '"ftp://minio" is no URL of an S3 API: write https://HOST or https://HOST:PORT',
        "https://": '"https://" is no URL of an S3 API: write https://HOST or https://HOST:PORT',
        "https://minio:9000?x=1": "the value has a query or a fragment: remove it",
        "https://minio:port": '"https://minio:port" is no URL of an S3 API: write https://HOST or https://HOST:PORT',
        "https:/minio:9000": '"https:/minio:9000" is no URL of an S3 API: write https://HOST or https://HOST:PORT',
        "https://minio\u200b:9000": '"https://minio" goes on with a space, an invisible or a control character: type it anew by hand',
    },
    "region": {
        "us-east-1 ": '"us-east-1 " is no name of a region: write us-east-1',
        "US East": '"US East" is no name of a region: write letters, digits and -, such as us-east-1',
        "us-east-1\u200b": '"us-east-1" is no name of a region: write letters, digits and -, such as us-east-1',
    },
    "key": {
        "ca.crt ": '"ca.crt " is no key of a ConfigMap: write ca.crt',
        "certs/ca.crt": '"certs/ca.crt" is no key of a ConfigMap: write letters, digits, -, _ and ., such as ca.crt',
    },
    "name": {
        "Support": '"Support" is no name of a resource: write support',
        "my_model": '"my_model" is no name of a resource: write my-model',
        "my model": '"my model" is no name of a resource: write my-model',
        "support.v2": '"support.v2" is no name of a resource: write support-v2',
        "-support": '"-support" is no name of a resource: write lower-case letters, digits and -, beginning and ending with a letter or digit',
        "support-": '"support-" is no name of a resource: write lower-case letters, digits and -, beginning and ending with a letter or digit',
        "support/v2": '"support/v2" is no name of a resource: write lower-case letters, digits and -, beginning and ending with a letter or digit',
        "support ": '"support " is no name of a resource: write support',
        "模型": '"模型" is no name of a resource: write lower-case letters, digits and -, beginning and ending with a letter or digit',
        "default/support": '"default/support" is no name of a resource: write lower-case letters, digits and -, beginning and ending with a letter or digit',
    },
    "object": {
        "My-Secret": '"My-Secret" is no name of an object: write my-secret',
        "my_secret": '"my_secret" is no name of an object: write my-secret',
        "s3 keys": '"s3 keys" is no name of an object: write s3-keys',
        "secret/": '"secret/" is no name of an object: write lower-case letters, digits, - and ., beginning and ending with a letter or digit',
        "-x": '"-x" is no name of an object: write lower-case letters, digits, - and ., beginning and ending with a letter or digit',
        "team/secret": '"team/secret" is no name of an object: write lower-case letters, digits, - and ., beginning and ending with a letter or digit',
    },
    "label": {
        "a b": '"a b" is no value of a label: write a-b',
        "gpu/a100": '"gpu/a100" is no value of a label: write gpu-a100',
        "-x": '"-x" is no value of a label: write letters, digits, -, _ and ., beginning and ending with a letter or digit',
        "x-": '"x-" is no value of a label: write letters, digits, -, _ and ., beginning and ending with a letter or digit',
        "大": '"大" is no value of a label: write letters, digits, -, _ and ., beginning and ending with a letter or digit',
    },
    "duration": {
        "": '"" is no length of time: write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d',
        "soon": '"soon" is no length of time: write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d',
        "1 hour": '"1 hour" is no length of time: write 1h',
        "30min": '"30min" is no length of time: write 30m',
        "30 minutes": '"30 minutes" is no length of time: write 30m',
        "1h 30m": '"1h 30m" is no length of time: write 1h30m',
        "1 hour and 30 minutes": '"1 hour and 30 minutes" is no length of time: write 1h30m',
        "1 hour, 30 minutes": '"1 hour, 30 minutes" is no length of time: write 1h30m',
        "1,5h": '"1,5h" is no length of time: write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d',
        "90": '"90" is no length of time: write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d',
        "1w": '"1w" is no length of time: write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d',
        "PT1H": '"PT1H" is no length of time: write 1h',
        "P1D": '"P1D" is no length of time: write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d',
        "-1h": '"-1h" is no length of time: write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d',
        "1:30:00": '"1:30:00" is no length of time: write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d',
        "2 days": '"2 days" is no length of time: write 2d',
        "1.5 hours": '"1.5 hours" is no length of time: write 1.5h',
        "1H": '"1H" is no length of time: write 1h',
        "3000000d": '"3000000d" is no length of time: write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d',
        "never": '"never" is no length of time: write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d',
        "500ms": '"500ms" is no length of time: write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d',
        "1h30": '"1h30" is no length of time: write numbers of at most 6 digits with s, m, h or d, such as 90s, 1h30m or 7d',
    },
    "quantity": {
        "": '"" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
        "4GB": '"4GB" is no quantity: write 4Gi',
        "4 GB": '"4 GB" is no quantity: write 4Gi',
        "4gb": '"4gb" is no quantity: write 4Gi',
        "4GiB": '"4GiB" is no quantity: write 4Gi',
        "4 Gi": '"4 Gi" is no quantity: write 4Gi',
        "4gi": '"4gi" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
        "512MB": '"512MB" is no quantity: write 512Mi',
        "512mb": '"512mb" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
        "1TB": '"1TB" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
        "16g": '"16g" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
        "2 cores": '"2 cores" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
        "-1": '"-1" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
        "1e3": '"1e3" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
        "4,5": '"4,5" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
        "lots": '"lots" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
        "4G i": '"4G i" is no quantity: write 4Gi',
        "16Gb": '"16Gb" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
        "0x10": '"0x10" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
        "+4Gi": '"+4Gi" is no quantity: write a number, alone or with a unit such as 500m, 2 or 16Gi',
    },
    "variable": {
        "": '"" is no name of a variable: write letters, digits and _, not beginning with a digit',
        "my-var": '"my-var" is no name of a variable: write my_var',
        "my.var": '"my.var" is no name of a variable: write my_var',
        "MY VAR": '"MY VAR" is no name of a variable: write MY_VAR',
        "1VAR": '"1VAR" is no name of a variable: write letters, digits and _, not beginning with a digit',
        "A=B": '"A=B" is no name of a variable: write letters, digits and _, not beginning with a digit',
    },
    "topology": {
        "zone!": '"zone!" is no key of a label: write the key of a label that nodes have, such as topology.kubernetes.io/zone',
        "/zone": '"/zone" is no key of a label: write the key of a label that nodes have, such as topology.kubernetes.io/zone',
        "topology.kubernetes.io/": '"topology.kubernetes.io/" is no key of a label: write the key of a label that nodes have, such as topology.kubernetes.io/zone',
        "a/b/c": '"a/b/c" is no key of a label: write the key of a label that nodes have, such as topology.kubernetes.io/zone',
        "Zone Name": '"Zone Name" is no key of a label: write Zone-Name',
        "Example.com/zone": '"Example.com/zone" is no key of a label: write the key of a label that nodes have, such as topology.kubernetes.io/zone',
    },
    "benchmark": {
        "my words": '"my words" is no name of a benchmark: write my-words',
        "org/words": '"org/words" is no name of a benchmark: write org-words',
        "-words": '"-words" is no name of a benchmark: write letters, digits, -, _ and ., beginning and ending with a letter or digit',
        "wörter": '"wörter" is no name of a benchmark: write letters, digits, -, _ and ., beginning and ending with a letter or digit',
        "gsm8k:main": '"gsm8k:main" is no name of a benchmark: write gsm8k-main',
    },
    "metric": {
        "queue length": '"queue length" is no name of a metric: write queue_length',
        "1queue": '"1queue" is no name of a metric: write letters, digits, _, :, ., / and -, beginning with a letter, such as queue_length',
        'queue{a="b"}': '"queue{a="b"}" is no name of a metric: write letters, digits, _, :, ., / and -, beginning with a letter, such as queue_length',
    },
}
"""Kind of text -> wrong value -> sentence."""
