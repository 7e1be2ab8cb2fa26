"""Settings of pods: placement, environment, labels, and the resources of each pod."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from tunesmith_api.base import (
    ATOMIC_LIST,
    ApiModel,
    FurtherObjectName,
    LabelValue,
    ObjectName,
    Quantity,
    Rule,
    ShortText,
    Text,
    map_list,
)
from tunesmith_api.grammar import Grammar, cel


class Toleration(ApiModel):
    """A toleration, as in a pod."""

    key: ShortText | None = Field(
        None, description="Taint key. Default: none, which with operator Exists tolerates every taint."
    )
    operator: Annotated[str, Field(json_schema_extra={"enum": ["Equal", "Exists"]})] = Field(
        "Equal", description="Equal or Exists. Default Equal."
    )
    value: ShortText | None = Field(None, description="Taint value, with operator Equal. Default: none.")
    effect: (
        Annotated[str, Field(json_schema_extra={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]})] | None
    ) = Field(None, description="Taint effect. Default: every effect.")
    toleration_seconds: int | None = Field(
        None, ge=0, description="Seconds to stay after a NoExecute taint. Default: no limit."
    )


RESERVED_VARIABLES = (
    "(?i)^((AWS|TUNESMITH|MODELSCOPE|LD|SSL_CERT|OPENSSL)_.*|PYTHON[A-Z0-9]*|HOME|PATH|HF_ENDPOINT|SSLKEYLOGFILE"
    "|(REQUESTS|CURL)_CA_BUNDLE|(HTTP|HTTPS|FTP|ALL|NO)_PROXY|(NVIDIA|ASCEND)_VISIBLE_DEVICES"
    "|HUGGINGFACE_CO_STAGING|BASH_ENV|CC|CXX|GLIBC_TUNABLES"
    "|.*(_PLUGINS?|_PRELOAD|INJECTION64_PATH|TOOL_LIBRARIES|_PTXAS_PATH|_CACHE_DIR))$"
)
"""Variables (RE2) that decide where a pod fetches from, what it trusts, what code it loads, or which devices it sees."""
UNRESERVED_VARIABLE = "MODELSCOPE_API_TOKEN"
"""Exception: lets a pod read a private model, and has no other effect."""


def is_reserved(variable: str) -> bool:
    """Return whether users may not set `variable`, as pods write to a store that other pods read."""
    return variable != UNRESERVED_VARIABLE and re.match(RESERVED_VARIABLES, variable) is not None


VARIABLE_NAME = Grammar(
    pattern=r"^[A-Za-z_]\w*$",
    problem="is not a variable name",
    advice="write letters, digits and _, not beginning with a digit",
    repairs=(("-", "_"), (".", "_"), (" ", "_")),
)


class EnvVar(ApiModel):
    """An environment variable with a literal value.

    Variables that decide where a pod fetches from, what it trusts or what code it loads are refused, as pods import models
    into a store that others read.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.name == '{UNRESERVED_VARIABLE}' || !self.name.matches('{RESERVED_VARIABLES}')",
            "this variable is the operator's, as it decides what a pod trusts, loads or writes to the shared store: "
            "remove it; endpoint, certificates and credentials belong in spec.storage, a proxy or mirror in the image",
        ),
    )

    name: Annotated[str, Field(max_length=128), VARIABLE_NAME] = Field(description="Variable name.")
    value: Text = Field("", description="Value.")


class LocalObject(ApiModel):
    """A named object such as an image pull secret."""

    name: FurtherObjectName = Field(description="Name of the object in this namespace.")


LABEL_KEY = Grammar(
    pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-\w.]*[A-Za-z0-9])?$",
    problem="is not a label key",
    advice="write the key of a label that nodes have, such as topology.kubernetes.io/zone",
    repairs=((" ", "-"),),
)


class PodSettings(ApiModel):
    """Settings of the pods. The operator sets the rest of the pod."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            " && ".join(
                f"(!has(self.{field}) || self.{field}.all(key, key.matches({cel(LABEL_KEY.pattern)})))"
                for field in ("nodeSelector", "labels", "annotations")
            ),
            "a key of nodeSelector, labels or annotations is not a label key: write letters, digits, -, _ and ., with or "
            "without the lower-case name of a domain and / before it, such as topology.kubernetes.io/zone",
        ),
        *(
            Rule(
                f"!has(self.{field}) || !self.{field}.exists(key, key.startsWith('tunesmith.dev/') || key.startsWith('app.kubernetes.io/'))",
                f"{field} below tunesmith.dev/ and app.kubernetes.io/ are the operator's; remove them",
            )
            for field in ("labels", "annotations")
        ),
    )

    node_selector: dict[str, LabelValue] | None = Field(None, max_length=32, description="Labels a node must have.")
    tolerations: list[Toleration] | None = Field(
        None, max_length=32, description="Taints to tolerate.", json_schema_extra=ATOMIC_LIST
    )
    service_account_name: ObjectName | None = Field(
        None, description="ServiceAccount of the pods. Default: default. No API token is mounted."
    )
    image_pull_secrets: list[LocalObject] | None = Field(
        None, max_length=8, description="Secrets to pull images with.", json_schema_extra=map_list("name")
    )
    env: list[EnvVar] | None = Field(
        None,
        max_length=64,
        description="Environment variables with literal values: $(NAME) is not expanded. Do not put secrets here. Variables that "
        "decide where a pod fetches from, what it trusts or what code it loads are refused (AWS_*, *_PROXY, HF_ENDPOINT, CA "
        "bundles, PYTHON*, LD_*, PATH and others).",
        json_schema_extra=map_list("name"),
    )
    labels: dict[str, LabelValue] | None = Field(None, max_length=32, description="Labels added to the pods.")
    annotations: dict[str, Text] | None = Field(None, max_length=32, description="Annotations added to the pods.")
    priority_class_name: FurtherObjectName | None = Field(
        None, description="PriorityClass of the pods. Default: the cluster's."
    )
    runtime_class_name: FurtherObjectName | None = Field(
        None,
        description="RuntimeClass of the pods, except of a preparation pod without devices. Default: the node's runtime.",
    )
    scheduler_name: FurtherObjectName | None = Field(None, description="Scheduler of the pods. Default: the cluster's.")


PROFILE = Grammar(
    pattern=r"^mig-[1-7]g\.[0-9]{1,3}gb(\.me)?$",
    problem="is not a MIG profile",
    advice="write it as the node's resource nvidia.com/mig-... without the domain, such as mig-3g.40gb",
    terse=True,
)


class Accelerator(StrEnum):
    """Device type: a vendor's accelerator, or the CPU."""

    CPU = "cpu"
    NVIDIA = "nvidia"
    ASCEND = "ascend"
    AMD = "amd"


MOST_DEVICES = 64
"""Devices of a pod at most."""


class Resources(ApiModel):
    """Resources of each pod. Requests equal limits for memory and devices; CPU has a request only."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.accelerator != 'cpu' || !has(self.count)",
            "accelerator cpu has no count; remove count, or set accelerator: nvidia, ascend or amd",
        ),
        Rule(
            "!has(self.profile) || (self.accelerator == 'nvidia' && (!has(self.count) || self.count == 1))",
            "profile is a part of one device of accelerator nvidia: remove profile, or count",
        ),
    )

    accelerator: Accelerator = Field(Accelerator.CPU, description="cpu, nvidia, ascend or amd. Default cpu.")
    count: int | None = Field(None, ge=1, le=MOST_DEVICES, description="Devices per pod. Default 1, except with cpu.")
    profile: Annotated[str, Field(max_length=63), PROFILE] | None = Field(
        None, description="MIG profile of a part of a GPU, such as mig-3g.40gb. Default: the whole GPU."
    )
    cpu: Quantity | None = Field(None, description="CPU request of a pod, in cores. Default 500m.")
    memory: Quantity | None = Field(None, description="Memory request and limit of a pod, in bytes. Default: no limit.")
    ephemeral_storage: Quantity | None = Field(
        None, description="Disk for the model, data and checkpoints of a pod, in bytes. Default: no request."
    )
    shared_memory: Quantity | None = Field(
        None,
        description="Size of a memory-backed /dev/shm, in bytes; its content counts as memory of the pod. Default: 1Gi for "
        "each device of a FineTuneJob with several devices or pods, else none.",
    )

    @property
    def devices(self) -> int:
        """Devices of a pod; 0 with accelerator cpu."""
        return 0 if self.accelerator is Accelerator.CPU else self.count or 1

    @property
    def processes(self) -> int:
        """Processes that compute in a pod: the number of devices, at least 1."""
        return max(self.devices, 1)


class TuningResources(Resources):
    """Resources of each pod of a FineTuneJob."""

    device_memory: Quantity | None = Field(
        None,
        description="Memory of each device, such as 24Gi, for status.estimate. Default: that of the device that pod.nodeSelector names, "
        "such as NVIDIA-L4; with accelerator cpu, resources.memory.",
    )
