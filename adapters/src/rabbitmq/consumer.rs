//! The consuming end. (to be written)
