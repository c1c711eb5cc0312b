"""Where: settings, names, connections and the broker's topology. Imports nothing of ours."""
