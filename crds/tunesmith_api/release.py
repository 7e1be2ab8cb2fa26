"""The version of the distribution: in the user agent, in the metrics and on the command line."""

VERSION = "0.2.0"
