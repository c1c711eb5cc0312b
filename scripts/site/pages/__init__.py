"""The pages, a module a kind of origin: ``ORIGINS`` and ``answer(path, query)``, the same bytes each time."""
