"""The figures and tables of docs/: each page's module has its name and writes what it measured into the page.

``page`` has what they share; ``zero_shot`` measures a small CLIP.
"""
