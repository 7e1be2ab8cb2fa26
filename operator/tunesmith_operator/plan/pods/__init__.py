"""Pod templates, and reading pods back: containers, members of a group, engines, storage, accelerators."""
