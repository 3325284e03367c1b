"""What the small CLIP "drawings" and its eleven tasks are made of: pictures of the icon sets in the npm registry.

``python -m scripts.drawings`` fetches the sets, matches their icons to concepts, renders them and writes the drawings
to pre-train on. ``sets`` says whose drawings, under which licences; ``tasks`` which classes; ``pretrain`` trains."""
