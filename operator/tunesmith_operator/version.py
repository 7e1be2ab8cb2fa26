"""The version of this code: in the user agent, in the metrics and on the command line."""

VERSION = "0.2.0"
