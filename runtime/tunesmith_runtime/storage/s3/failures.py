"""Errors of boto3 as RunFailure: the class, what happened at which URI and endpoint, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import botocore.exceptions as raised

from tunesmith_api.failures import FailureClass
from tunesmith_runtime.errors import NotFound, RunFailure

UNKNOWN_CALL = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})
"""Error codes for calls and headers that a store does not implement."""
PASSING = frozenset({401, 403, 408, 409, 429})
"""Statuses below 500 that do not depend on the features of a store."""

MISSING_KEY = frozenset({"NoSuchKey", "404", "NotFound"})
UNKNOWN_KEY = (
    "correct AWS_ACCESS_KEY_ID in the credentials Secret, or spec.storage.endpoint or store.endpoint of the chart's values: if both "
    "are empty, the endpoint is AWS"
)
REFUSED = {
    "InvalidAccessKeyId": UNKNOWN_KEY,
    "XAdminUserNotFound": UNKNOWN_KEY,  # versitygw's code, with status 404
    "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY in the credentials Secret: it does not belong to its AWS_ACCESS_KEY_ID",
    "ExpiredToken": "renew the credentials in the Secret: they have expired",
    "RequestTimeTooSkewed": "correct the clock of the node or of the object storage",
    "AccessDenied": "allow these credentials to list, read, write and delete there (without the right to list, a missing object has the same error)",
}
UNSENDABLE = (ValueError, UnicodeEncodeError)
"""Errors of http.client for headers that it cannot send. Their text holds the header with its signature."""
ENDPOINT = (
    "write spec.storage.endpoint as https://host or https://host:port, and spec.storage.region as the store names it"
)
OTHER_REGION = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
)


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an s3:// URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise RunFailure(FailureClass.BAD_SPEC, f"{uri}: no bucket", "write s3://bucket/prefix")
    return bucket, key.strip("/")


@contextmanager
def failures(uri: str, endpoint: str) -> Iterator[None]:
    """Raise errors of boto3 as RunFailure that names `uri` and the endpoint."""
    try:
        yield
    except raised.ClientError as error:
        raise refusal(uri, error, endpoint) from error
    except raised.SSLError as error:
        raise RunFailure(
            FailureClass.STORAGE_TLS, f"{uri}: the certificate of {endpoint} is not trusted: {error}"
        ) from error
    except (raised.NoCredentialsError, raised.PartialCredentialsError, raised.CredentialRetrievalError) as error:
        hint = "name a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in spec.storage.credentialsSecret or in store.credentialsSecret of the chart's values, or give the ServiceAccount an identity at the store"
        raise RunFailure(FailureClass.STORAGE_403, f"{uri} at {endpoint}: no credentials: {error}", hint) from error
    except raised.ParamValidationError as error:
        raise RunFailure(FailureClass.BAD_SPEC, f"{uri}: {error}", "write s3://bucket/prefix") from error
    except raised.EndpointProviderError as error:
        raise RunFailure(FailureClass.BAD_SPEC, f"{uri}: {error}", ENDPOINT) from error
    except raised.BotoCoreError as error:
        if type(error.kwargs.get("error")) in UNSENDABLE:
            message = (
                f"{uri} at {endpoint}: the credentials or the region contain a character that no HTTP header can carry"
            )
            raise RunFailure(
                FailureClass.STORAGE_403, message, "write them again, on one line and without quotes"
            ) from None
        raise RunFailure(FailureClass.STORAGE_UNREACHABLE, f"{uri}: {error}") from error


def refusal(uri: str, error: raised.ClientError, endpoint: str) -> RunFailure:
    """Return the failure that an error response of the endpoint means."""
    answer = error.response.get("Error", {})
    code, text = str(answer.get("Code", "")), answer.get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return NotFound(uri, f"there is no bucket {split(uri)[0]!r} at {endpoint}")
    if code in MISSING_KEY:
        return NotFound(uri)
    if status in (401, 403) or code in REFUSED:
        return RunFailure(FailureClass.STORAGE_403, f"{uri} at {endpoint}: {code} ({text})", REFUSED.get(code))
    if code in OTHER_REGION:
        message = f"{uri} at {endpoint}: {code} ({text})"
        return RunFailure(
            FailureClass.STORAGE_UNREACHABLE,
            message,
            "set spec.storage.region to the region of the bucket, and spec.storage.endpoint where that region has another",
        )
    if code in UNKNOWN_CALL:
        call = error.operation_name
        return unsupported(endpoint, f"the call {call}", f"{call} {uri}", answer_of(error))
    if code == "PreconditionFailed":
        return RunFailure(
            FailureClass.STORAGE_CORRUPT,
            f"{uri} changed while it was read",
            "write changed data under new names",
        )
    return RunFailure(FailureClass.STORAGE_UNREACHABLE, f"{uri} at {endpoint}: {code} ({text})")


def unsupported(endpoint: str, lacks: str, tried: str, answer: str) -> RunFailure:
    """Return the failure of a store that `lacks` a feature, shown by its `answer` to the call `tried`."""
    return RunFailure(FailureClass.STORAGE_UNSUPPORTED, f"{endpoint} lacks {lacks}: {tried} was answered {answer}")


def answer_of(error: raised.ClientError) -> str:
    answer = error.response.get("Error", {})
    return f"{answer.get('Code')} ({answer.get('Message')})"


def is_about_feature(error: raised.ClientError) -> bool:
    """Whether an error may be about an unsupported call instead of credentials, load or the region."""
    code = error.response.get("Error", {}).get("Code")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status in PASSING or code in {*REFUSED, *OTHER_REGION, "NoSuchBucket", "RequestTimeout"}:
        return False
    return status == 501 or 400 <= status < 500
