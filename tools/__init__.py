"""Programs of the project's own that neither images nor the development cluster need."""
