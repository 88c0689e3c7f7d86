"""diffusion: images from noise, by the DiffiT network under the EDM objective."""
