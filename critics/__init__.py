"""Critics: networks that score action chunks, and the losses that train them."""
