"""Types of Tunesmith's API, `tunesmith.dev/v1alpha1`, shared by the operator, the runtime and the generators."""

GROUP = "tunesmith.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
