"""Checks of a spec beyond schema and CEL: validation, policy, references."""
