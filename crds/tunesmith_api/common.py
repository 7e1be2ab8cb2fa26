"""Blocks that the three kinds share: the sources of models, object storage, the place of results, and names."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import (
    ApiModel,
    CatalogueName,
    Endpoint,
    FurtherCatalogueName,
    FurtherModelUri,
    FurtherName,
    FurtherObjectName,
    ModelUri,
    Name,
    ObjectName,
    Rule,
    StoreUri,
    exactly_one,
)
from tunesmith_api.grammar import Grammar


class Reference(ApiModel):
    """A resource of this API in the same namespace."""

    name: Name = Field(description="Name of the resource, in the same namespace.")


class FurtherReference(Reference):
    """A `Reference` in a further place of a CRD."""

    name: FurtherName = Field(description="Name of the resource, in the same namespace.")


class ModelSource(ApiModel):
    """Source of a model: a name of the catalogue, a URI, or another resource of the namespace that has made or serves it."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("name", "uri", "fineTuneJob", "inferenceService"),)

    name: CatalogueName | None = Field(
        None,
        description="Name in the catalogue, such as qwen3-8b: in the ConfigMap tunesmith-catalogue of the namespace, else in the "
        "store, else the built-in one.",
    )
    uri: ModelUri | None = Field(
        None,
        description="hf://org/name@revision, ms://org/name@revision (ModelScope), s3://bucket/prefix, pvc://claim/path or "
        "file:///path (local mode). A hub model is imported into the store once; later runs read it from there.",
    )
    fine_tune_job: Reference | None = Field(
        None, description="FineTuneJob whose artifact to use: quantized, else merged, else model, else adapter."
    )
    inference_service: Reference | None = Field(None, description="InferenceService whose current model to use.")
    trust_remote_code: bool = Field(
        False, description="Run Python code in the model's folder. Default false: a model that needs it is refused."
    )


class AdapterSource(ApiModel):
    """Source of an adapter: a URI, or the FineTuneJob that has made it."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("uri", "fineTuneJob"),)

    uri: FurtherModelUri | None = Field(None, description="s3://bucket/prefix of the adapter.")
    fine_tune_job: FurtherReference | None = Field(None, description="FineTuneJob whose adapter to use.")


class FurtherModel(ApiModel):
    """Source of a model that a training uses beside the one that it tunes."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("name", "uri", "fineTuneJob"),)

    name: FurtherCatalogueName | None = Field(None, description="As spec.model.name.")
    uri: FurtherModelUri | None = Field(None, description="As spec.model.uri.")
    fine_tune_job: FurtherReference | None = Field(None, description="FineTuneJob whose model to use.")

    @property
    def source(self) -> ModelSource:
        """The source of a model that runs without its own code."""
        return ModelSource(name=self.name, uri=self.uri, fine_tune_job=self.fine_tune_job)


KEY = Grammar(
    pattern=r"^[-.\w]+$",
    problem="is not a ConfigMap key",
    advice="write letters, digits, -, _ and ., such as ca.crt",
    tightened=True,
)
REGION = Grammar(
    pattern=r"^[A-Za-z0-9]([-.\w]*[A-Za-z0-9])?$",
    problem="is not a region name",
    advice="write letters, digits and -, such as us-east-1",
    tightened=True,
)


class ConfigMapKey(ApiModel):
    """A key of a ConfigMap."""

    name: ObjectName = Field(description="Name of the ConfigMap, in the namespace of the resource.")
    key: Annotated[str, Field(max_length=253), KEY] = Field("ca.crt", description="Key within it. Default ca.crt.")


class ConfigMapText(ApiModel):
    """A text in a ConfigMap of the resource's namespace."""

    name: FurtherObjectName = Field(description="Name of the ConfigMap.")
    key: Annotated[str, Field(max_length=253), KEY] = Field(description="Key within it.")


class TextSource(ApiModel):
    """Source of a text."""

    config_map: ConfigMapText = Field(description="ConfigMap that holds it; the pods wait until it exists.")


class Storage(ApiModel):
    """S3 endpoint and credentials. A field that is not set has the value of the chart's default store."""

    endpoint: Endpoint | None = Field(
        None, description="URL of the S3 API, such as https://minio.storage.svc:9000. Default: the chart's, else AWS."
    )
    region: Annotated[str, Field(max_length=253), REGION] | None = Field(
        None, description="Region name. Default: the chart's, else us-east-1."
    )
    path_style: bool | None = Field(
        None,
        description="Address buckets as endpoint/bucket instead of bucket.endpoint. Default: the chart's, else true with an endpoint.",
    )
    ca_bundle: ConfigMapKey | None = Field(None, description="Certificates (PEM) to trust for a private endpoint.")
    credentials_secret: ObjectName | None = Field(
        None,
        description="Secret in this namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN). "
        "Default: the Secret named in the chart's values, else the identity of the ServiceAccount.",
    )


class Output(ApiModel):
    """Destination of the results."""

    uri: StoreUri | None = Field(
        None,
        description="s3://bucket/prefix, pvc://claim/path or file:///path; each run writes to its own folder below it. "
        "Default: runs/NAMESPACE/NAME in the chart's store.",
    )


NAME_RULES: tuple[Rule, ...] = (
    Rule(
        "size(self.metadata.name) <= 45",
        "metadata.name has at most 45 characters, as pods are named after it: choose a shorter one",
    ),
    Rule(
        "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name is a DNS label: lower-case letters, digits and -, beginning with a letter",
    ),
)
"""Rules on an object: the names of its children begin with its name and must be DNS labels."""
