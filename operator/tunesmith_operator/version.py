"""The version of this code: in the user agent, in the metrics and on the command line."""

from tunesmith_api.release import VERSION

__all__ = ["VERSION"]
