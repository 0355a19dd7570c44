//! A kill at any write, and the disk as a loss of power leaves it.
