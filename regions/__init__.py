"""Where things run: settings, names, connections and the broker's topology. Imports nothing else of the project."""
