"""The cases, area by area. Importing a module here adds its cases to the catalogue."""
