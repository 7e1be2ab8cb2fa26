"""From an outlook to the status that is written: conditions, phases, Events, and fitting it to the schema."""
