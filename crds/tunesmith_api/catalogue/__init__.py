"""The catalogue: models and data sets by short names.

`models.tsv` and `datasets.tsv` are the built-in catalogue, which `builtin` reads at the first use. `own` reads the
catalogues of users, `entries` has the types of both, and `nearest` finds names like an unknown one.
"""

SCHEME = "catalogue://"
"""Begins the URI of a model that is named and not looked up yet: catalogue://NAME."""
CONFIG_MAP = "tunesmith-catalogue"
"""ConfigMap of a namespace with its own entries, in the keys MODELS_FILE and DATASETS_FILE."""
MODELS_FILE, DATASETS_FILE = "models.yaml", "datasets.yaml"
STORE_FOLDER = "catalogue"
"""Folder of a store with entries for all namespaces, in files of the same names."""


def name_uri(name: str) -> str:
    """Return the URI of a name that is not looked up yet."""
    return f"{SCHEME}{name}"
