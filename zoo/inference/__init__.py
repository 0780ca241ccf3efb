"""From a raw photo to a picture, with any runtime: exact tiling, restoring, developing, files out."""
