"""Pre-trains the bundled small CLIPs: ``pretrain`` is the command, ``glyphs`` and ``shape_scenes`` draw the images, and
``captions`` is what the captions of both share."""
