"""Raw files: reading, colour filter arrays, noise, colour, DNG writing."""

from zoo.raw.cfa import BAYER_PHASES, XTRANS, Alignment, alignment, depth_to_space, pack, unpack
from zoo.raw.colour import apply_orientation, camera_to_srgb_matrix, srgb_decode, srgb_encode
from zoo.raw.dng import write_dng, write_linear_dng
from zoo.raw.image import RawImage
from zoo.raw.noise import NoiseProfile, camera_noise, estimate_noise, generic_noise
from zoo.raw.read import RAW_SUFFIXES, read_raw

__all__ = [
    "BAYER_PHASES",
    "RAW_SUFFIXES",
    "XTRANS",
    "Alignment",
    "NoiseProfile",
    "RawImage",
    "alignment",
    "apply_orientation",
    "camera_noise",
    "camera_to_srgb_matrix",
    "depth_to_space",
    "estimate_noise",
    "generic_noise",
    "pack",
    "read_raw",
    "srgb_decode",
    "srgb_encode",
    "unpack",
    "write_dng",
    "write_linear_dng",
]
