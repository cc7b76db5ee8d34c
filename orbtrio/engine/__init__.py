"""The engine: takes jobs from clients, deals them to workers in batches, returns what the workers answer."""
