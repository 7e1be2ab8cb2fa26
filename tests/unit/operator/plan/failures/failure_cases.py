"""A case for each class of failure: an event in the cluster, and the failure that status must report."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from tests.unit.operator.plan.failures.happenings import (
    JOB,
    LOG,
    POD,
    Happening,
    crashes,
    disrupted,
    evaluates,
    evicted,
    fetches,
    gets_no_pod,
    pull,
    rejected,
    report_with_log,
    reports,
    stands_still,
    trains,
    unschedulable,
    waits,
)
from tests.unit.operator.plan.world import (
    ended,
    eval_job,
    failed_report,
    fine_tune_job,
    running,
)
from tunesmith_api.failures import FailureClass
from tunesmith_operator.plan.types import Key, Raw

GPU = {"accelerator": "nvidia", "memory": "4Gi", "ephemeralStorage": "20Gi", "sharedMemory": "1Gi"}
RESOLVE = 'failed to pull and unpack image "registry/runtime:1": failed to resolve reference "registry/runtime:1"'
FORBIDDEN = 'pods "support-tune-1-x7k2p" is forbidden'
C = FailureClass
EVAL_POD = "support-eval-model-1-x7k2p"


@dataclass(frozen=True)
class Case:
    """An event in the cluster, and the failure that status must report."""

    class_: FailureClass
    happens: Happening
    message: str
    hint: str
    container: str | None = None
    exit_code: int | None = None
    tail: str = "the end of the log"
    """End of the log tail, if the container has run."""
    pod: str | None = POD
    thing: Raw = field(default_factory=lambda: fine_tune_job(resources=GPU))

    @property
    def has_log(self) -> bool:
        """Whether the container has run: 128 is the exit code of a container that could not be started."""
        return self.exit_code not in (None, 128)


CASES: dict[str, Case] = {
    # The scheduler, and volumes.
    "no node has the device": Case(
        C.UNSCHEDULABLE,
        unschedulable(
            "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient nvidia.com/gpu. no new claims to "
            "deallocate, preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption "
            "victims found for incoming pod."
        ),
        "no node has enough nvidia.com/gpu (the pod requests 1)",
        "check that its device plugin runs there",
    ),
    "no node has the memory": Case(
        C.UNSCHEDULABLE,
        unschedulable("0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: 1 No ..."),
        "no node has enough memory (the pod requests 4Gi)",
        "lower spec.resources.memory, or free or add a node with more memory",
    ),
    "no node has the label": Case(
        C.UNSCHEDULABLE,
        unschedulable("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."),
        "didn't match Pod's node affinity/selector",
        "spec.pod.nodeSelector",
    ),
    "all nodes are cordoned": Case(
        C.UNSCHEDULABLE,
        unschedulable("0/1 nodes are available: 1 node(s) were unschedulable."),
        "unschedulable",
        "uncordon",
    ),
    "a claim is not bound": Case(
        C.VOLUME_UNAVAILABLE,
        unschedulable("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"),
        "unbound immediate PersistentVolumeClaims",
        "kubectl --namespace team describe pvc",
    ),
    "a claim is not there": Case(
        C.VOLUME_UNAVAILABLE,
        unschedulable('0/1 nodes are available: persistentvolumeclaim "models" not found.'),
        '"models" not found',
        "create PersistentVolumeClaim models in namespace team",
    ),
    "a volume is held by another node": Case(
        C.VOLUME_UNAVAILABLE,
        stands_still(
            "FailedAttachVolume",
            'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node',
        ),
        "Multi-Attach error",
        "ReadOnlyMany or ReadWriteMany",
    ),
    # Images.
    "there is no such image": Case(
        C.IMAGE_PULL,
        waits("ImagePullBackOff", pull(f"{RESOLVE}: registry/runtime:1: not found")),
        "image registry/runtime:1: failed to pull and unpack",
        "correct the image's name or tag",
        "fetch",
    ),
    "the registry wants credentials": Case(
        C.IMAGE_PULL,
        waits(
            "ErrImagePull",
            f"{RESOLVE}: pull access denied, repository does not exist or may require authorization: server message: "
            "insufficient_scope: authorization failed",
        ),
        "insufficient_scope",
        "spec.pod.imagePullSecrets names (none now)",
        "fetch",
    ),
    "the image is for another architecture": Case(
        C.IMAGE_PULL,
        waits(
            "ErrImagePull", 'failed to pull image "registry/runtime:1": no match for platform in manifest: not found'
        ),
        "no match for platform",
        "CPU architecture",
        "fetch",
    ),
    "the registry is not reached": Case(
        C.IMAGE_PULL,
        waits("ErrImagePull", f"{RESOLVE}: failed to do request: dial tcp: lookup registry: no such host"),
        "no such host",
        "cannot reach the registry",
        "fetch",
    ),
    "the registry is not trusted": Case(
        C.IMAGE_PULL,
        waits(
            "ErrImagePull",
            f"{RESOLVE}: tls: failed to verify certificate: x509: certificate signed by unknown authority",
        ),
        "x509",
        "does not trust the registry's certificate",
        "fetch",
    ),
    "the image may not be pulled": Case(
        C.IMAGE_PULL,
        waits("ErrImageNeverPull", 'Container image "registry/runtime:1" is not present with pull policy of Never'),
        "pull policy of Never",
        "images.pullPolicy",
        "fetch",
    ),
    # Admission.
    "a quota is used up": Case(
        C.QUOTA_EXCEEDED,
        gets_no_pod(
            f"{FORBIDDEN}: exceeded quota: gpu, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=8, "
            "limited: requests.nvidia.com/gpu=8"
        ),
        "exceeded quota: gpu",
        "kubectl --namespace team describe quota gpu",
        pod=None,
    ),
    "a quota counts what the pod does not set": Case(
        C.QUOTA_EXCEEDED,
        gets_no_pod(f"{FORBIDDEN}: failed quota: all: must specify limits.memory for: fetch,train"),
        "must specify limits.memory",
        "ResourceQuota all counts limits.memory: set spec.resources.memory",
        pod=None,
    ),
    "pod security refuses": Case(
        C.POD_REFUSED,
        gets_no_pod(
            f'{FORBIDDEN}: violates PodSecurity "restricted:latest": privileged (container "proxy" must not set'
        ),
        "violates PodSecurity",
        "a webhook that injects containers or volumes into pods of namespace team",
        pod=None,
    ),
    "pod security refuses the cache": Case(
        C.POD_REFUSED,
        gets_no_pod(
            f'{FORBIDDEN}: violates PodSecurity "baseline:latest": hostPath volumes (volume "cache"), restricted volume '
            'types (volume "cache" uses restricted volume type "hostPath")'
        ),
        "hostPath volumes",
        "replace cache.hostPath in the chart's values by cache.claim",
        pod=None,
    ),
    "a webhook denies": Case(
        C.POD_REFUSED,
        gets_no_pod('admission webhook "costs.example.com" denied the request: label cost-centre is missing'),
        "label cost-centre is missing",
        "as the message of admission webhook costs.example.com requires",
        pod=None,
    ),
    "a webhook is away": Case(
        C.POD_REFUSED,
        gets_no_pod(
            'Internal error occurred: failed calling webhook "costs.example.com": failed to call webhook: Post '
            '"https://costs.system.svc:443/pods?timeout=10s": dial tcp 10.0.0.7:443: connect: connection refused'
        ),
        "connection refused",
        "the owner of admission webhook costs.example.com",
        pod=None,
    ),
    "a policy denies": Case(
        C.POD_REFUSED,
        gets_no_pod(f"{FORBIDDEN}: ValidatingAdmissionPolicy 'owners' with binding 'all' denied request: no owner"),
        "no owner",
        "ValidatingAdmissionPolicy owners",
        pod=None,
    ),
    "the service account is missing": Case(
        C.POD_REFUSED,
        gets_no_pod(f'{FORBIDDEN}: error looking up service account team/tuner: serviceaccount "tuner" not found'),
        '"tuner" not found',
        "create ServiceAccount team/tuner",
        pod=None,
    ),
    "the priority class is missing": Case(
        C.POD_REFUSED,
        gets_no_pod(f"{FORBIDDEN}: no PriorityClass with name urgent was found"),
        "urgent",
        "or remove it: urgent does not exist (podPolicy.priorityClasses",
        pod=None,
    ),
    "a limit range refuses": Case(
        C.POD_REFUSED,
        gets_no_pod(f"{FORBIDDEN}: maximum memory usage per Container is 1Gi, but limit is 4Gi"),
        "but limit is 4Gi",
        "a LimitRange of namespace team sets a maximum of 1Gi memory per Container: set spec.resources.memory to 1Gi at most",
        pod=None,
    ),
    # The kubelet starts a container.
    "a Secret is missing": Case(
        C.POD_START,
        waits("CreateContainerConfigError", 'secret "s3-credentials" not found'),
        'secret "s3-credentials" not found',
        "create Secret s3-credentials in namespace team",
        "fetch",
    ),
    "a ConfigMap is missing": Case(
        C.POD_START,
        stands_still("FailedMount", 'MountVolume.SetUp failed for volume "ca" : configmap "s3-ca" not found'),
        'configmap "s3-ca" not found',
        "create ConfigMap s3-ca in namespace team",
    ),
    "the image runs as root": Case(
        C.POD_START,
        waits("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"),
        "image will run as root",
        "an image whose user is not root",
        "fetch",
    ),
    "the node has no address for the pod": Case(
        C.POD_START,
        stands_still(
            "FailedCreatePodSandBox",
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox: plugin "
            'type="host-local" failed: failed to allocate for range 0: no IP addresses available in range set',
        ),
        "no IP addresses available",
        "no free pod IP address",
    ),
    "the program is for another architecture": Case(
        C.POD_START,
        fetches(128, "failed to start containerd task: exec /usr/bin/python: exec format error", "StartError"),
        "exec format error",
        "an image for the node's CPU architecture",
        "fetch",
        128,
    ),
    "the driver of the node is missing": Case(
        C.DEVICE_FAILED,
        fetches(
            128,
            "failed to create containerd task: error running prestart hook #0: nvidia-container-cli: initialization "
            "error: load library failed: libnvidia-ml.so.1: cannot open shared object file: no such file or directory",
            "StartError",
        ),
        "libnvidia-ml.so.1",
        "nvidia-smi",
        "fetch",
        128,
    ),
    # The kubelet does not admit the pod.
    "the devices of the node are unhealthy": Case(
        C.NODE_REFUSED,
        rejected(
            "UnexpectedAdmissionError",
            "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices nvidia.com/gpu, which "
            "is unexpected",
        ),
        "no healthy devices present",
        "its device plugin reports unhealthy nvidia.com/gpu",
    ),
    "another pod was quicker": Case(
        C.NODE_REFUSED,
        rejected("OutOfcpu", "Node didn't have enough resource: cpu, requested: 500, used: 3900, capacity: 4000"),
        "enough resource: cpu",
        "other pods took the cpu",
    ),
    "the node's topology does not fit": Case(
        C.NODE_REFUSED,
        rejected("TopologyAffinityError", "Resources cannot be allocated with Topology locality"),
        "Topology locality",
        "NUMA",
    ),
    # Memory, disk, devices.
    "the kernel ends the trainer": Case(
        C.OOM_KILLED,
        trains(137, reason="OOMKilled"),
        "used more than its memory limit of 4Gi",
        "raise spec.resources.memory",
        "train",
        137,
    ),
    "the kernel ends a worker of the trainer, which still reports": Case(
        C.OOM_KILLED,
        trains(
            1,
            report_with_log("train", C.PROCESS_ERROR, "a worker was killed", "12:00:02 worker 3 is gone"),
            "OOMKilled",
        ),
        "used more than its memory limit of 4Gi",
        "raise spec.resources.memory",
        "train",
        1,
        "worker 3 is gone",
    ),
    "the runtime reports that the GPU is full": Case(
        C.DEVICE_OUT_OF_MEMORY,
        reports("train", C.DEVICE_OUT_OF_MEMORY, "training: CUDA out of memory. Tried to allocate 2.00 GiB"),
        "Tried to allocate 2.00 GiB",
        "training.microBatchSize",
        "train",
        71,
    ),
    "the GPU is full, according to the log only": Case(
        C.DEVICE_OUT_OF_MEMORY,
        trains(
            1,
            "Traceback (most recent call last):\n"
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79 GiB\n"
            "E1122 12:00:00 torch/distributed/elastic failed (exitcode: 1)",
        ),
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "training.microBatchSize",
        "train",
        1,
        "Traceback",
    ),
    "the NPU is full, according to the log only": Case(
        C.DEVICE_OUT_OF_MEMORY,
        trains(1, "RuntimeError: NPU out of memory. Tried to allocate 22.00 MiB (NPU 0; 60.97 GiB total capacity"),
        "NPU out of memory",
        "set spec.training.gradientCheckpointing: true",
        "train",
        1,
        "NPU 0",
    ),
    "an engine has no room for its cache": Case(
        C.DEVICE_OUT_OF_MEMORY,
        evaluates(
            ended(
                83,
                failed_report(
                    "serve",
                    C.ENGINE_FAILED,
                    "the engine ended with exit code 1",
                    logTail=(
                        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"
                    ),
                ),
            ),
            ended(83, report_with_log("evaluate", C.ENGINE_FAILED, "no engine answers")),
        ),
        "No available memory for the cache blocks",
        "raise spec.resources.memory, or set it",
        "serve",
        83,
        "gpu_memory_utilization",
        EVAL_POD,
        eval_job(),
    ),
    "a GPU is broken": Case(
        C.DEVICE_FAILED,
        trains(1, "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered"),
        "uncorrectable ECC error",
        "drain the node",
        "train",
        1,
        "uncorrectable",
    ),
    "an NPU is broken": Case(
        C.DEVICE_FAILED,
        trains(1, "RuntimeError: HBM MULTI BIT ECC ERROR, the tensor may be damaged"),
        "HBM MULTI BIT ECC ERROR",
        "drain the node",
        "train",
        1,
        "HBM",
    ),
    "a collective times out": Case(
        C.COLLECTIVE_FAILED,
        trains(
            134,
            "[rank0]:[E321 02:07:08 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation timeout: "
            "WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600004 milliseconds before timing out.",
        ),
        "WorkNCCL(SeqNum=1580",
        "check the network between the nodes",
        "train",
        134,
        "Watchdog",
    ),
    "HCCL does not come up": Case(
        C.COLLECTIVE_FAILED,
        trains(
            1, "RuntimeError: HCCL function error: HcclCommInitRootInfo(numRanks, &rootInfo, rank), error code is 4"
        ),
        "HCCL function error",
        "look for an earlier failure of another pod",
        "train",
        1,
        "HCCL",
    ),
    "shared memory is full": Case(
        C.SHARED_MEMORY_FULL,
        trains(
            1,
            "RuntimeError: DataLoader worker (pid 77) is killed by signal: Bus error. It is possible that dataloader's "
            "workers are out of shared memory. Please try to raise your shared memory limit.",
        ),
        "out of shared memory",
        "spec.resources.sharedMemory",
        "train",
        1,
        "pid 77",
    ),
    "the pod is over its own disk limit": Case(
        C.DISK_FULL,
        evicted('Usage of EmptyDir volume "work" exceeds the limit "20Gi". '),
        'EmptyDir volume "work" exceeds the limit "20Gi"',
        "raise spec.resources.ephemeralStorage",
    ),
    "the disk is full": Case(
        C.DISK_FULL,
        trains(73, report_with_log("train", C.DISK_FULL, "OSError: [Errno 28] No space left on device: '/work/run/x'")),
        "/work/run/x",
        "raise spec.resources.ephemeralStorage",
        "train",
        73,
    ),
    "the node is short of disk": Case(
        C.EVICTED,
        evicted(
            "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 9Gi. Container train was "
            "using 30Gi, request is 0, has larger consumption of ephemeral-storage. "
        ),
        "low on resource: ephemeral-storage",
        "set spec.resources.ephemeralStorage",
    ),
    "the node is short of memory": Case(
        C.EVICTED,
        evicted("The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi. "),
        "low on resource: memory",
        "set spec.resources.memory",
    ),
    # The pod is taken away.
    "the node is gone": Case(
        C.NODE_LOST,
        disrupted("DeletionByPodGC", "PodGC: node no longer exists"),
        "node no longer exists",
        "resumes from the last checkpoint",
    ),
    "the node does not answer": Case(
        C.NODE_LOST,
        disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
        "NoExecute taint",
        "resumes from the last checkpoint",
    ),
    "the node shuts down": Case(
        C.NODE_LOST,
        disrupted(
            "TerminationByKubelet",
            "Pod was terminated in response to imminent node shutdown.",
            reason="Terminated",
            message="Pod was terminated in response to imminent node shutdown.",
        ),
        "imminent node shutdown",
        "resumes from the last checkpoint",
    ),
    "a higher priority needs the room": Case(
        C.PREEMPTED,
        disrupted("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"),
        "higher priority pod",
        "resumes from the last checkpoint",
    ),
    "the kubelet makes room for a critical pod": Case(
        C.PREEMPTED,
        disrupted(
            "TerminationByKubelet",
            "Pod was preempted by Kubelet to accommodate a critical pod.",
            reason="Preempting",
            message="Preempted in order to admit critical pod",
        ),
        "critical pod",
        "resumes from the last checkpoint",
    ),
    "the node is drained": Case(
        C.PREEMPTED,
        disrupted("EvictionByEvictionAPI", "Eviction API: evicting"),
        "Eviction API",
        "resumes from the last checkpoint",
    ),
    # Time.
    "it takes too long": Case(
        C.DEADLINE_EXCEEDED,
        lambda cluster: (
            cluster.start_pod(JOB, "Running", {"fetch": running()}),
            cluster.settle(),
            setattr(cluster, "now", cluster.now + timedelta(hours=1)),
        )[-1],
        "spec.deadline (10m)",
        "create the resource again with a longer spec.deadline",
        pod=None,
        thing=fine_tune_job(deadline="10m"),
    ),
    # Failures that the runtime reports...
    "a row is bad": Case(
        C.BAD_ROW,
        reports("train", C.BAD_ROW, "train.jsonl line 17: no field messages (s3://data/train.jsonl)"),
        "line 17",
        "correct the named line",
        "train",
        65,
    ),
    "there is no data": Case(
        C.DATASET_NOT_FOUND,
        reports("fetch", C.DATASET_NOT_FOUND, "data set s3://d: nothing"),
        "s3://d",
        "compare spec.datasets[].uri",
        "fetch",
        67,
    ),
    "no row is left": Case(
        C.EMPTY_DATASET, reports("train", C.EMPTY_DATASET, "no row of s3://d can be used"), "s3://d", "row", "train", 66
    ),
    "there is no model": Case(
        C.MODEL_NOT_FOUND,
        reports("fetch", C.MODEL_NOT_FOUND, "model s3://m: nothing"),
        "s3://m",
        "config.json",
        "fetch",
        68,
    ),
    "the weights are pickles": Case(
        C.UNSAFE_WEIGHTS,
        reports("fetch", C.UNSAFE_WEIGHTS, "model s3://m: pickle"),
        "pickle",
        "safetensors",
        "fetch",
        72,
    ),
    "there is no chat template": Case(
        C.CHAT_TEMPLATE_MISSING,
        reports("train", C.CHAT_TEMPLATE_MISSING, "the tokenizer has no chat template"),
        "no chat template",
        "prompt and completion",
        "train",
        74,
    ),
    "the store does not answer": Case(
        C.STORAGE_UNREACHABLE,
        reports("fetch", C.STORAGE_UNREACHABLE, "s3://m: Could not connect to the endpoint URL"),
        "s3://m",
        "check the endpoint",
        "fetch",
        69,
    ),
    "the store refuses": Case(
        C.STORAGE_403,
        reports("fetch", C.STORAGE_403, "s3://m: AccessDenied"),
        "AccessDenied",
        "credentials",
        "fetch",
        77,
    ),
    "the store is not trusted": Case(
        C.STORAGE_TLS,
        reports("fetch", C.STORAGE_TLS, "the certificate of s3 is not trusted"),
        "s3",
        "caBundle",
        "fetch",
        79,
    ),
    "an object is damaged": Case(
        C.STORAGE_CORRUPT,
        reports("fetch", C.STORAGE_CORRUPT, "s3://m/model.safetensors does not match the sha256 of its manifest"),
        "model.safetensors",
        "restore the named object",
        "fetch",
        80,
    ),
    "the hub does not answer": Case(
        C.HUB_UNREACHABLE, reports("fetch", C.HUB_UNREACHABLE, "model hf://m: 502"), "hf://m", "hub", "fetch", 81
    ),
    "the job will not fit": Case(
        C.WILL_NOT_FIT,
        reports("fetch", C.WILL_NOT_FIT, "the run needs 31.2 GiB on each device, which has 22.5 GiB"),
        "31.2 GiB",
        "microBatchSize",
        "fetch",
        95,
    ),
    "the hub refuses access": Case(
        C.HUB_FORBIDDEN,
        reports("fetch", C.HUB_FORBIDDEN, "model hf://m: https://huggingface.co: 403: the repository is gated"),
        "gated",
        "hub.tokenSecret",
        "fetch",
        92,
    ),
    "the hub limits the rate": Case(
        C.HUB_RATE_LIMITED,
        reports("fetch", C.HUB_RATE_LIMITED, "model hf://m: 429 Too Many Requests, and asks to wait 300 s"),
        "300 s",
        "hub.endpoints",
        "fetch",
        93,
    ),
    "a file of the hub is damaged": Case(
        C.HUB_CORRUPT,
        reports("fetch", C.HUB_CORRUPT, "model hf://m: https://mirror: model.safetensors has another sha256"),
        "model.safetensors",
        "@revision",
        "fetch",
        94,
    ),
    "the merge is wrong": Case(
        C.MERGE_MISMATCH,
        reports("export", C.MERGE_MISMATCH, "logits differ by 3"),
        "logits",
        "export.merge",
        "export",
        82,
    ),
    "the adapter reloads wrongly": Case(
        C.RELOAD_MISMATCH,
        reports("export", C.RELOAD_MISMATCH, "the saved weights do not reload as they were trained"),
        "do not reload",
        "spec.tuner",
        "export",
        98,
    ),
    "the model's files contradict each other": Case(
        C.BAD_MODEL,
        reports("fetch", C.BAD_MODEL, "model s3://m: tokenizer.json has 592 tokens, the embedding 512 rows"),
        "512 rows",
        "named file",
        "fetch",
        89,
    ),
    "the store has no conditional writes": Case(
        C.STORAGE_UNSUPPORTED,
        reports(
            "fetch", C.STORAGE_UNSUPPORTED, "s3://b at https://s3: PutObject with If-None-Match: 501 NotImplemented"
        ),
        "501",
        "conditional writes",
        "fetch",
        90,
    ),
    "no weight was changed": Case(
        C.NOTHING_LEARNED,
        reports("train", C.NOTHING_LEARNED, "12 steps left every trained weight as it was"),
        "12 steps",
        "learningRate",
        "train",
        91,
    ),
    "a judge fails": Case(
        C.JUDGE_FAILED,
        reports(
            "train",
            C.JUDGE_FAILED,
            "rewards[].judge of taste: https://judge.example/v1: 500 Internal Server Error (6 requests)",
        ),
        "500 Internal Server Error (6 requests)",
        "check spec.rewards[].judge.url",
        "train",
        96,
    ),
    "the code of a reward fails": Case(
        C.REWARD_CODE_FAILED,
        reports(
            "train", C.REWARD_CODE_FAILED, "rewards[].code of tests (key r.py of ConfigMap r, line 3): ValueError: x"
        ),
        "line 3): ValueError: x",
        "correct the code in the ConfigMap",
        "train",
        97,
    ),
    "the loss is no number": Case(
        C.DIVERGED,
        reports("train", C.DIVERGED, "the loss became nan in step 12"),
        "step 12",
        "learningRate",
        "train",
        85,
    ),
    "the pod's spec is bad": Case(
        C.BAD_SPEC, reports("train", C.BAD_SPEC, "lora.targetModules: none"), "lora", "named field", "train", 64
    ),
    # ... or by its exit code alone, where the report is lost.
    "a report is lost": Case(
        C.STORAGE_403,
        fetches(77, "a line\nthe last line"),
        "exited with code 77: the last line",
        "bucket",
        "fetch",
        77,
        "a line",
    ),
    "an engine does not come up": Case(
        C.ENGINE_FAILED,
        crashes(ended(83, report_with_log("serve", C.ENGINE_FAILED, "config.json: no such architecture"))),
        "no such architecture",
        "read the log tail",
        "serve",
        83,
        pod=EVAL_POD,
        thing=eval_job(),
    ),
    "an engine's probes fail": Case(
        C.ENGINE_FAILED,
        crashes(ended(143, LOG)),
        "because its probes failed",
        "raise spec.resources.cpu",
        "serve",
        143,
        pod=EVAL_POD,
        thing=eval_job(),
    ),
    "an engine's port is taken": Case(
        C.ENGINE_FAILED,
        crashes(
            ended(83, report_with_log("serve", C.ENGINE_FAILED, "port 8000 cannot be opened: something else uses it"))
        ),
        "port 8000",
        "read the log tail",
        "serve",
        83,
        pod=EVAL_POD,
        thing=eval_job(),
    ),
    "a benchmark can't be scored": Case(
        C.EVALUATION_FAILED,
        evaluates(
            ended(143, LOG), ended(84, report_with_log("evaluate", C.EVALUATION_FAILED, "12 of 100 answers failed"))
        ),
        "12 of 100",
        "read the log tail",
        "evaluate",
        84,
        pod=EVAL_POD,
        thing=eval_job(),
    ),
    "a process ends with a traceback": Case(
        C.PROCESS_ERROR,
        trains(1, "Traceback\nValueError: no"),
        "ValueError: no",
        "read the log tail",
        "train",
        1,
        "Trace",
    ),
    "a process ends with a bus error": Case(
        C.PROCESS_ERROR, trains(135), "which is a bus error", "sharedMemory", "train", 135
    ),
    # Not of a pod.
    "a Job of that name is somebody else's": Case(
        C.NAME_CONFLICT,
        lambda cluster: (cluster.remove(JOB), cluster.foreign.add(Key("Job", "support-tune-2")))[-1],
        "Job support-tune-2 exists and does not belong to this resource",
        "rename the resource",
        pod=None,
    ),
    "the spec is refused": Case(
        C.BAD_SPEC,
        lambda cluster: (cluster.remove(JOB), cluster.resource["spec"].update(model={"uri": "file:///m"}))[0],
        "pods cannot read files of your machine",
        "upload it to object storage and name its s3:// URI. Then delete the resource",
        pod=None,
    ),
}
