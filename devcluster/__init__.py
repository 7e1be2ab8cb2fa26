"""A real one-node Kubernetes, with a registry and an S3 server, on a bare Linux machine.

`devcluster.environment()` has the access to this cluster, or to the cluster that the user has named instead.
"""

from devcluster.access import Environment, environment
from devcluster.errors import ClusterError

__all__ = ["ClusterError", "Environment", "environment"]
