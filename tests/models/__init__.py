"""The workers' real models, on photographs, and through a real engine. They run in `nox -s models`."""
